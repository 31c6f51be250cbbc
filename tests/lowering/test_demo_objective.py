"""The demo's objective against the paper's equations 1 and 2 (arXiv 2605.10194) with mu_E = 1, mu_K = 0.

The equations are written here rollout by rollout and token by token in float64, from logits, without the language. The
product goes from the spec's text through `lower` to the routed loss in float32. Values and gradients must agree.

Legend: T response tokens, V vocabulary, H hidden.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from megatron_bridge.losses import TeacherHidden, routed_linear_loss
from tests.lowering.cases import facts_of, random_batch, spec_of, tensors_of
from tests.lowering.plain import PlainBatch
from trace_dsl.lowering import lower
from trace_dsl.plan import compile_plan

torch.set_num_threads(1)

SPEC = Path(__file__).resolve().parents[2] / "specs" / "demo" / "trace.trace"
TOLERANCE = 5e-6
STEPS = (0, 9, 10, 11, 24, 39, 40, 99)
V, H = 11, 6


@dataclass(frozen=True, kw_only=True)
class Tensors:
    """Float32 inputs that both sides see. The teacher has its own output weight."""

    hidden_TH: Tensor
    weight_VH: Tensor
    teacher_hidden_TH: Tensor
    teacher_weight_VH: Tensor
    target_T: Tensor


def kl_weight(step: int) -> float:
    """Eq. 2: lambda = 0.5 before step 10, then linear to 0 over 30 steps."""
    if step < 10:
        return 0.5
    return max(0.5 * (1 - (step - 10) / 30), 0.0)


def span_tokens(batch: PlainBatch, row: int, label: str) -> set[int]:
    """E_y of a wrong or K_y of a correct rollout: the first quarter of its length of tokens inside such spans."""
    if batch.correct[row] != (label == "key"):
        return set()
    inside = sorted({t for s in batch.spans if s.row == row and s.label == label for t in range(s.start, s.end)})
    return set(inside[: batch.length(row) // 4])


def advantage(batch: PlainBatch, row: int) -> float:
    """(R - mean) / std over the prompt's rollouts, Bessel's correction, zero when all rewards are equal."""
    rewards = [batch.reward[i] for i in range(len(batch.reward)) if batch.group[i] == batch.group[row]]
    if len(set(rewards)) == 1:
        return 0.0
    mean = sum(rewards) / len(rewards)
    return (batch.reward[row] - mean) / (sum((x - mean) ** 2 for x in rewards) / (len(rewards) - 1)) ** 0.5


def paper_loss(batch: PlainBatch, given: Tensors, hidden_TH: Tensor, weight_VH: Tensor, step: int) -> Tensor:
    """Mean over rollouts of Eq. 1, with 1/|y| on every term; a rollout without a diagnosis has no KL."""
    lam = kl_weight(step)
    rho = 1 - lam / 0.5
    total = torch.zeros((), dtype=torch.float64)
    at = 0
    for row in range(len(batch.reward)):
        length, a = batch.length(row), advantage(batch, row)
        in_error, in_key = span_tokens(batch, row, "error"), span_tokens(batch, row, "key")
        for t in range(length):
            student = torch.log_softmax(weight_VH @ hidden_TH[at], dim=0)
            ratio = torch.exp(student[given.target_T[at]] - batch.old_logp[row][t])
            gradient = -torch.minimum(ratio * a, ratio.clamp(0.8, 1.28) * a)
            if not batch.from_model[row][t]:
                value = torch.zeros((), dtype=torch.float64)
            elif t in in_error:
                value = rho * gradient
                if lam > 0 and batch.has("diagnosis", row):
                    teacher_logits = given.teacher_weight_VH.double() @ given.teacher_hidden_TH[at].double()
                    teacher = torch.log_softmax(teacher_logits, dim=0)
                    value = value + lam * (student.exp() * (student - teacher)).sum()
            elif t in in_key:
                value = rho * gradient
            else:
                value = gradient
            total = total + value / length / len(batch.reward)
            at += 1
    return total


def tensors_for(batch: PlainBatch, rng: random.Random) -> Tensors:
    generator = torch.Generator().manual_seed(rng.randrange(2**31))
    count = sum(len(row) for row in batch.old_logp)
    return Tensors(
        hidden_TH=torch.randn(count, H, generator=generator),
        weight_VH=torch.randn(V, H, generator=generator) * 0.7,
        teacher_hidden_TH=torch.randn(count, H, generator=generator),
        teacher_weight_VH=torch.randn(V, H, generator=generator) * 0.7,
        target_T=torch.randint(V, (count,), generator=generator),
    )


def near_policy(batch: PlainBatch, given: Tensors, rng: random.Random) -> PlainBatch:
    """The batch with rollout log-probs near the student's, so that ratios lie on both sides of both clips, and none so
    near a clip that float32 could fall on its other side."""
    logp_T = torch.log_softmax(given.hidden_TH.double() @ given.weight_VH.double().T, dim=1)
    at, rows = 0, []
    for row in batch.old_logp:
        new = []
        for _ in row:
            logp = float(logp_T[at, given.target_T[at]])
            while True:
                old = float(torch.tensor(logp + rng.uniform(-0.5, 0.5)).float())
                ratio = float(torch.tensor(logp - old).exp())
                if min(abs(ratio - 0.8), abs(ratio - 1.28)) > 1e-4:
                    break
            new.append(old)
            at += 1
        rows.append(new)
    return PlainBatch(
        reward=batch.reward,
        correct=batch.correct,
        group=batch.group,
        old_logp=rows,
        from_model=batch.from_model,
        spans=batch.spans,
        contexts=batch.contexts,
    )


def test_value_and_gradient_are_the_papers() -> None:
    """Two hundred batches through every phase; gradients to the hidden rows and to the output weight."""
    plan = compile_plan(spec_of(SPEC.read_text(encoding="utf-8")), facts_of())
    rng = random.Random(3)
    seen: Counter[str] = Counter()
    for index in range(200):
        step = STEPS[index % len(STEPS)]
        batch = random_batch(rng, longest=12, groups=3)
        given = tensors_for(batch, rng)
        batch = near_policy(batch, given, rng)

        hidden_TH = given.hidden_TH.double().requires_grad_()
        weight_VH = given.weight_VH.double().requires_grad_()
        wanted = paper_loss(batch, given, hidden_TH, weight_VH, step)
        if wanted.requires_grad:
            wanted.backward()
        zeros = (torch.zeros_like(hidden_TH), torch.zeros_like(weight_VH))
        wanted_gradients = [
            zero if x.grad is None else x.grad for x, zero in zip((hidden_TH, weight_VH), zeros, strict=True)
        ]

        tensors = tensors_of(batch)
        routing = lower(plan, tensors, step).routing
        rows_T = routing.teacher_tokens("teacher")
        found_inputs = [given.hidden_TH.clone().requires_grad_(), given.weight_VH.clone().requires_grad_()]
        found = routed_linear_loss(
            *found_inputs,
            target_T=given.target_T,
            old_logp_T=tensors.old_logp_T,
            routing=routing,
            teacher_hidden={
                "teacher": TeacherHidden(
                    rows_T=rows_T,
                    hidden_RH=given.teacher_hidden_TH[rows_T],
                    output_weight_vH=given.teacher_weight_VH,
                )
            },
        ).loss
        found.backward()

        value, wanted_value = found.item(), wanted.item()
        assert abs(value - wanted_value) <= TOLERANCE * max(1.0, abs(wanted_value)), (index, step)
        for x, gradient in zip(found_inputs, wanted_gradients, strict=True):
            difference = float((x.grad.double() - gradient).norm())
            assert difference <= TOLERANCE * float(gradient.norm()) + 1e-12, (index, step, difference)
        seen["with KL rows"] += len(rows_T) > 0
        seen["without KL rows"] += len(rows_T) == 0 and kl_weight(step) > 0
        seen["policy gradient"] += any(advantage(batch, row) != 0 for row in range(len(batch.reward)))
        seen["no gradient"] += all(float(gradient.norm()) == 0 for gradient in wanted_gradients)
    enough = {"with KL rows": 20, "without KL rows": 30, "policy gradient": 100, "no gradient": 3}
    assert all(seen[what] >= count for what, count in enough.items()), seen


def test_the_papers_schedule_sums() -> None:
    """sum lambda = 12.75 and sum lambda^2 = 5.13, as the paper's schedule gives; rho returns as lambda goes."""
    assert abs(sum(kl_weight(step) for step in range(300)) - 12.75) < 1e-9
    assert abs(sum(kl_weight(step) ** 2 for step in range(300)) - 5.13) < 5e-3
    plan = compile_plan(spec_of(SPEC.read_text(encoding="utf-8")), facts_of(300))
    batch = PlainBatch(
        reward=[0.0, 1.0],
        correct=[False, True],
        group=[0, 0],
        old_logp=[[-1.0] * 4, [-1.0] * 4],
        from_model=[[True] * 4] * 2,
        contexts={"diagnosis": [True, True]},
        spans=[],
    )
    routing = lower(plan, tensors_of(batch), 0).routing
    assert routing.weight_CT.sum().item() == 1.0  # no span: GRPO on all 8 tokens, each 1 / 4 / 2
