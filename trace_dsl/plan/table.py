"""A plan as text for people: what each route takes, each loss, its weight over the run, when teachers run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from trace_dsl.model import Ema, Frozen, ModelTeacher, Per, SelfTeacher, Sync, Teacher
from trace_dsl.plan.certainty import weight_known_at
from trace_dsl.plan.plan import Plan, PlannedLoss, PlannedRoute, loss_names
from trace_dsl.schedules import Progress


def default_steps(plan: Plan) -> tuple[int, ...]:
    """Steps worth showing: the first, the last, and about where weights change."""
    last = plan.facts.total_steps - 1
    ends = {t.last_step for t in plan.teachers if 0 <= t.last_step < last}
    middle = {e // 2 for e in ends} | {e // 4 for e in ends} | {e + 1 for e in ends}
    return tuple(sorted({0, last} | ends | middle))[:8]


def table_lines(plan: Plan, steps: Sequence[int]) -> Iterator[str]:
    """The plan, line by line, plain text; `steps` are the steps at which weights are shown."""
    facts = plan.facts
    yield (
        f"plan {plan.hash}: {facts.total_steps} steps, groups of {facts.group_size}, sampled at temperature "
        + (f"{facts.temperature:g}")
    )
    names = loss_names(plan)
    for r, planned in enumerate(plan.routes):
        yield ""
        yield f"route {r + 1} (line {planned.route.place.line}): {_takes(planned)}"
        if not planned.losses:
            yield "  no loss"
        for c, loss in enumerate(planned.losses):
            yield from _loss_lines(plan, loss, names[r, c], steps)
    yield ""
    for planned_teacher in plan.teachers:
        teacher, last = planned_teacher.teacher, planned_teacher.last_step
        when = "never run" if last < 0 else f"last run at step {last}"
        yield f"teacher {teacher.name!r}: {describe_teacher(teacher)}; {when}"
    if not plan.teachers:
        yield "no teacher is run"
    if plan.signals:
        yield f"signals: {', '.join(plan.signals)}"


def _takes(planned: PlannedRoute) -> str:
    route = planned.route
    what = "every response token left over" if route.is_rest else f"tokens labelled {' or '.join(route.labels)}"
    return what + (f", where {planned.predicate_text}" if planned.predicate_text else "")


def _loss_lines(plan: Plan, loss: PlannedLoss, name: str, steps: Sequence[int]) -> Iterator[str]:
    channel = loss.channel
    teacher = f", teacher {loss.teacher!r}" if loss.teacher else ""
    yield f"  {name}: {loss.formula}"
    yield f"    weight {loss.weight_text}, per {describe_per(channel.per)}{teacher}"
    total = plan.facts.total_steps
    shown = []
    for step in steps:
        value = weight_known_at(channel.weight, Progress(step=step, total_steps=total))
        shown.append(f"{step}: {'known when it runs' if value is None else f'{value:.4g}'}")
    yield f"    at step {', '.join(shown)}"
    track = loss.track
    if track.total is not None and track.total_squared is not None:
        yield f"    sum of weights {track.total:.6g}, of squares {track.total_squared:.6g}, " + (
            "never active" if track.last_step < 0 else f"last active at step {track.last_step}"
        )


def describe_per(per: Per) -> str:
    """The denominator as a spec writes it."""
    return f"const({per.constant:g})" if per.constant is not None else per.kind.value


def describe_teacher(teacher: Teacher) -> str:
    """A teacher in words: where its weights come from, what it sees."""
    match teacher.source:
        case SelfTeacher(update=Sync(every)):
            source = f"the policy's weights, copied every {every} steps"
        case SelfTeacher(update=Ema(rate)):
            source = f"a moving average of the policy, rate {rate:g}"
        case SelfTeacher(update=Frozen()):
            source = "the weights the run started from"
        case ModelTeacher(path):
            source = f"the model {path!r}"
    return f"{source}, sees {teacher.sees.value}"
