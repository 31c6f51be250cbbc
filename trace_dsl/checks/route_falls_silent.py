"""A route all of whose losses have ended before the run has."""

from __future__ import annotations

from collections.abc import Iterator

from trace_dsl.checks.course import Courses
from trace_dsl.checks.reading import finding, run_length
from trace_dsl.checks.sampled_run import sampled_run
from trace_dsl.expressions import is_known_before_run, schedules_of, weight_at_step
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, Severity, Spec
from trace_dsl.rules import RuleInfo
from trace_dsl.schedules import Progress, counts_tokens
from trace_dsl.terms import Expr

RULE = RuleInfo(
    name="route-falls-silent",
    severity=Severity.WARNING,
    summary="from some step on the tokens of a route feed no loss, as all of its weights have gone to zero",
    pedantic=True,
)


def check(spec: Spec, facts: RunFacts | None) -> Iterator[Diagnostic]:
    courses = Courses(spec, facts)
    run = sampled_run(spec, facts)
    for index, route in enumerate(spec.routes):
        if run.moves and not run.stretches[-1].standing[index].reached:  # its tokens fall through then
            continue
        weights = [channel.weight for channel in route.channels]
        if spec.mentioned.intersection(route.labels) or not all(_is_zero_at_last(weight, facts) for weight in weights):
            continue
        if all(courses.of(route, weight).is_zero for weight in weights):  # see the rule zero-weight
            continue
        yield finding(
            RULE,
            route.place,
            f"all losses of `{route.text}` have weight 0 before the run is over",
            consequence="its tokens keep to this route, so from then on nothing trains them",
            fix="add a loss that comes as the others go, such as grpo(w=1 - kl/0.5), or give one a `floor`",
        )


def _is_zero_at_last(weight: Expr, facts: RunFacts | None) -> bool:
    """Whether a weight is certain to be zero at the last step of the run."""
    if not is_known_before_run(weight) or any(counts_tokens(schedule) for schedule in schedules_of(weight)):
        return False
    steps, _ = run_length(weight, None if facts is None else facts.total_steps)
    try:
        return weight_at_step(weight, Progress(step=steps - 1, total_steps=steps)) == 0
    except ValueError:
        return False
