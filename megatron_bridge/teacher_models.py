"""Other models as teachers: the directories that a spec names, and what of them must fit the policy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megatron_bridge.model.shape import Layout, ModelShape, layout_problems, read_shape
from trace_dsl.model import ModelTeacher, Teacher
from trace_dsl.plan import Plan
from trace_dsl.plan.plan import PlannedTeacher


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherFiles:
    """A Hugging Face model directory and the sizes that its config.json says."""

    directory: Path
    shape: ModelShape


def teacher_directory(teacher: Teacher, spec_path: Path) -> Path:
    """Where the model of a `model("path")` teacher lies, seen from the folder of the spec that names it."""
    assert isinstance(teacher.source, ModelTeacher)
    return Path(teacher.place.path or spec_path).parent / teacher.source.path


def teacher_files(teacher: Teacher, spec_path: Path) -> TeacherFiles:
    """The model of a `model("path")` teacher. Raises what `read_shape` raises."""
    directory = teacher_directory(teacher, spec_path)
    return TeacherFiles(directory=directory, shape=read_shape(directory))


def teacher_shapes(plan: Plan, spec_path: Path) -> dict[str, ModelShape]:
    """The sizes of the teachers that are other models and that some step runs. Raises what `read_shape` raises."""
    return {t.teacher.name: teacher_files(t.teacher, spec_path).shape for t in plan.teachers if runs_model(t)}


def runs_model(planned: PlannedTeacher) -> bool:
    """Whether some step runs a teacher that is another model."""
    return isinstance(planned.teacher.source, ModelTeacher) and planned.last_step >= 0


def teacher_problems(
    teacher: Teacher, spec_path: Path, policy: Path, policy_shape: ModelShape, layout: Layout, *, to_train: bool
) -> Iterator[str]:
    """Why a `model("path")` teacher cannot be run beside the policy, one message each; its weights count `to_train`."""
    directory = teacher_directory(teacher, spec_path)
    if not directory.is_dir():
        yield (
            f"no folder {str(directory)!r}: a teacher is a Hugging Face model directory on this machine, and paths are "
            "relative to the spec; download the model first"
        )
        return
    if to_train and not list(directory.glob("*.safetensors")):
        yield f"{str(directory)!r} holds no *.safetensors weights"
    try:
        shape = read_shape(directory)
    except (OSError, ValueError) as error:
        yield str(error)
        return
    yield from layout_problems(shape, layout)
    if shape.vocab_size != policy_shape.vocab_size:
        yield (
            f"its vocabulary has {shape.vocab_size} tokens, the policy's {policy_shape.vocab_size}: choose a teacher "
            "of the policy's family; where only the padding differs, pad both to one size"
        )
    elif (differing := _differing_token(directory, policy)) is not None:
        yield (
            f"its tokenizer gives {differing!r} another number than the policy's, so the two distributions have "
            "different columns: choose a teacher of the policy's family"
        )
    if shape.max_position < policy_shape.max_position:
        yield (
            f"its context of {shape.max_position} tokens (max_position_embeddings) is shorter than the policy's "
            f"{policy_shape.max_position}: it could not read every rollout"
        )


def _differing_token(one: Path, other: Path) -> str | None:
    """The first token of one vocabulary that the other numbers otherwise; None where both agree or one is not known."""
    mine, theirs = _vocabulary(one), _vocabulary(other)
    if mine is None or theirs is None:
        return None
    return next((token for token, number in theirs.items() if mine.get(token) != number), None)


def _vocabulary(directory: Path) -> dict[str, int] | None:
    path = directory / "tokenizer.json"
    if not path.is_file():
        return None
    data: Any = json.loads(path.read_text(encoding="utf-8"))
    model = data.get("model") if isinstance(data, dict) else None
    found = model.get("vocab") if isinstance(model, dict) else None
    match found:
        case dict():
            return found
        case list():  # unigram: pieces with their scores, in order
            return {piece: number for number, (piece, _) in enumerate(found)}
        case _:
            return None
