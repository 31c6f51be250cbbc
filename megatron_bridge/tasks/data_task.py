"""A task that a run file describes: problems from files or a generator, a verifier, an annotator, templates."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from megatron_bridge.annotate.run import open_annotator
from megatron_bridge.annotate.settings import NoAnnotator, OpenAISettings
from megatron_bridge.annotation import Annotator, Policy, Problem
from megatron_bridge.contexts import Context, ContextError, Diagnosis, render
from megatron_bridge.data import DataError, Order, Rows, open_rows
from megatron_bridge.data.gym import gym_problem, split_seed
from megatron_bridge.data.settings import FilesSettings, GymSettings
from megatron_bridge.tasks.base import PromptFormat
from megatron_bridge.tasks.settings import (
    TaskSettings,
    context_templates,
    contexts_of,
    diagnoses,
    span_labels,
    splits_of,
)
from megatron_bridge.templates import parse_template
from megatron_bridge.verify.grade import Grade
from megatron_bridge.verify.run import open_verifier
from megatron_bridge.verify.settings import ExactSettings, MathSettings


class DataTask:
    """See `megatron_bridge.tasks.base.Task` for what each member promises."""

    def __init__(self, settings: TaskSettings, *, folder: Path, cache: Path) -> None:
        """`folder` is the run file's; `cache` is where a server's annotations are kept if no setting says so."""
        self._settings, self._folder = settings, folder
        self._cache = cache
        if isinstance(settings.annotator, OpenAISettings) and settings.annotator.cache is not None:
            self._cache = folder / settings.annotator.cache
        self._template = parse_template(settings.prompt.template)
        self._contexts = context_templates(settings)
        self._rows = lru_cache(maxsize=None)(self._open_rows)
        self._annotators: list[Annotator] = []

    @property
    def name(self) -> str:
        return self._settings.name

    @property
    def labels(self) -> tuple[str, ...]:
        return span_labels(self._settings)

    @property
    def contexts(self) -> tuple[str, ...]:
        return contexts_of(self._settings)

    @property
    def splits(self) -> tuple[str, ...]:
        return splits_of(self._settings)

    @property
    def prompt_format(self) -> PromptFormat:
        prompt = self._settings.prompt
        return PromptFormat(chat=prompt.chat, system=prompt.system, thinking=prompt.thinking)

    @property
    def max_failures(self) -> tuple[float, float]:
        annotator = self._settings.annotator
        return self._settings.verifier.max_failures, 1.0 if isinstance(
            annotator, NoAnnotator
        ) else annotator.max_failures

    def identity(self, seed: int) -> dict[str, str]:
        """See `Task.identity`."""
        found = {"task.prompt": self._settings.prompt.model_dump_json()}
        match self._settings.data:
            case FilesSettings(shuffle=shuffle):
                found |= {"the files of task.data": self._rows("train").digest, "task.data.shuffle": str(shuffle)}
                return found | ({"seed": str(seed)} if shuffle else {})
            case GymSettings(dataset=name, config=config):
                given = json.dumps(config, sort_keys=True)
                return found | {"task.data.dataset": name, "task.data.config": given, "seed": str(seed)}

    def start(self, *, held_out: Sequence[str], problems: int) -> None:
        """See `Task.start`."""
        match self._settings.data:
            case FilesSettings():
                self.problems(split="train", seed=0, start=0, count=1)
                for split in held_out:
                    rows = len(self._rows(split))
                    if problems > rows:
                        raise DataError(
                            f"evaluation.problems: {problems}, but the split {split!r} has {rows} rows; set it to "
                            f"{rows}"
                        )
            case GymSettings():
                for split in held_out:
                    self.problems(split=split, seed=0, start=0, count=1)
        self._verifier.start()
        tried = self._open_annotator(_NobodyYet())
        try:
            tried.start()
        finally:
            tried.close()

    def problems(self, *, split: str, seed: int, start: int, count: int) -> Sequence[Problem]:
        """Positions start .. start+count-1 of a split; "train" goes on into further epochs, in an order of each.

        Raises ValueError for another split, DataError for a row that cannot be read or lacks what the task needs, and
        for a position past the end of a held-out split.
        """
        if split not in self.splits:
            raise ValueError(f"unknown split {split!r}: allowed are {', '.join(map(repr, self.splits))}")
        positions = range(start, start + count)
        match self._settings.data:
            case GymSettings(dataset=name, config=config):
                drawn = split_seed(split, seed)
                rows = [gym_problem(name, drawn, config, position) for position in positions]
                return [self._problem(row, f"problem {row['index']} of {name}") for row in rows]
            case FilesSettings(shuffle=shuffle):
                return [self._problem(*found) for found in self._placed(split, seed if shuffle else None, positions)]

    def _placed(self, split: str, seed: int | None, positions: Sequence[int]) -> Iterator[tuple[dict[str, Any], str]]:
        """The row at each position, and where it stands."""
        rows = self._rows(split)
        order = Order(rows.blocks, seed=seed if split == "train" else None)
        for position in positions:
            if split != "train" and position >= len(rows):
                raise DataError(f"the split {split!r} has {len(rows)} rows: there is no row {position + 1}")
            number = order.row(position)
            yield rows.row(number), rows.place(number)

    def grade(self, items: Sequence[tuple[Problem, str]]) -> list[Grade]:
        """See `Task.grade`."""
        return self._verifier.grade([(problem.data, response) for problem, response in items])

    def annotator(self, policy: Policy) -> Annotator:
        """See `Task.annotator`."""
        opened = self._open_annotator(policy)
        self._annotators.append(opened)
        return opened

    def _open_annotator(self, policy: Policy) -> Annotator:
        return open_annotator(self._settings.annotator, folder=self._folder, cache=self._cache, policy=policy)

    def teacher_prompt(self, problem: Problem, context: Context | None) -> str:
        """See `Task.teacher_prompt`. Raises ContextError for a diagnosis that the annotator's settings do not list."""
        if isinstance(context, Diagnosis) and context.kind not in diagnoses(self._settings):
            raise ContextError(
                f"unknown diagnosis {context.kind!r}: allowed are {', '.join(map(repr, diagnoses(self._settings)))}"
            )
        return render(self._contexts, problem.prompt, context)

    def close(self) -> None:
        """See `Task.close`."""
        self._verifier.close()
        for annotator in self._annotators:
            annotator.close()

    @cached_property
    def _verifier(self):
        data = self._settings.data
        gym = {"dataset": data.dataset, "config": data.config} if isinstance(data, GymSettings) else None
        annotator = self._settings.annotator
        secret = annotator.api_key_env if isinstance(annotator, OpenAISettings) else None
        hidden = () if secret is None else (secret,)
        return open_verifier(self._settings.verifier, folder=self._folder, gym=gym, hidden=hidden)

    def _open_rows(self, split: str) -> Rows:
        assert isinstance(self._settings.data, FilesSettings)
        files = self._settings.data.splits[split]
        return open_rows([self._folder / file for file in files], self._settings.data.columns)

    @cached_property
    def _needed(self) -> tuple[str, ...]:
        """The columns that every row must have a value in."""
        verifier = self._settings.verifier
        judged_by = (verifier.column,) if isinstance(verifier, ExactSettings | MathSettings) else ()
        return tuple(dict.fromkeys((*self._template.names, *judged_by)))

    def _problem(self, row: dict[str, Any], place: str) -> Problem:
        """A row as a problem; a row may have no solution, which is then shown to nobody."""
        solution = self._settings.solution
        for name in (*self._needed, *(() if solution is None else (solution,))):
            if name not in row:
                raise DataError(f"{place}: no column {name!r}; it has {', '.join(sorted(row))}")
        for name in self._needed:
            if row[name] is None:
                raise DataError(f"{place}: column {name!r} is null; give it a value, or leave the row out")
        worked = None if solution is None else row[solution]
        return Problem(prompt=self._template.fill(row), data=row, solution=None if worked is None else str(worked))


class _NobodyYet:
    """In place of a policy while the settings are tried out; it is not asked."""

    def answer(self, messages, *, max_tokens: int, temperature: float):
        raise AssertionError("a task asks nothing while it starts")
