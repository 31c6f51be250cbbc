"""The preview's routes, weights and advantages are those that training would use, as float32, to the last bit shown."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch

from tests.lowering.cases import PHASES, facts_of, measured_of, random_batch, spec_of, tensors_of
from tests.lowering.random_specs import random_spec
from tests.lowering.reading import read, signals_to_measure
from tests.preview.cases import write_batch
from trace_dsl.errors import LoweringError
from trace_dsl.lowering.evaluate import latch_key
from trace_dsl.lowering.lower import Lowered, lower
from trace_dsl.plan import compile_plan
from trace_dsl.plan.plan import Plan, latches_of
from trace_dsl.preview.digits import digits
from trace_dsl.preview.preview import Preview, advantage_at, preview, token_route, weight_at
from trace_dsl.preview.rollouts import read_rollouts

torch.set_num_threads(1)

FIXED = {
    "demo": (Path(__file__).parents[2] / "specs/demo/trace.trace").read_text(encoding="utf-8"),
    "separable": (
        "teacher = self(frozen, sees=solution)\nlet kl = schedule(0.7, ramp=5, warmup=8, anneal=exp(40), floor=0.1)\n"
        "key when correct: fkl(w=kl*sigmoid(entropy), per=selected) + grpo(w=1 - kl/0.7)\n"
        "rest: pg(adv=where(has(solution), A*kl - (1 - kl)*reward, 0.3), w=where(correct, kl, 1 - kl), per=token)\n"
    ),
    "not separable": (
        "let kl = schedule(0.5, warmup=10, anneal=cos(30))\n"
        "rest when entropy > kl: nll(w=exp(-kl*entropy), per=const(9))\n"
        "rest when pos < step/8: entropy(w=where(step > 10, 2, len))\nrest: grpo(w=max(kl, reward))\n"
    ),
    "empty responses": (
        "rest: nll(w=mean(max(pos, over=row), over=batch)) + entropy(w=quantile(max(pos, over=row), 30%, over=group)) "
        "+ grpo(w=softmax(mean(entropy, over=row), over=batch), per=token)\n"
    ),
    "latches": (
        "let late = latch(step == 11, step > 39)\n"
        "rest when late and correct: nll(per=selected)\nrest: grpo(w=where(late, 2, 0.5))\n"
    ),
}


def weights_of(lowered: Lowered) -> torch.Tensor:
    """[losses, tokens]: the part of each loss of the spec, denominator included."""
    parts = lowered.routing.parts
    return parts.by_loss(parts.part_PT).reshape(parts.losses, *parts.part_PT.shape).sum(1)


def compared(found: Preview, stop: int, lowered: Lowered) -> int:
    """How many numbers of `lower` the preview knows. Fails for one that is another."""
    known = 0
    routing = lowered.routing
    part_LT = weights_of(lowered)
    for token, route in enumerate(lowered.route_of_T.tolist()):
        here = token_route(found, stop, token)
        assert here is None or here == route, (token, here, route)
        known += here is not None
        for n, loss in enumerate(found.losses):
            weight, wanted = weight_at(found, loss, stop, token), part_LT[n, token].item()
            if weight is not None:
                known += 1
                assert digits(weight) == digits(wanted), (loss.name, token)
                assert math.isclose(weight, wanted, rel_tol=3e-7, abs_tol=1e-12), (loss.name, token)
            # a loss that trains nothing has no channel
            fed = [c for c, losses in enumerate(lowered.loss_of_C) if (loss.route, loss.loss) in losses]
            alone = bool(fed) and len(lowered.loss_of_C[fed[0]]) == 1
            if loss.advantage is not None and here == loss.route and loss.active[stop] and alone:
                advantage = advantage_at(found, loss, stop, token)
                if advantage is not None:
                    known += 1
                    wanted = routing.advantage_CT[fed[0], token].item()
                    assert digits(advantage) == digits(wanted), (loss.name, token)
    return known


def told_latches(plan: Plan, found: Preview, step: int) -> dict[str, bool]:
    """The states before a step of latches that the step alone turns."""
    if step == 0:
        return {}
    before = preview(found.spec, plan, found.file, at=step - 1)
    states = before_states(plan, step - 1)
    assert before.stops == [step - 1]
    return states


def before_states(plan: Plan, step: int) -> dict[str, bool]:
    from trace_dsl.expressions import is_known_before_run, weight_at_step
    from trace_dsl.schedules import Progress

    states = {}
    for latch in latches_of(plan):
        state = False
        if all(is_known_before_run(arg) for arg in latch.args):
            for earlier in range(step + 1):
                at = Progress(step=earlier, total_steps=plan.facts.total_steps)
                on, off = (bool(weight_at_step(arg, at)) for arg in latch.args)
                state = not off and (on or state)
        states[latch_key(latch)] = state
    return states


def check(text: str, rng: random.Random, folder: Path, steps: tuple[int, ...]) -> int:
    spec = spec_of(text)
    batch = random_batch(rng)
    plan = compile_plan(spec, facts_of())
    file = read_rollouts(write_batch(folder / "batch.jsonl", batch, spec))
    whole = preview(spec, plan, file)
    known = 0
    for step in steps:
        reading = read(spec, facts_of(), batch, step)
        if reading.fragile or reading.contested or reading.refused:
            continue
        tensors = tensors_of(batch, measured_of(batch, spec, signals_to_measure(spec)))
        latches = before_states(plan, step - 1)
        try:
            lowered = lower(plan, tensors, step, latches=latches)
        except LoweringError:
            continue
        if step in whole.stops:
            known += compared(whole, list(whole.stops).index(step), lowered)
        known += compared(preview(spec, plan, file, at=step), 0, lowered)
    return known


@pytest.mark.parametrize("name", FIXED)
def test_specs_that_are_told_in_full(name: str, tmp_path: Path) -> None:
    rng = random.Random(5)
    assert sum(check(FIXED[name], rng, tmp_path, PHASES) for _ in range(4)) > 200


@pytest.mark.parametrize("seed", range(4))
def test_random_specs(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    known = 0
    for _ in range(12):
        text = random_spec(rng)
        known += check(text, rng, tmp_path, tuple(rng.sample(PHASES, 3)))
    assert known > 2000
