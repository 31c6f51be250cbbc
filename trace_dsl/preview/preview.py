"""A spec on a file of rollouts, over all steps of a run: who routes what, with which weight, by which denominator."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from trace_dsl.certainty import follows_from_step, surely_zero
from trace_dsl.checks.reading import contexts_of
from trace_dsl.model import Channel, PerKind, Route, Spec
from trace_dsl.plan.plan import Plan, advantage_of, latches_of, loss_names, teacher_of
from trace_dsl.preview.batch import Batch, batch_of
from trace_dsl.preview.elementwise import Known, divide
from trace_dsl.preview.evaluate import Kept, Moment, step_value
from trace_dsl.preview.quantities import Quantity, comes_apart, quantity_of, step_key, step_parts, value_of
from trace_dsl.preview.rollouts import CONTEXTS, RolloutFile
from trace_dsl.preview.routing import Labelled, Routing, label_tokens, route_tokens
from trace_dsl.reach import Reach, Standing
from trace_dsl.schedules import Progress
from trace_dsl.terms import Expr, Scanned

# A page carries at most so many steps, and so many tokens times sets of columns.
MOST_STOPS = 5_000
MOST_CELLS = 12_000_000
_FEWEST_SETS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class LossPreview:
    """One loss. `active`: at which stops it may train something; context_R: whether a divergence takes the rollout,
    None where the file does not say; None for a loss that takes all.
    """

    route: int
    loss: int
    name: str
    channel: Channel
    weight: Quantity
    advantage: Quantity | None
    active: Sequence[bool]
    context: str | None
    context_R: Sequence[bool | None] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """`stops` are the steps that are shown, all of the run where there are not too many; routing_of_stop: an index into
    `routings` for each.
    """

    spec: Spec
    plan: Plan
    file: RolloutFile
    batch: Batch
    labelled: Labelled
    stops: Sequence[int]
    routings: tuple[Routing, ...]
    routing_of_stop: Sequence[int]
    losses: tuple[LossPreview, ...]

    @property
    def all_steps(self) -> bool:
        return len(self.stops) == self.plan.facts.total_steps

    def stop_of(self, step: int) -> int:
        """The stop at a step, or the last one before it."""
        return max((n for n, stop in enumerate(self.stops) if stop <= step), default=0)


def preview(
    spec: Spec, plan: Plan, file: RolloutFile, *, contexts: Sequence[str] = CONTEXTS, at: int | None = None
) -> Preview:
    """What a plan does to the rollouts of a file, which are taken to be the global batch of one optimizer step.

    contexts: those that the task can show a teacher; at: the one step that is wanted, None for all of the run. Raises
    RolloutsError for rollouts that the spec does not know.
    """
    batch = batch_of(file.rollouts, spec, contexts)
    labelled = label_tokens(batch, spec.labels)
    moments = _moments(plan, batch, file.step, at)
    reach = Reach([planned.route for planned in plan.routes])
    standings = [reach.at(moment.at) for moment in moments]
    routings, routing_of_stop = _routings(plan, labelled, moments, standings)
    names = loss_names(plan)
    losses = [
        _loss(spec, plan, names[r, c], r, c, moments, standings)
        for r, planned in enumerate(plan.routes)
        for c in range(len(planned.losses))
    ]
    return Preview(
        spec=spec,
        plan=plan,
        file=file,
        batch=batch,
        labelled=labelled,
        stops=[moment.at.step for moment in moments],
        routings=routings,
        routing_of_stop=routing_of_stop,
        losses=tuple(losses),
    )


def weight_at(found: Preview, loss: LossPreview, stop: int, token: int) -> Known:
    """The weight of a loss at a token, denominator included, as float32; None where only the run can tell."""
    plain = plain_weight_at(found, loss, stop, token)
    if plain is None or plain == 0.0:
        return plain
    divisor = denominator_at(found, loss, stop, found.batch.row_T[token])
    return None if divisor is None else float32(divide(plain, divisor))


def plain_weight_at(found: Preview, loss: LossPreview, stop: int, token: int) -> Known:
    """The weight before its denominator."""
    routing = found.routings[found.routing_of_stop[stop]]
    choice = routing.choices[routing.choice_T[token]]
    if loss.route not in choice:
        return 0.0
    weight = weight_if_taken(found, loss, stop, token)
    certain = loss.context_R is None or loss.context_R[found.batch.row_T[token]] is not None
    return weight if weight == 0.0 or (len(choice) == 1 and certain) else None


def weight_if_taken(found: Preview, loss: LossPreview, stop: int, token: int) -> Known:
    """The weight before its denominator if the route takes the token and the rollout has what the teacher sees."""
    if not loss.active[stop] or (loss.context_R is not None and loss.context_R[found.batch.row_T[token]] is False):
        return 0.0
    return value_of(loss.weight, found.batch, stop, token)


def advantage_at(found: Preview, loss: LossPreview, stop: int, token: int) -> Known:
    """The advantage that a loss has at a token of its route, as float32."""
    assert loss.advantage is not None
    value = value_of(loss.advantage, found.batch, stop, token)
    return None if value is None else float32(value)


def denominator_at(found: Preview, loss: LossPreview, stop: int, row: int) -> float | None:
    """What divides the weight of a loss at the tokens of a rollout; None where it hangs on routes that are unknown."""
    batch, per, route = found.batch, loss.channel.per, found.plan.routes[loss.route].route
    responses = max(sum(source == route.rows for source in batch.source_R), 1)
    match per.kind:
        case PerKind.SEQUENCE:
            return float(batch.length_R[row]) * responses
        case PerKind.TOKEN:
            return float(max(written_tokens(batch, route), 1))
        case PerKind.SELECTED:
            selected = selected_tokens(found.routings[found.routing_of_stop[stop]], loss.route)
            return None if selected is None else float(max(selected, 1))
        case PerKind.CONST:
            assert per.constant is not None
            return per.constant * responses


def written_tokens(batch: Batch, route: Route) -> int:
    """The tokens that the model wrote in the rollouts of a route's source."""
    of_route = [source == route.rows for source in batch.source_R]
    return sum(written and of_route[row] for written, row in zip(batch.from_model_T, batch.row_T, strict=True))


def selected_tokens(routing: Routing, route: int) -> int | None:
    """How many tokens a route takes; None where it is not certain of all that it may take."""
    may = [n for n, choice in enumerate(routing.choices) if route in choice]
    if any(len(routing.choices[n]) > 1 for n in may):
        return None
    return sum(choice in may for choice in routing.choice_T)


def float32(value: float) -> float:
    """The nearest float32, which is what training holds; infinite where it is too large for one."""
    try:
        found: float = struct.unpack("f", struct.pack("f", value))[0]
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
    return found


# ---------------------------------------------------------------------------------------------------- steps and routes


def _moments(plan: Plan, batch: Batch, written: int | None, at: int | None) -> list[Moment]:
    """The steps to show: all, or evenly spread ones where the routes or weights of each would not fit a page."""
    total = plan.facts.total_steps
    kept: Kept = {}
    latches = _latches(plan, total - 1 if at is None else at)

    def moment_at(step: int) -> Moment:
        states = {latch: states[step] for latch, states in latches.items()}
        return Moment(batch=batch, at=Progress(step=step, total_steps=total), latches=states, kept=kept)

    if at is not None:
        return [moment_at(at)]
    own = {0, total - 1} | ({written} if written is not None and written < total else set())
    steps = list(range(total)) if total <= MOST_STOPS else sorted(own | set(_spread(total, MOST_STOPS)))
    moments = [moment_at(step) for step in steps]
    parts = tuple(part for expr in _evaluated(plan) for part in step_parts(expr))
    sets = {step_key(parts, moment) for moment in moments} if parts else set()
    room = max(MOST_CELLS // max(batch.tokens, 1), _FEWEST_SETS)
    if len(sets) > room:
        wanted = own | {steps[n] for n in _spread(len(steps), room)}
        moments = [moment for moment in moments if moment.at.step in wanted]
    return moments


def _evaluated(plan: Plan) -> list[Expr]:
    """What is evaluated anew where its step parts change: predicates, and weights and advantages that do not come
    apart."""
    found = [planned.route.when for planned in plan.routes if planned.route.when is not None]
    for planned in plan.routes:
        for loss in planned.losses:
            advantage = advantage_of(loss.channel)
            found += [e for e in (loss.channel.weight, advantage) if e is not None and not comes_apart(e)]
    return [expr for expr in found if not follows_from_step(expr)]


def _spread(total: int, count: int) -> list[int]:
    return sorted({round(n * (total - 1) / max(count - 1, 1)) for n in range(count)})


def _latches(plan: Plan, last: int) -> dict[Scanned, list[bool]]:
    """The states after each step up to the last, of the latches that steps alone turn."""
    found = {}
    for latch in latches_of(plan):
        if all(follows_from_step(arg) for arg in latch.args):
            on, off = latch.args
            state, states = False, []
            for step in range(last + 1):
                at = Progress(step=step, total_steps=plan.facts.total_steps)
                state = not step_value(off, at) and (bool(step_value(on, at)) or state)
                states.append(state)
            found[latch] = states
    return found


def _routings(
    plan: Plan, labelled: Labelled, moments: Sequence[Moment], standings: Sequence[tuple[Standing, ...]]
) -> tuple[tuple[Routing, ...], list[int]]:
    """The routings that differ, and which stands at each moment."""
    numbers: dict[object, int] = {}
    found: list[Routing] = []
    of_stop: list[int] = []
    parts = [() if planned.route.when is None else tuple(step_parts(planned.route.when)) for planned in plan.routes]
    for moment, standing in zip(moments, standings, strict=True):
        asked = [step_key(own, moment) for own, one in zip(parts, standing, strict=True) if one.asks]
        key = (tuple((one.reached, one.asks) for one in standing), tuple(asked))
        if key not in numbers:
            numbers[key] = len(found)
            found.append(route_tokens(plan, labelled, standing, moment))
        of_stop.append(numbers[key])
    return tuple(found), of_stop


def _loss(
    spec: Spec,
    plan: Plan,
    name: str,
    r: int,
    c: int,
    moments: Sequence[Moment],
    standings: Sequence[tuple[Standing, ...]],
) -> LossPreview:
    channel = plan.routes[r].losses[c].channel
    active = [
        standing[r].reached and not surely_zero(channel.weight, moment.at)
        for moment, standing in zip(moments, standings, strict=True)
    ]
    advantage = advantage_of(channel)
    context = contexts_of(spec).get(teacher_of(channel) or "")
    batch = moments[0].batch
    context_R: list[bool | None] | None = None
    if context is not None:
        texts = batch.contexts.get(context)
        context_R = [None] * batch.rows if texts is None else [text is not None for text in texts]
    return LossPreview(
        route=r,
        loss=c,
        name=name,
        channel=channel,
        weight=quantity_of(channel.weight, moments),
        advantage=None if advantage is None else quantity_of(advantage, moments),
        active=active,
        context=context,
        context_R=context_R,
    )


def token_route(found: Preview, stop: int, token: int) -> int | None:
    """The route of a token, NO_ROUTE for none, None where only the run can tell."""
    routing = found.routings[found.routing_of_stop[stop]]
    choice = routing.choices[routing.choice_T[token]]
    return choice[0] if len(choice) == 1 else None


def disagreements(found: Preview) -> list[int] | None:
    """The rollouts of which a token has another route here than the one that the run wrote, at the step of the file.

    None where there is nothing to compare: the file tells no step or no routes, or its step is past the run.
    """
    step, rollouts = found.file.step, found.file.rollouts
    if step is None or step not in found.stops or all(one.route is None for one in rollouts):
        return None
    route_T = found.routings[found.routing_of_stop[list(found.stops).index(step)]].route_T()
    rows = []
    for row, one in enumerate(rollouts):
        first = found.batch.start_R[row]
        here = route_T[first : first + found.batch.length_R[row]]
        if one.route is not None and any(a is not None and a != b for a, b in zip(here, one.route, strict=True)):
            rows.append(row)
    return rows
