"""A plan put into words and numbers: see `description` for what comes out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import assert_never

from trace_dsl.expressions import number_text, text_of, walk
from trace_dsl.model import (
    PLAIN_ROWS,
    AdvantageEstimator,
    Channel,
    Diagnostic,
    Divergence,
    Ema,
    EstimatorKind,
    Frozen,
    ModelTeacher,
    RolloutSource,
    Sees,
    SelfTeacher,
    SupportOf,
    Sync,
    Tail,
    Teacher,
    TopK,
)
from trace_dsl.plan.description import (
    FORMAT,
    DescribedAdvantage,
    DescribedLoss,
    DescribedPayload,
    DescribedRollouts,
    DescribedRoute,
    DescribedSpan,
    DescribedTeacher,
    DescribedWeight,
    PlanDescription,
    Refusal,
    Setting,
    Support,
    WeightAt,
)
from trace_dsl.plan.gathering import loss_needs
from trace_dsl.plan.measurements import loss_weights
from trace_dsl.plan.plan import Gathering, Plan, PlannedLoss, PlannedRoute, advantage_of, expressions_of, loss_names
from trace_dsl.plan.wording import NOT_GIVEN, kernel_arguments, kernel_name, per_text
from trace_dsl.schedules import Progress
from trace_dsl.terms import Expr, Signal
from trace_dsl.vocabulary import LOSSES, SCHEDULE_ARGUMENTS

# A schedule written beside w is part of the weight's own text.
_OF_THE_WEIGHT = ("w", *SCHEDULE_ARGUMENTS)


def default_steps(plan: Plan) -> tuple[int, ...]:
    """Steps worth showing: the first, the last, and about where weights change."""
    last = plan.facts.total_steps - 1
    ends = {t.last_step for t in plan.teachers if 0 <= t.last_step < last}
    middle = {e // 2 for e in ends} | {e // 4 for e in ends} | {e + 1 for e in ends}
    return tuple(sorted({0, last} | ends | middle))[:8]


def describe(plan: Plan, steps: Sequence[int], refused: Iterable[Diagnostic] = ()) -> PlanDescription:
    """What `plan` does. `steps`: where weights are shown; `refused`: what the engine does not run (`plan.support`)."""
    names = loss_names(plan)
    facts = plan.facts
    weights = {step: loss_weights(plan, Progress(step=step, total_steps=facts.total_steps)) for step in steps}
    return PlanDescription(
        format=FORMAT,
        hash=plan.hash,
        total_steps=facts.total_steps,
        group_size=facts.group_size,
        temperature=facts.temperature,
        advantage=_advantage(plan.advantage),
        spans=tuple(DescribedSpan(label=label.name, cap=label.cap) for label in plan.labels),
        rollouts=(
            DescribedRollouts(name=PLAIN_ROWS, what="the policy", a_prompt=facts.group_size, settings=()),
            *(_rollouts(source) for source in plan.rollouts),
        ),
        routes=tuple(_route(plan, r, planned, names, weights) for r, planned in enumerate(plan.routes)),
        teachers=tuple(_teacher(planned.teacher, planned.last_step) for planned in plan.teachers),
        signals=_signals(expr for planned in plan.routes for expr in expressions_of(planned.route)),
        payloads=tuple(_payload(plan, g, names) for g in plan.gathered),
        refused=tuple(Refusal(line=found.place.line, message=found.message) for found in refused),
    )


def _signals(expressions: Iterable[Expr]) -> tuple[str, ...]:
    """The signals that expressions read, as they are written."""
    return tuple(sorted({text_of(part) for expr in expressions for part in walk(expr) if isinstance(part, Signal)}))


# -------------------------------------------------------------------------------------------------------- declarations


def _advantage(estimator: AdvantageEstimator) -> DescribedAdvantage:
    default, written = estimator.place is None, estimator.written
    settings = [Setting(name="estimator", value=estimator.kind.value, default=default)]
    match estimator.kind:
        case EstimatorKind.GROUP:
            values = {"center": "mean", "scale": "std" if estimator.scale_by_std else "none"}
            settings += [Setting(name=n, value=v, default=n not in written) for n, v in values.items()]
            formula = "(R - mean)/std" if estimator.scale_by_std else "R - mean"
            formula += " of the prompt's rewards"
        case EstimatorKind.LEAVE_ONE_OUT:
            formula = "R - mean of the prompt's other rewards"
        case EstimatorKind.NONE:
            formula = "R, the reward itself"
        case _:
            assert_never(estimator.kind)
    return DescribedAdvantage(formula=formula, default=default, settings=tuple(settings))


def _rollouts(source: RolloutSource) -> DescribedRollouts:
    if source.cached is not None:
        return DescribedRollouts(name=source.name, what=f"the file {source.cached}", a_prompt=None, settings=())
    when = "every prompt" if source.when is None else text_of(source.when)
    values = {"sees": source.sees.value, "when": when, "n": str(source.n)}
    settings = tuple(
        Setting(name=name, value=value, default=name not in source.written) for name, value in values.items()
    )
    return DescribedRollouts(name=source.name, what="the policy", a_prompt=source.n, settings=settings)


def describe_teacher(teacher: Teacher) -> str:
    """A teacher in words: where its weights come from, what it sees."""
    return f"{_weights(teacher)[0]}, sees {teacher.sees.value}"


def _weights(teacher: Teacher) -> tuple[str, str, str]:
    """(where its weights come from, the setting that says so, its value)."""
    match teacher.source:
        case SelfTeacher(update=Sync(1)):
            return "the policy's weights, copied every step", "sync", "1"
        case SelfTeacher(update=Sync(every)):
            return f"the policy's weights, copied every {every} steps", "sync", str(every)
        case SelfTeacher(update=Ema(rate)):
            return f"a moving average of the policy, rate {rate:g}", "ema", number_text(rate)
        case SelfTeacher(update=Frozen()):
            return "the weights the run started from", "frozen", "frozen"
        case ModelTeacher(path):
            return f"the model {path}", "path", path
        case _:
            raise AssertionError(f"a teacher has a source {teacher.source} without words")


def _teacher(teacher: Teacher, last_step: int) -> DescribedTeacher:
    what, name, value = _weights(teacher)
    values = {name: value, "sees": teacher.sees.value}
    return DescribedTeacher(
        name=teacher.name,
        default=not teacher.written,
        what=what,
        sees=teacher.sees.value,
        settings=tuple(Setting(name=n, value=v, default=n not in teacher.written) for n, v in values.items()),
        last_step=last_step,
    )


# -------------------------------------------------------------------------------------------------------------- routes


def _route(
    plan: Plan,
    r: int,
    planned: PlannedRoute,
    names: dict[tuple[int, int], str],
    weights: Mapping[int, tuple[tuple[float | None, ...], ...]],
) -> DescribedRoute:
    """`weights`: of each loss of each route, at the steps to show."""
    route = planned.route
    return DescribedRoute(
        number=r + 1,
        file=route.place.path,
        line=route.place.line,
        labels=route.labels,
        rollouts=route.rows,
        when=planned.predicate_text,
        takes=_takes(planned),
        signals=_signals(() if route.when is None else (route.when,)),
        losses=tuple(
            _loss(plan, loss, names[r, c], [WeightAt(step=step, weight=weights[step][r][c]) for step in weights])
            for c, loss in enumerate(planned.losses)
        ),
    )


def _takes(planned: PlannedRoute) -> str:
    route = planned.route
    what = "every response token left over" if route.is_rest else f"tokens labelled {' or '.join(route.labels)}"
    rows = "" if route.rows == PLAIN_ROWS else f", of rollouts {route.rows}"
    return what + rows + (f", where {planned.predicate_text}" if planned.predicate_text else "")


def _loss(plan: Plan, loss: PlannedLoss, name: str, weights: Sequence[WeightAt]) -> DescribedLoss:
    channel, advantage = loss.channel, advantage_of(loss.channel)
    divergence = channel.kernel if isinstance(channel.kernel, Divergence) else None
    return DescribedLoss(
        name=name,
        formula=loss.formula,
        written=channel.text,
        weight=_weight(loss, weights),
        settings=tuple(_settings(plan, channel)),
        teacher=loss.teacher,
        support=None if divergence is None else _support(divergence.top_k),
        context=_context(plan, loss.teacher),
        signals=_signals((channel.weight, *(() if advantage is None else (advantage,)))),
        needs=tuple(need.payload.text for need in loss_needs(channel)),
    )


def _weight(loss: PlannedLoss, weights: Sequence[WeightAt]) -> DescribedWeight:
    return DescribedWeight(
        text=loss.weight_text,
        default=not any(name in loss.channel.written for name in _OF_THE_WEIGHT),
        at=tuple(weights),
        sum=loss.track.total,
        sum_of_squares=loss.track.total_squared,
        active=loss.track.active,
        last_step=loss.track.last_step,
    )


def _settings(plan: Plan, channel: Channel) -> Iterator[Setting]:
    """Every argument of a loss beside its weight. What has no meaning here (`of` without topk) is left out."""
    written = channel.written
    if "w" not in written and any(name in written for name in SCHEDULE_ARGUMENTS):
        yield Setting(name="w", value="1", default=True)
    yield Setting(name="per", value=per_text(channel.per), default="per" not in written)
    arguments = kernel_arguments(channel.kernel)
    taken = LOSSES[kernel_name(channel.kernel)].arguments
    without = ("of", "tail") if arguments.get("topk") == NOT_GIVEN else ()
    for name, value in arguments.items():
        if name not in taken or name in without:
            continue
        if name == "temperature" and name not in written:
            value = number_text(plan.facts.temperature)
        yield Setting(name=name, value=value, default=name not in written)


_TAILS = {
    None: "the rest dropped (default)",
    Tail.BUCKET: "the rest as one bucket",
    Tail.RENORM: "renormalised to them",
    Tail.DROP: "the rest dropped",
}


def _support(top_k: TopK | None) -> Support:
    if top_k is None:
        return Support(text="full vocabulary", default=True)
    whose = "the teacher's" if top_k.of is SupportOf.TEACHER else "the student's"
    return Support(text=f"{whose} {top_k.k} likeliest tokens, {_TAILS[top_k.tail]}", default=False)


def _context(plan: Plan, teacher: str | None) -> str:
    """What a rollout must have for a teacher to be shown it; "" when there is nothing to miss."""
    sees = next((t.teacher.sees for t in plan.teachers if t.teacher.name == teacher), Sees.NOTHING)
    return "" if sees in (Sees.NOTHING, Sees.MISMATCHED) else sees.value


def _payload(plan: Plan, gathering: Gathering, names: dict[tuple[int, int], str]) -> DescribedPayload:
    payload = gathering.need.payload
    return DescribedPayload(
        text=payload.text,
        origin=payload.origin.value,
        teacher=payload.teacher,
        content=payload.content.value,
        k=payload.k,
        everywhere=gathering.need.everywhere,
        losses=tuple(names[pair] for pair in gathering.losses),
        context=_context(plan, payload.teacher),
        steps=gathering.steps,
    )
