"""The demo objective on a Hugging Face model in float64, one response at a time: what Megatron's gradients must equal.

Written from arXiv 2605.10194, equations 1 and 2 (mu_E = 1, mu_K = 0), with nothing of the product's loss or lowering.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from megatron_bridge.contexts import Diagnosis
from megatron_bridge.tasks.base import Task
from megatron_bridge.training.collect import Rollout

CLIP_LOW, CLIP_HIGH, W0 = 0.2, 0.28, 0.5


def kl_schedule(step: int) -> float:
    """Equation 2: held at 0.5 for 10 steps, linear to zero over 30."""
    return W0 if step < 10 else max(0.0, W0 * (1 - (step - 10) / 30))


def reference_gradients(
    policy: Path, rollouts: Sequence[Rollout], task: Task, tokenizer, step: int, teacher: Path | None = None
) -> tuple[float, dict[str, torch.Tensor]]:
    """(loss, gradient by Hugging Face parameter name), float64; without `teacher` it has the policy's weights."""
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float64)
    told = model if teacher is None else AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.float64)
    weight = kl_schedule(step)
    rho = 1 - weight / W0
    total = 0.0
    for rollout in rollouts:
        if not rollout.token_ids:
            continue
        logp_tv = response_logp(model, rollout.prompt_ids, rollout.token_ids)
        advantage = _advantage(rollout, rollouts)
        taught, marked = _span_tokens(rollout, "error"), _span_tokens(rollout, "key")
        if taught and weight > 0:
            prompt = task.teacher_prompt(rollout.problem, Diagnosis(rollout.annotation.diagnosis))
            with torch.no_grad():
                teacher_tv = response_logp(told, tokenizer.encode(prompt, add_special_tokens=False), rollout.token_ids)
        loss = torch.zeros((), dtype=torch.float64)
        for t, token in enumerate(rollout.token_ids):
            ratio = torch.exp(logp_tv[t, token] - rollout.logprobs[t])
            clipped = torch.clamp(ratio, 1 - CLIP_LOW, 1 + CLIP_HIGH)
            gradient = -torch.minimum(ratio * advantage, clipped * advantage)
            if t in taught or t in marked:
                loss = loss + rho * gradient
                if t in taught and weight > 0:
                    student_v = logp_tv[t]
                    loss = loss + weight * (student_v.exp() * (student_v - teacher_tv[t])).sum()
            else:
                loss = loss + gradient
        loss = loss / len(rollout.token_ids) / len(rollouts)
        loss.backward()
        total += loss.item()
    return total, {name: p.grad for name, p in model.named_parameters()}


def response_logp(model, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> torch.Tensor:
    """Log-probs [tokens, vocabulary] at the places that predict `token_ids`."""
    ids = torch.tensor([[*prompt_ids, *token_ids]])
    logits = model(ids).logits[0, len(prompt_ids) - 1 : -1]
    return torch.log_softmax(logits, -1)


def _advantage(rollout: Rollout, rollouts: Sequence[Rollout]) -> float:
    rewards = [r.reward for r in rollouts if r.group == rollout.group]
    if len(set(rewards)) == 1:
        return 0.0
    return (rollout.reward - statistics.fmean(rewards)) / statistics.stdev(rewards)


def _span_tokens(rollout: Rollout, label: str) -> set[int]:
    """E_y of a wrong or K_y of a correct rollout: at most a quarter of the response, counted from its start."""
    if rollout.correct != (label == "key"):
        return set()
    marked: list[int] = []
    for span in rollout.annotation.spans:
        if span.label == label:
            for t, (start, end) in enumerate(rollout.aligned.intervals):
                if start < span.end and span.start < end and t not in marked:
                    marked.append(t)
    return set(sorted(marked)[: len(rollout.token_ids) // 4])
