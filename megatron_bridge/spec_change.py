"""A run that goes on under another objective than its checkpoint was trained with: what changed, and the record of it.

`changes.jsonl` in the run's directory has a line for each change that was accepted; what it replaced is kept in
`earlier/step_000040/`, with the policy and summary of a run that had ended there.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from megatron_bridge.atomic import replace_directory, write_text
from megatron_bridge.run_file import LoadedRun
from trace_dsl import parse_spec
from trace_dsl.model import Frozen, ModelTeacher, SelfTeacher, Spec, Teacher
from trace_dsl.plan import Plan
from trace_dsl.plan.difference import difference
from trace_dsl.plan.difference_lines import change_lines

CHANGES, EARLIER = "changes.jsonl", "earlier"
_COPIED, _MOVED = ("spec.trace", "run.yaml", "plan.json"), ("summary.json", "model")


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecChange:
    """What is not as it was when `checkpoint` was written. lines: for people; kept: the teachers whose weights it has
    and the run goes on with; begun: those that the run makes anew, each with where its weights come from.
    """

    checkpoint: Path
    step: int
    old_hash: str
    new_hash: str
    lines: tuple[str, ...]
    kept: frozenset[str]
    begun: tuple[str, ...]

    def told(self) -> str:
        return "\n".join(f"  {line}" for line in (*self.lines, *self.begun))


def find_change(checkpoint: Path, meta: dict[str, Any], loaded: LoadedRun, plan: Plan) -> SpecChange | None:
    """How the objective differs from that of a checkpoint, None where it does not. meta: of the checkpoint."""
    if meta["plan_hash"] == plan.hash:
        return None
    run = checkpoint.parent.parent
    # a checkpoint of an older version has no spec; its run's directory does
    text = meta["spec"] if "spec" in meta else (run / "spec.trace").read_text(encoding="utf-8")
    old, _ = parse_spec(text, path=meta.get("spec_path", str(loaded.spec_path)))
    new, _ = parse_spec(plan.spec_text, path=str(loaded.spec_path))
    assert new is not None  # it has a plan
    stored = frozenset(meta.get("models", ()))
    kept = frozenset(
        teacher.name
        for teacher in new.teachers
        if f"teacher_{teacher.name}" in stored and old is not None and _goes_on(teacher, old)
    )
    return SpecChange(
        checkpoint=checkpoint,
        step=meta["step"],
        old_hash=meta["plan_hash"],
        new_hash=plan.hash,
        lines=tuple(_lines(old, new, meta, loaded, plan)),
        kept=kept,
        begun=tuple(
            f"teacher `{t.teacher.name}` starts from {_origin(t.teacher, meta['step'])}"
            for t in plan.teachers
            if t.teacher.name not in kept and t.last_step >= meta["step"] and not _is_same_model(t.teacher, old)
        ),
    )


def _lines(old: Spec | None, new: Spec, meta: dict[str, Any], loaded: LoadedRun, plan: Plan) -> Iterator[str]:
    if old is None:
        yield "the spec before cannot be read any more: one that it extends has gone or changed"
        return
    before = replace(plan.facts, total_steps=meta["steps"], temperature=meta["rollout.temperature"])
    found = difference(old, new, plan.facts, old_facts=before)
    yield from (line.plain for line in change_lines(found))
    if found.old_hash != meta["plan_hash"]:
        yield "note: a spec that the one before extends is not as it was, so this may not be all"
    decay = loaded.file.optim.decay
    if meta["steps"] != plan.facts.total_steps and decay != "constant":
        yield f"optim.decay={decay}"
        yield f"  ends after step: {meta['steps']} -> {plan.facts.total_steps}"


def _goes_on(teacher: Teacher, old: Spec) -> bool:
    """Whether weights of the teacher of this name in the old spec are what this one has at the same step."""
    before = next((t for t in old.teachers if t.name == teacher.name), None)
    if before is None or not (isinstance(before.source, SelfTeacher) and isinstance(teacher.source, SelfTeacher)):
        return False
    return type(before.source.update) is type(teacher.source.update)


def _is_same_model(teacher: Teacher, old: Spec | None) -> bool:
    """Whether a teacher is another model, and was the same one before."""
    before = () if old is None else old.teachers
    return isinstance(teacher.source, ModelTeacher) and any(
        (t.name, t.source) == (teacher.name, teacher.source) for t in before
    )


def _origin(teacher: Teacher, step: int) -> str:
    match teacher.source:
        case ModelTeacher(path):
            return f"the model {path}"
        case SelfTeacher(update=Frozen()):
            return "the policy that the run began with"
        case _:
            return f"the policy after {step} steps"


def record_change(run: Path, change: SpecChange) -> None:
    """Keep aside what the change replaces, and add it to the run's changes; nothing when that was done before.

    Raises OSError.
    """
    before = read_changes(run)
    wanted = {"step": change.step, "old_plan": change.old_hash, "new_plan": change.new_hash}
    if before and wanted.items() <= before[-1].items():
        return
    aside = _free(run / EARLIER / f"step_{change.step:06d}")
    partial = aside.with_name(f"{aside.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for name in _COPIED:
        if (run / name).is_file():
            shutil.copy2(run / name, partial)
    replace_directory(partial, aside)
    for name in _MOVED:
        if (run / name).exists():
            os.rename(run / name, aside / name)
    entry = {
        **wanted,
        "time": time.time(),
        "checkpoint": str(change.checkpoint),
        "earlier": str(aside.relative_to(run)),
        "changes": [*change.lines, *change.begun],
    }
    write_text(run / CHANGES, "".join(f"{json.dumps(line)}\n" for line in (*before, entry)))


def read_changes(run: Path) -> list[dict[str, Any]]:
    """The changes of its objective that a run has gone through, oldest first."""
    log = run / CHANGES
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()] if log.is_file() else []


def _free(path: Path) -> Path:
    """The path, with a number where something is there already."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}.{number}")
    return free
