"""The demo objective on a Hugging Face model in float64, one response at a time: what Megatron's gradients must equal.

Written from arXiv 2605.10194, equations 1 and 2 (mu_E = 1, mu_K = 0), with nothing of the product's loss or lowering.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from megatron_bridge.contexts import Diagnosis
from megatron_bridge.tasks.base import Task
from megatron_bridge.training.collect import Rollout

CLIP_LOW, CLIP_HIGH, W0 = 0.2, 0.28, 0.5
LOSSES = ("error/rkl", "error/grpo", "key/grpo", "rest/grpo")  # in the order of the spec


def kl_schedule(step: int) -> float:
    """Equation 2: held at 0.5 for 10 steps, linear to zero over 30."""
    return W0 if step < 10 else max(0.0, W0 * (1 - (step - 10) / 30))


@dataclass(kw_only=True)
class Part:
    """One loss: its part of the objective, its tokens with weight, sum of |d loss / d logits|, tokens clipped."""

    loss: float = 0.0
    tokens: int = 0
    gradient: float = 0.0
    clipped: int = 0


def reference_gradients(
    policy: Path, rollouts: Sequence[Rollout], task: Task, tokenizer, step: int, teacher: Path | None = None
) -> tuple[float, dict[str, torch.Tensor], dict[str, Part]]:
    """(loss, gradient by Hugging Face parameter name, every loss alone), float64; without `teacher` it has the policy's
    weights."""
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float64)
    told = model if teacher is None else AutoModelForCausalLM.from_pretrained(teacher, dtype=torch.float64)
    weight = kl_schedule(step)
    total = 0.0
    parts = {name: Part() for name in LOSSES}
    for rollout in rollouts:
        if not rollout.token_ids:
            continue
        logits_tv = response_logits(model, rollout.prompt_ids, rollout.token_ids)
        taught, marked = _span_tokens(rollout, "error"), _span_tokens(rollout, "key")
        teacher_tv = None
        if taught and weight > 0:
            prompt = task.teacher_prompt(rollout.problem, Diagnosis(rollout.annotation.diagnosis))
            with torch.no_grad():
                teacher_tv = response_logp(told, tokenizer.encode(prompt, add_special_tokens=False), rollout.token_ids)

        def losses(logits_tv: torch.Tensor) -> tuple[dict[str, list[torch.Tensor]], dict[str, int]]:
            logp_tv = torch.log_softmax(logits_tv, -1)
            return _losses(rollout, rollouts, logp_tv, teacher_tv, taught, marked, weight)  # noqa: B023 (called here)

        everything, _ = losses(logits_tv)
        loss = sum(sum(everything[name], torch.zeros((), dtype=torch.float64)) for name in LOSSES)
        loss.backward()
        total += loss.item()
        leaf_tv = logits_tv.detach().requires_grad_()
        terms_of, clipped = losses(leaf_tv)
        for name, terms in terms_of.items():
            parts[name].clipped += clipped[name]
            if terms:
                (gradient_tv,) = torch.autograd.grad(sum(terms), leaf_tv, retain_graph=True)
                parts[name].loss += sum(terms).item()
                parts[name].tokens += len(terms)
                parts[name].gradient += gradient_tv.abs().sum().item()
    return total, {name: p.grad for name, p in model.named_parameters()}, parts


def _losses(
    rollout: Rollout,
    rollouts: Sequence[Rollout],
    logp_tv: torch.Tensor,
    teacher_tv: torch.Tensor | None,
    taught: set[int],
    marked: set[int],
    weight: float,
) -> tuple[dict[str, list[torch.Tensor]], dict[str, int]]:
    """Every loss at each of its tokens, and at how many of them the clip is at work."""
    terms: dict[str, list[torch.Tensor]] = {name: [] for name in LOSSES}
    clips = dict.fromkeys(LOSSES, 0)
    advantage, scale = _advantage(rollout, rollouts), 1 / len(rollout.token_ids) / len(rollouts)
    rho = 1 - weight / W0
    for t, token in enumerate(rollout.token_ids):
        ratio = torch.exp(logp_tv[t, token] - rollout.logprobs[t])
        clipped = torch.clamp(ratio, 1 - CLIP_LOW, 1 + CLIP_HIGH)
        gradient = -torch.minimum(ratio * advantage, clipped * advantage)
        name = "error/grpo" if t in taught else "key/grpo" if t in marked else "rest/grpo"
        share = 1.0 if name == "rest/grpo" else rho
        if share > 0:
            terms[name].append(scale * share * gradient)
            clips[name] += bool(clipped * advantage < ratio * advantage)
        if t in taught and weight > 0:
            terms["error/rkl"].append(scale * weight * (logp_tv[t].exp() * (logp_tv[t] - teacher_tv[t])).sum())
    return terms, clips


def response_logits(model, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> torch.Tensor:
    """Logits [tokens, vocabulary] at the places that predict `token_ids`."""
    return model(torch.tensor([[*prompt_ids, *token_ids]])).logits[0, len(prompt_ids) - 1 : -1]


def response_logp(model, prompt_ids: Sequence[int], token_ids: Sequence[int]) -> torch.Tensor:
    """Log-probs [tokens, vocabulary] at the places that predict `token_ids`."""
    return torch.log_softmax(response_logits(model, prompt_ids, token_ids), -1)


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
