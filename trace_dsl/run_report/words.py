"""What a run was, in words: its plan, the settings that somebody chose, and how runs differ in both."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from megatron_bridge.run_file import RunFile, flat
from trace_dsl.errors import TraceError
from trace_dsl.facts import run_of_length
from trace_dsl.lint import lint_text
from trace_dsl.model import Spec
from trace_dsl.plan import compile_plan
from trace_dsl.plan.describe import default_steps, describe
from trace_dsl.plan.difference import difference
from trace_dsl.plan.difference_lines import change_lines
from trace_dsl.run_report.read import Run

# Of every run: they have no defaults, or say where things lie.
_OWN = ("name", "spec", "policy", "task", "steps", "output")
# The page has them elsewhere, or they are where the run lies.
_NOWHERE = ("name", "spec", "output")
_NEEDED = {"name": "x", "spec": "x", "policy": "x", "task": "ledger", "steps": 1}

Row = tuple[str, ...]


def plan_of(run: Run) -> tuple[Mapping[str, Any] | None, str]:
    """The plan as plan.json has it, and a sentence where it is not the one that the run wrote."""
    if run.plan is not None:
        return run.plan, ""
    spec = _spec(run)
    if spec is None:
        return None, "The run has no plan.json of this version, and this version finds errors in its spec.trace."
    try:
        plan = compile_plan(spec, run_of_length(run.total_steps))
    except TraceError as error:
        return None, f"The run has no plan.json of this version, and its spec.trace gives none: {error}"
    told: dict[str, Any] = json.loads(describe(plan, default_steps(plan)).to_json())
    return told, "Made anew from spec.trace: the run has no plan.json of this version."


def _spec(run: Run) -> Spec | None:
    found = lint_text(run.spec_text, path=str(run.path / "spec.trace"))
    return None if found.errors else found.spec


def defaults() -> dict[str, Any]:
    """Every setting of a run file that has a default, by its full name."""
    found = flat(RunFile.model_validate(_NEEDED).model_dump())
    return {name: value for name, value in found.items() if name not in _OWN}


def chosen_settings(run: Run) -> list[Row]:
    """Setting, value, default: of all that are not what they would have been."""
    usual = defaults()
    own = [(name, said(run.settings[name]), "") for name in _OWN if name in run.settings and name not in _NOWHERE]
    own += [(name, said(value), "") for name, value in run.settings.items() if name.startswith("task.")]
    groups = {name.rpartition(".")[0] for name in run.settings}
    others = [
        (name, said(value), said(usual[name]) if name in usual else "none")
        for name, value in run.settings.items()
        if name not in _OWN and not name.startswith("task.") and value != usual.get(name) and name not in groups
    ]
    return [*own, *others]


def differing_settings(runs: Sequence[Run]) -> list[Row]:
    """Setting and the value in each run, of all in which they differ; where they lie does not count."""
    usual = defaults()
    names = dict.fromkeys(name for run in runs for name in run.settings if name not in _NOWHERE)
    rows = []
    for name in names:
        values = [said(run.settings.get(name, usual.get(name))) for run in runs]
        if len(set(values)) > 1:
            rows.append((name, *values))
    return rows


def spec_changes(old: Run, new: Run) -> list[str]:
    """What the spec of `new` does differently, as `trace-dsl diff` says it, and whether it is another at all."""
    if old.spec_text == new.spec_text:
        return []
    specs = _spec(old), _spec(new)
    if specs[0] is None or specs[1] is None:
        return ["They cannot be compared: this version finds errors in one of them."]
    found = difference(specs[0], specs[1])
    return [line.plain for line in change_lines(found)] or ["They are written differently and mean the same."]


def said(value: object) -> str:
    """A setting as YAML would have it."""
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else json.dumps(value) if not isinstance(value, str) else value
