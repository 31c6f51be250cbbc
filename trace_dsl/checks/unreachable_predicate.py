"""A predicate that is never true."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.certainty import predicate_known_at
from trace_dsl.checks.no_value import explicit
from trace_dsl.checks.outcomes import outcomes
from trace_dsl.checks.reading import contexts_of, finding, predicates_of
from trace_dsl.checks.sampled_run import SampledRun, sampled_run
from trace_dsl.expressions import signals_of, text_of
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, Severity, Spec
from trace_dsl.rules import RuleInfo
from trace_dsl.schedules import Progress
from trace_dsl.terms import Expr

_OF_OUTCOME = frozenset({"correct", "wrong", "all_correct", "mixed", "all_wrong"})

RULE = RuleInfo(
    name="unreachable-predicate",
    severity=Severity.ERROR,
    summary="a `when` that nothing can meet, or at no step of the run",
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    contexts = contexts_of(spec)
    run = None if facts is None else sampled_run(spec, facts)
    for when, place in predicates_of(spec):
        said = explicit(when, contexts)
        if _is_never_true(said, None):
            in_run = ""
        elif run is not None and (_is_never_true(said, run.total_steps) or _never_holds(when, run)):
            in_run = f" in the {run.total_steps} steps of this run"
        else:
            continue
        yield finding(
            RULE,
            place,
            f"`{text_of(when)}` is never true{in_run}",
            consequence="nothing behind this `when` would ever take part in the run",
            fix=_fix(when, in_run),
        )


def _is_never_true(said: Expr, total_steps: int | None) -> bool:
    everything = outcomes([said], total_steps)
    return everything is not None and not everything.where(said)


def _never_holds(when: Expr, run: SampledRun) -> bool:
    """Whether the step alone says at every step of a run that a predicate does not hold."""
    moments = (Progress(step=step, total_steps=run.total_steps) for step in run.steps)
    return run.is_whole and all(predicate_known_at(when, at) is False for at in moments)


def _fix(when: Expr, in_run: str) -> str:
    if in_run:
        return "compare with a step of the run; the first is 0"
    names = signals_of(when)
    if not names:
        return "compare something that changes, or take the statement out"
    if names & _OF_OUTCOME:
        return "a rollout is either correct or wrong; use `or`, or two statements"
    return "no value meets all of it; use `or`, or two statements"
