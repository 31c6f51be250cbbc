"""`lower` equals the slow reading of the same spec: routes, weights, advantages, teacher tokens."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.lowering.cases import PHASES, facts_of, random_batch, spec_of, tensors_of
from tests.lowering.compare import compare
from tests.lowering.many import TOKENS_TRAINED, Tally, run
from tests.lowering.random_specs import random_spec
from tests.lowering.reading_expressions import Latches
from trace_dsl.lowering import lower
from trace_dsl.plan import compile_plan

torch.set_num_threads(1)

DEMO = Path(__file__).resolve().parents[2] / "specs" / "demo"
DEMO_SPECS = ("trace", "trace_fkl", "all_token", "grpo")
QUICK = settings(derandomize=True, database=None, suppress_health_check=list(HealthCheck))

# One feature a spec, so that a disagreement names what it is about.
FEATURES = {
    "caps": "spans key(cap=25%), error(cap=0.29)\nkey: nll()\nerror: entropy()\nrest: none\n",
    "overlapping labels, first match": "key | error when wrong: nll()\nerror: entropy()\nkey: grpo()\n",
    "no rest": "key when correct: nll(per=selected)\n",
    "tool output": "rest when source == tool: nll()\nrest: entropy()\n",
    "model output": "rest when source == model: nll(per=token)\n",
    "tool output of some": "rest when source == tool and correct: nll(per=selected)\nrest when pos < 3: grpo()\n",
    "group predicates": "rest when all_correct: nll()\nrest when all_wrong: entropy()\nrest when mixed: grpo()\n",
    "contexts": "rest when has(solution) and not has(sibling): nll()\nrest when has(feedback): entropy()\n",
    "absent context": "teacher = self(frozen, sees=sibling)\nrest: fkl(per=selected) + grpo()\n",
    "two teachers": (
        "teacher = self(sync=10, sees=diagnosis)\nteacher old = self(frozen)\n"
        "rest: fkl() + rkl(teacher=old, w=0.5) + jsd(0.3, teacher=old, per=token)\n"
    ),
    "one kernel in two routes": "key: nll(w=2) + nll(per=token)\nrest: nll(w=0.25, per=selected)\n",
    "two policy gradients": "rest: grpo() + pg(adv=reward) + grpo(w=0.5, clip=0.1)\n",
    "loo": "advantage = loo\nrest: grpo()\n",
    "no scale": "advantage = group(scale=none)\nrest: grpo()\n",
    "reward itself": "advantage = none\nrest: grpo(per=const(7))\n",
    "row rank": "rest: grpo(w=sigmoid(reward) * len) + pg(adv=reward - mean(reward, over=batch))\n",
    "token rank": "rest: nll(w=exp(old_logp) / (1 + pos)) + pg(adv=where(pos > 2, A, old_logp))\n",
    "over row": "rest: nll(w=softmax(old_logp, over=row)) + entropy(w=quantile(old_logp, 80%, over=row))\n",
    "over group": "rest: nll(w=softmax(reward, over=group)) + entropy(w=max(len, over=group))\n",
    "over batch": "rest: nll(w=mean(reward, over=batch)) + entropy(w=sum(pos, over=batch) / 100)\n",
    "quantile over batch": "rest when old_logp > quantile(old_logp, 80%, over=batch): nll()\n",
    "top": "rest when top(old_logp, 30%, over=row): nll(per=selected)\nrest when top(reward, 50%, over=batch): nll()\n",
    "measured": (
        "teacher = self(frozen)\n"
        "rest when entropy > 1: nll(w=exp(logp))\nrest: pg(adv=clip(gap, -1, 1)) + entropy(w=ratio)\n"
    ),
    "two teachers' signals": (
        "teacher = self(frozen, sees=solution)\nteacher old = self(frozen)\n"
        "rest when has(solution) and gap > gap(old): nll(w=teacher_entropy)\n"
        "rest: pg(adv=gap(old)) + entropy(w=teacher_logp(old))\n"
    ).replace("old", "other"),
    "a teacher without its context": (
        "teacher = self(frozen, sees=solution)\nrest when gap > 0: nll()\nrest when not (gap > 0): grpo()\n"
    ),
    "scans": (
        "teacher other = self(frozen)\n"
        "rest: nll(w=cumcount(entropy > 1.3)) + entropy(w=window_min(logp, 3)) "
        "+ grpo(w=window_mean(ratio, 4)) + pg(adv=reward_to_go(teacher_logp(other) - logp, 0.9))\n"
    ),
    "until": "rest when until(entropy > 2.3): nll(per=selected)\nrest when pos > 4: grpo()\n",
    "reduced scans": (
        "rest when max(cumcount(entropy > 2), over=row) > 1.5: nll(w=softmax(window_mean(entropy, 2), over=row))\n"
        "rest: entropy(w=mean(max(window_min(entropy, 2), over=row), over=group))\n"
    ),
    "empty responses": (
        "rest: nll(w=mean(max(pos, over=row), over=batch)) + entropy(w=mean(where(len > 0, max(pos, over=row), 3), "
        "over=group)) + grpo(w=mean(reward - mean(entropy, over=batch), over=group))\n"
    ),
    "step": "rest when step < 24: nll(w=step)\nrest: grpo()\n",
    "share of the run": "rest: nll(w=1, start=7%, ramp=7%, warmup=10%, anneal=cos) + entropy(w=2, anneal=step(14%))\n",
    "tokens": "rest: nll(w=1, start=300 tokens, ramp=1e3 tokens, anneal=exp(5000 tokens), floor=0.1)\n",
    "shapes": (
        "rest: nll(w=1, warmup=5, anneal=cos(20), floor=0.2) + nll(w=1, ramp=14, anneal=exp(20)) "
        "+ nll(w=1, anneal=linear(10%)) + nll(w=2, start=10, anneal=step(13 steps), floor=1)\n"
    ),
}


@pytest.mark.parametrize("name", DEMO_SPECS)
def test_demo_specs(name: str) -> None:
    """Two hundred batches of the demo's spec, fifty of those it is compared with, through every phase."""
    spec = spec_of((DEMO / f"{name}.trace").read_text(encoding="utf-8"))
    rng = random.Random(7)
    seen: Counter[str] = Counter()
    for index in range(200 if name == "trace" else 50):
        batch = random_batch(rng)
        found = compare(spec, facts_of(), batch, PHASES[index % len(PHASES)])
        seen["compared"] += found.lowered is not None
        seen["divergence"] += any(any(w) for (r, c), w in found.reading.weight.items() if (r, c) == (0, 0))
        seen["policy gradient"] += any(found.reading.advantage_of_row)
        seen["empty response"] += any(not row for row in batch.old_logp)
        seen["tool output"] += any(not by for row in batch.from_model for by in row)
    assert seen["compared"] > 40
    assert all(seen[what] >= 5 for what in ("divergence", "policy gradient", "empty response", "tool output")), seen


@pytest.mark.parametrize("feature", FEATURES)
def test_one_feature_at_a_time(feature: str) -> None:
    """Every feature alone, on batches that do not depend on the feature's own text."""
    spec = spec_of(FEATURES[feature])
    rng = random.Random(11)
    compared = 0
    for index in range(24):
        batch = random_batch(rng)
        found = compare(spec, facts_of(), batch, PHASES[index % len(PHASES)], rng.choice(TOKENS_TRAINED))
        compared += found.lowered is not None
    assert compared >= 12


@settings(QUICK, max_examples=60)
@given(rng=st.randoms(use_true_random=False), name=st.sampled_from(DEMO_SPECS), step=st.sampled_from(PHASES))
def test_demo_specs_on_any_batch(rng: random.Random, name: str, step: int) -> None:
    """As above with batches that shrink."""
    compare(spec_of((DEMO / f"{name}.trace").read_text(encoding="utf-8")), facts_of(), random_batch(rng), step)


@settings(QUICK, max_examples=120, phases=(Phase.generate,))  # making a whole spec smaller takes minutes
@given(
    rng=st.randoms(use_true_random=False),
    step=st.sampled_from(PHASES),
    tokens=st.sampled_from(TOKENS_TRAINED),
    total_steps=st.sampled_from((100, 41, 7)),
)
def test_random_specs_on_any_batch(rng: random.Random, step: int, tokens: float, total_steps: int) -> None:
    """Random specs on random batches, over runs of other lengths."""
    text = random_spec(rng)
    compare(spec_of(text), facts_of(total_steps), random_batch(rng, longest=8), step, tokens)


@pytest.mark.parametrize("seed", range(8))
def test_random_specs(seed: int) -> None:
    """Fixed random specs, larger than those hypothesis likes to draw."""
    rng = random.Random(seed)
    compared = 0
    for _ in range(40):
        text = random_spec(rng)
        batch, step, tokens = random_batch(rng), rng.choice(PHASES), rng.choice(TOKENS_TRAINED)
        try:
            found = compare(spec_of(text), facts_of(), batch, step, tokens)
        except AssertionError as error:
            raise AssertionError(f"step {step}, tokens {tokens}, {batch}\n{text}") from error
        compared += found.lowered is not None
    assert compared >= 25


@pytest.mark.parametrize("seed", range(4))
def test_random_specs_over_several_steps(seed: int) -> None:
    """Latches go from one step to the next; each step has a batch of its own."""
    rng, tally = random.Random(seed), Tally()
    while sum(tally.outcome.values()) < 80:
        run(rng, tally)
    assert tally.outcome["equal"] >= 55, tally


def test_latches_over_a_run() -> None:
    """Two latches over 100 batches: both turn on and off, and every state is the reading's."""
    spec = spec_of(
        "teacher = self(frozen)\n"
        "let high = latch(mean(reward, over=batch) > 0.61, mean(reward, over=batch) < 0.33)\n"
        "let sure = latch(mean(entropy, over=batch) < 1.49, quantile(gap, 80%, over=batch) > 0.57)\n"
        "rest when high: nll(w=where(sure, 1, 0.25))\nrest: grpo()\n"
    )
    rng = random.Random(1)
    latches: Latches = {}
    states = []
    for step in range(100):
        latches = compare(spec, facts_of(), random_batch(rng), step, latches=latches).reading.latches
        states.append(tuple(latches.values()))
    for latch in zip(*states, strict=True):
        assert {(False, True), (True, False)} <= set(pairwise(latch)), latch


@pytest.mark.parametrize("over", ["row", "group", "batch"])
def test_random_takes_its_share_of_every_scope(over: str) -> None:
    """Rounded up, of all response tokens; the same again for the same seed and step, whatever else changes."""
    plan = compile_plan(spec_of(f"rest when random(30%, over={over}): nll()\nrest: none\n"), facts_of())
    rng = random.Random(3)
    changed = 0
    for step in range(40):
        batch = replace(random_batch(rng, longest=9), spans=[])
        batch = replace(batch, from_model=[[True] * len(row) for row in batch.from_model])
        drawn = lower(plan, tensors_of(batch), step, seed=5).route_of_T
        places = batch.tokens()
        scope_of = {"row": lambda p: p.row, "group": lambda p: p.group, "batch": lambda p: 0}[over]
        size = Counter(map(scope_of, places))
        taken = Counter(scope_of(p) for p, route in zip(places, drawn.tolist(), strict=True) if route == 0)
        assert taken == {scope: math.ceil(Fraction(3, 10) * count) for scope, count in size.items()}
        torch.manual_seed(step)
        before = torch.get_rng_state()
        other = replace(batch, reward=[7.0] * len(batch.reward), old_logp=[[-1.0] * len(row) for row in batch.old_logp])
        assert torch.equal(lower(plan, tensors_of(other), step, seed=5).route_of_T, drawn)
        assert torch.equal(torch.get_rng_state(), before), "the trainer's own random numbers are left alone"
        changed += not torch.equal(lower(plan, tensors_of(batch), step, seed=6).route_of_T, drawn)
        changed += not torch.equal(lower(plan, tensors_of(batch), step + 1, seed=5).route_of_T, drawn)
    assert changed > 40


@settings(QUICK, max_examples=40)
@given(rng=st.randoms(use_true_random=False), step=st.sampled_from(PHASES))
def test_take_keeps_what_it_takes(rng: random.Random, step: int) -> None:
    """`take` is column selection: the parts of any cut, put together again, are the whole."""
    batch = tensors_of(random_batch(rng))
    plan = compile_plan(spec_of((DEMO / "trace.trace").read_text(encoding="utf-8")), facts_of())
    whole = lower(plan, batch, step).routing
    order = list(range(batch.tokens))
    rng.shuffle(order)
    cut = rng.randint(0, batch.tokens)
    parts = [whole.take(torch.tensor(part, dtype=torch.int64)) for part in (order[:cut], order[cut:])]
    back = torch.tensor(order, dtype=torch.int64).argsort()
    for name in ("weight_CT", "advantage_CT"):
        joined = torch.cat([getattr(part, name) for part in parts], dim=1)
        assert torch.equal(joined[:, back], getattr(whole, name))
    assert torch.equal(torch.cat([part.row_of_T for part in parts])[back], whole.row_of_T)
    assert all(part.kernels == whole.kernels for part in parts)
    teacher = set(whole.teacher_tokens("teacher").tolist())
    for part, tokens in zip(parts, (order[:cut], order[cut:]), strict=True):
        assert {tokens[i] for i in part.teacher_tokens("teacher").tolist()} == teacher & set(tokens)
