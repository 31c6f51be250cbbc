"""A weight, advantage or predicate whose formula has no value at some step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trace_dsl.checks.course import Courses
from trace_dsl.checks.reading import advantage_of, finding
from trace_dsl.checks.sampled_run import SampledRun, sampled_run
from trace_dsl.expressions import is_known_before_run, walk
from trace_dsl.facts import RunFacts
from trace_dsl.model import Channel, Diagnostic, Place, Severity, Spec
from trace_dsl.rules import RuleInfo
from trace_dsl.terms import Expr, Scan, Scanned
from trace_dsl.undefined import first_undefined, may_be_undefined

RULE = RuleInfo(
    name="undefined-weight",
    severity=Severity.ERROR,
    summary="a weight, advantage or predicate that divides by zero or overflows at some step",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Undefined:
    what: str
    text: str
    place: Place
    step: int
    reason: str


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    courses = Courses(spec, facts)
    for index, route in enumerate(spec.routes):
        found = [*_in_predicate(spec, facts, index)]
        for channel in route.channels:
            found += _in_loss(spec, facts, courses, index, channel)
        for one in found:
            yield finding(
                RULE,
                one.place,
                f"the {one.what} of `{one.text}` has no value at step {one.step}: {one.reason}",
                consequence="the run would stop there",
                fix="keep the formula defined at every step, as in 1/(step + 1)",
            )


def _in_predicate(spec: Spec, facts: RunFacts | None, index: int) -> Iterator[_Undefined]:
    """In the predicate where it is evaluated, and in its latches, which go on at every step."""
    route = spec.routes[index]
    if route.when is None or not may_be_undefined(route.when):
        return
    run = sampled_run(spec, facts)
    found = first_undefined(route.when, run.total_steps, run.asked(index)) or _in_latches(run, route.when)
    if found is not None:
        yield _Undefined(what="predicate", text=route.text, place=route.place, step=found[0], reason=found[1])


def _in_loss(
    spec: Spec, facts: RunFacts | None, courses: Courses, index: int, channel: Channel
) -> Iterator[_Undefined]:
    """In a weight where its route may take tokens, in an advantage where the weight is not surely zero."""
    weight, advantage = channel.weight, advantage_of(channel)
    found = courses.of(spec.routes[index], weight).undefined
    if not is_known_before_run(weight) and may_be_undefined(weight):
        run = sampled_run(spec, facts)
        found = first_undefined(weight, run.total_steps, run.reached(index), weight) or _in_latches(run, weight)
    if found is not None:
        yield _Undefined(what="weight", text=channel.text, place=channel.place, step=found[0], reason=found[1])
    if advantage is not None and may_be_undefined(advantage):
        run = sampled_run(spec, facts)
        found = first_undefined(advantage, run.total_steps, run.reached(index), weight) or _in_latches(run, advantage)
        if found is not None:
            yield _Undefined(what="advantage", text=channel.text, place=channel.place, step=found[0], reason=found[1])


def _in_latches(run: SampledRun, expr: Expr) -> tuple[int, str] | None:
    for part in walk(expr):
        if isinstance(part, Scanned) and part.scan is Scan.LATCH:
            found = first_undefined(part, run.total_steps, run.steps)
            if found is not None:
                return found
    return None
