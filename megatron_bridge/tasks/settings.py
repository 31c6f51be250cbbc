"""The settings of a task in a run file, and what can be wrong with them that a schema does not see."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Discriminator, Field, Tag

from megatron_bridge.annotate.settings import (
    AnnotatorSettings,
    LanguageModelSettings,
    NoAnnotator,
    OpenAISettings,
    ProgrammaticSettings,
)
from megatron_bridge.contexts import ROLLOUT_NAMES, TEMPLATES
from megatron_bridge.data.errors import DataError
from megatron_bridge.data.files import first_row
from megatron_bridge.data.settings import DataSettings, FilesSettings, GymSettings
from megatron_bridge.templates import Template, TemplateError, parse_template
from megatron_bridge.verify.settings import (
    ExactSettings,
    GymVerifierSettings,
    MathSettings,
    PythonSettings,
    VerifierSettings,
)
from trace_dsl.strict_yaml import Strict

GYM_COLUMNS = ("question", "answer")
Problems = Iterator[tuple[str, str]]


class PromptSettings(Strict):
    """template: text with {columns} of the data; chat: it is a user's message for the tokenizer's chat template, behind
    a `system` message, in `thinking` mode or not, for the student and every teacher alike."""

    template: str
    chat: bool = False
    system: str | None = None
    thinking: bool = False


class TaskSettings(Strict):
    """A task of one's own: where problems come from, how they are asked, who judges and who annotates.

    solution: the column with a worked solution that a teacher may be shown; contexts: templates of teachers' prompts in
    place of the default ones.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")] = "task"
    data: DataSettings
    prompt: PromptSettings
    solution: str | None = None
    verifier: VerifierSettings
    annotator: AnnotatorSettings = NoAnnotator(kind="none")
    contexts: dict[str, str] = Field(default_factory=dict)


# What `task` of a run file is: a name, or a mapping.
NamedOrOwn = Annotated[
    Annotated[str, Tag("a name")] | Annotated[TaskSettings, Tag("a mapping")],
    Discriminator(lambda value: "a mapping" if isinstance(value, dict | TaskSettings) else "a name"),
]


def span_labels(settings: TaskSettings) -> tuple[str, ...]:
    """The labels that the annotator can give."""
    match settings.annotator:
        case LanguageModelSettings():
            return ("key", "error")
        case ProgrammaticSettings(labels=labels):
            return labels
        case _:
            return ()


def diagnoses(settings: TaskSettings) -> tuple[str, ...]:
    """The type labels that a teacher may be shown."""
    match settings.annotator:
        case LanguageModelSettings(error_types=errors, key_types=keys):
            return (*errors, *keys)
        case ProgrammaticSettings(types=types):
            return types
        case _:
            return ()


def contexts_of(settings: TaskSettings) -> tuple[str, ...]:
    """What a teacher can be shown."""
    diagnosis = () if isinstance(settings.annotator, NoAnnotator) else ("diagnosis",)
    solution = () if settings.solution is None else ("solution",)
    return (*diagnosis, *solution, "sibling", "feedback")


def splits_of(settings: TaskSettings) -> tuple[str, ...]:
    """The splits that the data has."""
    return tuple(settings.data.splits) if isinstance(settings.data, FilesSettings) else ("train", "eval")


def context_templates(settings: TaskSettings) -> dict[str, Template]:
    """The templates of teachers' prompts. Raises TemplateError."""
    return {sees: parse_template(text) for sees, text in {**TEMPLATES, **settings.contexts}.items()}


def task_problems(settings: TaskSettings, folder: Path) -> Problems:
    """(setting, what is wrong with it), from the settings and the first row of each file; no code is run."""
    columns = None
    if isinstance(settings.data, GymSettings):
        columns = GYM_COLUMNS
    elif "train" not in settings.data.splits:
        yield "data.splits", f"there is no split 'train', only {', '.join(settings.data.splits) or 'none'}"
    else:
        found = list(_file_problems(settings.data, folder))
        yield from ((place, problem) for place, problem in found if isinstance(problem, str))
        rows = [row for _, row in found if not isinstance(row, str)]
        columns = tuple(name for name in rows[0] if all(name in row for row in rows)) if rows else None
    yield from _prompt_problems(settings.prompt)
    if columns is not None:
        yield from _column_problems(settings, columns)
    yield from _verifier_problems(settings, folder)
    if isinstance(settings.annotator, ProgrammaticSettings) and not (folder / settings.annotator.folder).is_dir():
        yield "annotator.folder", f"no folder {str(folder / settings.annotator.folder)!r}"
    yield from _context_problems(settings.contexts)


def _file_problems(data: FilesSettings, folder: Path) -> Iterator[tuple[str, str | Mapping[str, Any]]]:
    """For each file what is wrong with it, or its first row."""
    for split, files in data.splits.items():
        for file in files:
            try:
                yield f"data.splits.{split}", first_row(folder / file, data.columns)
            except DataError as error:
                yield f"data.splits.{split}", str(error)


def _prompt_problems(prompt: PromptSettings) -> Problems:
    try:
        parse_template(prompt.template)
    except TemplateError as error:
        yield "prompt.template", str(error)
    if not prompt.chat and (prompt.system is not None or prompt.thinking):
        yield "prompt", "system and thinking need chat: true"


def _column_problems(settings: TaskSettings, columns: tuple[str, ...]) -> Problems:
    asked = [("solution", settings.solution)]
    if isinstance(settings.verifier, ExactSettings | MathSettings):
        asked.append(("verifier.column", settings.verifier.column))
    with contextlib.suppress(TemplateError):  # told above
        asked += [("prompt.template", name) for name in parse_template(settings.prompt.template).names]
    for place, name in asked:
        if name is not None and name not in columns:
            close = difflib.get_close_matches(name, columns, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f": the data has {', '.join(columns)}"
            yield place, f"no column {name!r} in every file{hint}"


def _verifier_problems(settings: TaskSettings, folder: Path) -> Problems:
    verifier = settings.verifier
    if isinstance(verifier, GymVerifierSettings) and not isinstance(settings.data, GymSettings):
        yield "verifier.kind", "reasoning_gym judges problems of 'data: {kind: reasoning_gym}' only"
    if isinstance(verifier, PythonSettings) and not (folder / verifier.folder).is_dir():
        yield "verifier.folder", f"no folder {str(folder / verifier.folder)!r}"


def _context_problems(contexts: Mapping[str, str]) -> Problems:
    known = ("prompt", *TEMPLATES, *ROLLOUT_NAMES)
    for sees, text in contexts.items():
        if sees not in TEMPLATES:
            close = difflib.get_close_matches(sees, TEMPLATES, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"allowed are {', '.join(TEMPLATES)}"
            yield f"contexts.{sees}", f"no such context; {hint}"
            continue
        try:
            names = parse_template(text).names
        except TemplateError as error:
            yield f"contexts.{sees}", str(error)
            continue
        for name in names:
            if name not in known:
                yield f"contexts.{sees}", f"nothing is called {{{name}}}: it may show {{prompt}} and {{{sees}}}"
        if sees not in names:
            yield f"contexts.{sees}", f"it does not show {{{sees}}}, so the teacher would read the student's prompt"


def with_absolute_paths(settings: TaskSettings, folder: Path) -> TaskSettings:
    """The same task for a run file that stands anywhere."""
    update: dict[str, Any] = {}
    if isinstance(settings.data, FilesSettings):
        splits = {
            split: tuple(str((folder / file).resolve()) for file in files)
            for split, files in settings.data.splits.items()
        }
        update["data"] = settings.data.model_copy(update={"splits": splits})
    if isinstance(settings.verifier, PythonSettings):
        place = str((folder / settings.verifier.folder).resolve())
        update["verifier"] = settings.verifier.model_copy(update={"folder": place})
    match settings.annotator:
        case ProgrammaticSettings(folder=inner):
            update["annotator"] = settings.annotator.model_copy(update={"folder": str((folder / inner).resolve())})
        case OpenAISettings(cache=str() as cache):
            update["annotator"] = settings.annotator.model_copy(update={"cache": str((folder / cache).resolve())})
        case _:
            pass
    return settings.model_copy(update=update)
