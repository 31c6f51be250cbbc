"""`lower` equals the slow reading of the same spec: routes, weights, advantages, teacher tokens."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.lowering.cases import PHASES, facts_of, random_batch, random_spec, spec_of, tensors_of
from tests.lowering.compare import compare
from trace_dsl.lowering import lower
from trace_dsl.plan import compile_plan

torch.set_num_threads(1)

DEMO = Path(__file__).resolve().parents[2] / "specs" / "demo"
DEMO_SPECS = ("trace", "trace_fkl", "all_token", "grpo")
TOKENS_TRAINED = (0.0, 300.0, 500.0, 1500.0, 9000.0)
QUICK = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))

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
