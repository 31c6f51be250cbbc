"""Run files: YAML in, a strict frozen `RunFile` out, every mistake one line, before any process starts.

Imports neither torch nor megatron-core. Paths in a run file are relative to the file, `output` to the working
directory.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, ValidationError

from megatron_bridge.log_settings import LoggingSettings, ProfileSettings, profile_problems
from megatron_bridge.model.shape import ModelShape, Precision, TransformerImpl, layout_problems, read_shape
from megatron_bridge.other_names import meant_by, settings_named
from megatron_bridge.prerequisites import missing_to_train
from megatron_bridge.rollout.settings import Count, Positive, RolloutSettings, rollout_problems
from megatron_bridge.run_settings import (
    CheckpointSettings,
    EvaluationSettings,
    LayoutSettings,
    OptimizerSettings,
    TeacherSettings,
)
from megatron_bridge.settings_text import override, read_settings
from megatron_bridge.task_facts import TaskFacts, task_facts, task_mistakes
from megatron_bridge.tasks import Task, open_task
from megatron_bridge.tasks.settings import NamedOrOwn, TaskSettings, with_absolute_paths
from trace_dsl.errors import RunFileError
from trace_dsl.facts import RunFacts
from trace_dsl.model_files import stop_tokens
from trace_dsl.strict_yaml import Strict, problems, where


class RunFile(Strict):
    """One training run. `steps` are optimizer steps; each iteration of rollouts serves `minibatches` of them.

    pack_tokens: the most tokens of a packed micro-batch; None: micro-batches hold `micro_batch` padded sequences.
    chunk_rows: rows of logits that the loss holds at a time; None: by rule. precision: of parameters and activations;
    the optimizer keeps main weights, gradients and state in float32. transformer_impl: what layers are made of; None:
    transformer_engine where it is installed and CUDA is present. heartbeat_timeout: seconds without a sign of life of a
    rank after which the others end the job; 0: never.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    spec: str
    policy: str
    task: NamedOrOwn
    seed: Count = 0
    steps: Positive
    minibatches: Positive = 1
    micro_batch: Positive = 8
    pack_tokens: Positive | None = None
    chunk_rows: Positive | None = None
    precision: Precision = "fp32"
    transformer_impl: TransformerImpl | None = None
    output: str = "runs"
    save_rollouts_every: Positive = 10
    heartbeat_timeout: Annotated[float, Field(ge=0)] = 300.0
    rollout: RolloutSettings = RolloutSettings()
    layout: LayoutSettings = LayoutSettings()
    optim: OptimizerSettings = OptimizerSettings()
    teacher: TeacherSettings = TeacherSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()
    logging: LoggingSettings = LoggingSettings()
    profile: ProfileSettings | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedRun:
    """A checked run file with its paths resolved. `shape` is the policy's."""

    file: RunFile
    path: Path
    spec_path: Path
    policy_path: Path
    shape: ModelShape
    facts: RunFacts

    @property
    def directory(self) -> Path:
        """The run directory, `output`/`name`."""
        return Path(self.file.output) / self.file.name

    @property
    def task_name(self) -> str:
        return self.file.task if isinstance(self.file.task, str) else self.file.task.name

    def open_task(self) -> Task:
        """The task; close it. Nothing is read or started before it is asked for."""
        return open_task(self.file.task, folder=self.path.parent, cache=Path(self.file.output) / ".annotations")

    def try_task(self) -> None:
        """Read the data and start what judges once, before ranks do. Raises TraceError."""
        with contextlib.closing(self.open_task()) as task:
            task.start(held_out=self.file.evaluation.splits, problems=self.file.evaluation.problems)


def load_run(path: Path, overrides: Sequence[str] = (), *, to_train: bool = True) -> LoadedRun:
    """Read and check a run file.

    overrides: `a.b=value` items, values read as YAML. to_train: what training needs of this machine is asked for too:
    weights, tokenizer, programs; without it the policy may be a directory with a config.json alone. Raises RunFileError
    whose message holds every mistake, one a line.
    """
    file, lines, doubtful = _validate(override(read_settings(path), overrides))
    spec_path, policy_path = path.parent / file.spec, path.parent / file.policy
    shape: ModelShape | None = None
    policy_problems = list(_policy_problems(policy_path))
    try:
        shape = None if policy_problems else read_shape(policy_path)
    except ValueError as error:
        policy_problems.append(str(error))
    known = task_facts(file.task)
    found = [
        *(_Problem("spec", text) for text in _spec_problems(file, spec_path)),
        *(_Problem("policy", text) for text in policy_problems),
        *(_Problem(*mistake) for mistake in task_mistakes(file.task, path.parent, policy_path)),
        *(() if known is None else _split_problems(file, known)),
        *size_problems(file),
        *(_Problem(*problem) for problem in rollout_problems(file.rollout, ranks=file.layout.cp * file.layout.dp)),
        *(_Problem(*problem) for problem in profile_problems(file.profile, steps=file.steps)),
        *(() if shape is None else _shape_problems(file, shape)),
        *(
            (
                _Problem(*problem)
                for problem in missing_to_train(policy_path, file.rollout, file.transformer_impl, file.logging.wandb)
            )
            if to_train
            else ()
        ),
    ]
    lines += [problem.line for problem in found if not problem.hangs_on(doubtful)]
    if lines or shape is None or known is None:
        raise RunFileError("\n".join(f"{path}: {line}" for line in lines))
    facts = RunFacts(
        total_steps=file.steps,
        group_size=file.rollout.group_size,
        annotator_labels=known.labels,
        teacher_contexts=known.contexts,
        context_fields=known.context_fields,
        vocab_size=shape.vocab_size,
        max_response_tokens=file.rollout.max_response_tokens,
        temperature=file.rollout.temperature,
        stop_tokens=stop_tokens(policy_path),
    )
    return LoadedRun(file=file, path=path, spec_path=spec_path, policy_path=policy_path, shape=shape, facts=facts)


def load_run_facts(path: Path) -> RunFacts:
    """The facts a plan or a check needs of a run, of its policy no more than config.json. Raises RunFileError."""
    return load_run(path, to_train=False).facts


@dataclass(frozen=True, slots=True)
class _Problem:
    """What is wrong with a setting, told from its value and from those of `others`."""

    setting: str
    message: str
    others: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        return f"{self.setting}: {self.message}"

    def hangs_on(self, doubtful: frozenset[str]) -> bool:
        """Whether it is told from a setting whose value is not known."""
        groups = {setting.partition(".")[0] for setting in (self.setting, *self.others)}
        return bool(doubtful & {self.setting, *self.others, *groups})


def _spec_problems(file: RunFile, spec_path: Path) -> Iterator[str]:
    if not spec_path.is_file():
        here = f"; {file.spec!r} is there seen from the working directory: write {str(Path(file.spec).resolve())!r}"
        yield f"no file {str(spec_path)!r} (paths are relative to the run file)" + (
            here if Path(file.spec).is_file() else ""
        )


def _policy_problems(policy_path: Path) -> Iterator[str]:
    if not policy_path.is_dir():
        yield (
            f"no folder {str(policy_path)!r}: a policy is a Hugging Face model directory on this machine, and paths "
            "are relative to the run file; download the model first"
        )
    elif not (policy_path / "config.json").is_file():
        yield f"{str(policy_path)!r} is no Hugging Face model directory: it has no config.json"


def _split_problems(file: RunFile, task: TaskFacts) -> Iterator[_Problem]:
    asked = file.evaluation
    for setting, split in (("split", asked.split), *(("also", split) for split in asked.also)):
        if split not in task.splits:
            yield _Problem(
                f"evaluation.{setting}",
                f"{split!r} is no split of the task {task.name!r}: choose from {', '.join(task.splits)}",
                ("task",),
            )


def size_problems(file: RunFile) -> Iterator[_Problem]:
    """What divides what; each message names the values and the fix."""
    rows = file.rollout.prompts * file.rollout.group_size
    sampling = file.layout.cp * file.layout.dp
    if file.rollout.prompts % sampling:
        yield _Problem(
            "rollout.prompts",
            f"{file.rollout.prompts} prompts cannot be shared out over {sampling} ranks "
            f"(cp {file.layout.cp} x dp {file.layout.dp}); make it a multiple of {sampling}",
            ("layout.cp", "layout.dp"),
        )
    cut = ("rollout.prompts", "minibatches", "layout.dp")
    if file.rollout.prompts % (file.minibatches * file.layout.dp):
        yield _Problem(
            "rollout.prompts",
            f"{file.rollout.prompts} prompts cannot be split into {file.minibatches} minibatches "
            f"x {file.layout.dp} data-parallel ranks; make it a multiple of {file.minibatches * file.layout.dp}",
            cut,
        )
    elif file.pack_tokens is None and (rows // (file.minibatches * file.layout.dp)) % file.micro_batch:
        share = rows // (file.minibatches * file.layout.dp)
        yield _Problem(
            "micro_batch",
            f"{file.micro_batch} does not divide the {share} rollouts that a rank trains on in a step "
            f"({file.rollout.prompts} prompts x {file.rollout.group_size} / {file.minibatches} minibatches / "
            f"dp {file.layout.dp}); pick a divisor of {share}",
            (*cut, "rollout.group_size"),
        )
    elif (batches := _most_micro_batches(file)) < (fewest := file.layout.layout.fewest_micro_batches):
        fix = "raise rollout.prompts or rollout.group_size, or set layout.vpp to 1"
        if file.pack_tokens is None and batches * file.micro_batch >= fewest:
            fix = f"set micro_batch to at most {batches * file.micro_batch // fewest}, or layout.vpp to 1"
        yield _Problem(
            "layout.vpp",
            f"an interleaved pipeline of pp {file.layout.pp} stages needs {fewest} micro-batches or more, and a rank "
            f"has at most {batches} in a step; {fix}",
            (*cut, "rollout.group_size", "micro_batch", "pack_tokens", "layout.pp"),
        )
    if file.steps % file.minibatches:
        yield _Problem(
            "steps",
            f"{file.steps} is no multiple of minibatches = {file.minibatches}; "
            f"set it to {file.steps // file.minibatches * file.minibatches or file.minibatches}",
            ("minibatches",),
        )
    if file.checkpoint.every % file.minibatches:
        yield _Problem(
            "checkpoint.every",
            f"{file.checkpoint.every} is no multiple of minibatches = {file.minibatches}: "
            "a checkpoint stands between two iterations of rollouts",
            ("minibatches",),
        )


def _most_micro_batches(file: RunFile) -> int:
    """Of a data-parallel rank in a step; packs hold a rollout each where more are not wanted."""
    share = file.rollout.prompts * file.rollout.group_size // (file.minibatches * file.layout.dp)
    return share if file.pack_tokens is not None else share // file.micro_batch


def _shape_problems(file: RunFile, shape: ModelShape) -> Iterator[_Problem]:
    """What does not fit the policy."""
    for text in layout_problems(shape, file.layout.layout):
        yield _Problem("layout", text, ("policy", "layout.tp", "layout.pp", "layout.vpp", "layout.dp"))
    if file.rollout.max_response_tokens >= shape.max_position:
        yield _Problem(
            "rollout.max_response_tokens",
            f"{file.rollout.max_response_tokens} tokens fill the policy's context of {shape.max_position} "
            f"(max_position_embeddings) and leave no room for a prompt; set it to at most {shape.max_position - 1}, "
            "less the longest prompt",
            ("policy",),
        )


# ------------------------------------------------------------------------------------------------------------ reading


# What stands for a setting that must be given and is not, or is wrong: nothing is concluded from it.
_STAND_INS: dict[str, Any] = {"name": "run", "spec": "", "policy": "", "task": "", "steps": 1}


def _validate(data: dict[str, Any]) -> tuple[RunFile, list[str], frozenset[str]]:
    """The settings, what is wrong with them, and those, or their groups, whose values are not known for that.

    A setting that is wrong is left at its default. Where one is unknown, another of its group may be meant.
    """
    try:
        return RunFile.model_validate(data), [], frozenset()
    except ValidationError as error:
        lines = [f"{where(loc)}: {message}" for loc, message in problems(error, RunFile, meant_by)]
        places = [(entry["loc"], entry["type"] == "extra_forbidden") for entry in error.errors()]
    sound = deepcopy(data)
    doubtful: set[str] = set()
    for (*groups, leaf), unknown in places:
        if "task" in groups:  # what else is wrong with a task hangs on all of it
            sound.pop("task", None)
            doubtful.add("task")
            continue
        _take_out(sound, (*groups, leaf))
        if unknown:
            doubtful.update(map(str, groups) if groups else settings_named(str(leaf)))
        else:
            doubtful.add(where((*groups, leaf)))
    while True:
        try:
            return RunFile.model_validate(_STAND_INS | sound), lines, frozenset(doubtful)
        except ValidationError as error:  # a group cannot be without what was wrong in it
            for entry in error.errors():
                _take_out(sound, entry["loc"][:-1])


def _take_out(settings: dict[str, Any], loc: tuple[int | str, ...]) -> None:
    """Leave out the setting at `loc`, keys that are no words beside it, and a list as a whole."""
    place: Any = settings
    for n, key in enumerate(loc):
        inner = place.get(key)
        if n == len(loc) - 1 or not isinstance(inner, dict):
            for other in [other for other in place if other == key or not isinstance(other, str)]:
                del place[other]
            return
        place = inner


def dump_run(loaded: LoadedRun) -> str:
    """The run file with every default written out, as it can be started from the run's own directory.

    `spec` is the copy that stands beside it, `policy` and `output` are absolute.
    """
    settings = loaded.file.model_dump()
    if isinstance(loaded.file.task, TaskSettings):
        settings["task"] = with_absolute_paths(loaded.file.task, loaded.path.parent).model_dump()
    settings |= {"spec": "spec.trace", "policy": str(loaded.policy_path.resolve())}
    settings |= {"output": str(Path(loaded.file.output).resolve())}
    return yaml.safe_dump(settings, sort_keys=False)


def changed_settings(before: str, loaded: LoadedRun) -> list[str]:
    """What differs between a resolved run file (YAML text) and this run, one `a.b: old -> new` each."""
    old, new = (flat(yaml.safe_load(text)) for text in (before, dump_run(loaded)))
    return [f"{key}: {old.get(key)} -> {new.get(key)}" for key in sorted(old | new) if old.get(key) != new.get(key)]


def flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings by their full names: `{"optim": {"lr": 1}}` is `{"optim.lr": 1}`."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
