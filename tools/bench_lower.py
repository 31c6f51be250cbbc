"""How long `lower` takes, beside one forward and backward pass of the demo's policy on the same tokens.

    python tools/bench_lower.py                      # 64 rollouts of 4096 tokens, 8 routes
    python tools/bench_lower.py --rows 8 --repeats 3

Both run on one thread of this machine. `lower` works on host tensors only: on a GPU it overlaps with what the device
still computes, unless the spec reads a measured signal, which has to come from the device first.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from statistics import median

import torch
from rich.progress import track
from transformers import AutoModelForCausalLM

from trace_dsl import RunFacts, SpecError, lint_text
from trace_dsl.lowering import RolloutBatch, TokenSpan, lower
from trace_dsl.plan import Plan, compile_plan
from trace_dsl.terms import Rank, Signal

LABELS = ("key", "error", "plan")

# Eight routes: predicates of every rank, scans, group and batch reductions, schedules, gates on measured signals.
SPEC = """\
spans key(cap=25%), error(cap=25%), plan(cap=10%)
teacher = self(sync=10, sees=diagnosis)
let kl = schedule(0.5, warmup=10, anneal=linear(30))
key when correct and mixed: fkl(w=kl) + grpo(w=1 - kl/0.5)
key when correct: grpo(w=0.5)
error when wrong and pos < 512: rkl(w=kl * sigmoid(gap)) + grpo(w=1 - kl/0.5)
error when wrong: rkl(w=kl)
plan when until(entropy > 3.99): nll(w=0.1 * A)
rest when top(entropy, 20%, over=group): grpo(w=1.0, per=selected)
rest when cumcount(entropy > 2.0) < 100: grpo(w=window_mean(entropy, 8) / mean(entropy, over=batch))
rest: grpo(clip=(0.2, 0.28)) + entropy(w=0.001)
"""


def make_plan(steps: int = 60, group_size: int = 8) -> Plan:
    facts = RunFacts(
        total_steps=steps,
        group_size=group_size,
        annotator_labels=LABELS,
        teacher_contexts=("diagnosis",),
        vocab_size=128,
        max_response_tokens=8192,
    )
    result = lint_text(SPEC, facts)
    if result.spec is None or result.errors:
        raise SpecError("; ".join(found.message for found in result.errors))
    return compile_plan(result.spec, facts)


def make_batch(rows: int, length: int, group_size: int = 8, seed: int = 0) -> RolloutBatch:
    """Full rows of `length` tokens with six spans each, and every signal of the spec measured."""
    rng, tokens = random.Random(seed), rows * length
    generator = torch.Generator().manual_seed(seed)
    spans = []
    for row in range(rows):
        for label in LABELS * 2:
            start = rng.randrange(length - length // 8)
            spans.append(TokenSpan(row=row, label=label, start=start, end=start + length // 16))
    correct_R = torch.rand(rows, generator=generator) < 0.5
    correct_R[:group_size] = True  # one group that is not mixed
    measured = {
        Signal(name="entropy", rank=Rank.TOKEN): torch.rand(tokens, generator=generator) * 4,
        Signal(name="logp", rank=Rank.TOKEN): -torch.rand(tokens, generator=generator),
        Signal(name="teacher_logp", rank=Rank.TOKEN, teacher="teacher"): -torch.rand(tokens, generator=generator),
    }
    return RolloutBatch(
        length_R=torch.full((rows,), length),
        reward_R=correct_R.double(),
        correct_R=correct_R,
        group_R=torch.arange(rows) // group_size,
        old_logp_T=-torch.rand(tokens, generator=generator),
        from_model_T=torch.rand(tokens, generator=generator) < 0.95,
        spans=tuple(spans),
        contexts=(("diagnosis", torch.ones(rows, dtype=torch.bool)),),
        measured=tuple(measured.items()),
    )


def seconds(run: Callable[[], object], repeats: int) -> list[float]:
    found = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return found


def policy_pass(policy: str, rows: int, length: int) -> float:
    """Seconds of one forward and backward over the tokens, a row at a time."""
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float32)
    ids_RL = torch.randint(model.config.vocab_size, (rows, length), generator=torch.Generator().manual_seed(0))
    total = 0.0
    for row in track(range(rows), description="forward and backward"):
        ids_1L = ids_RL[row : row + 1]
        total += seconds(lambda ids_1L=ids_1L: model(input_ids=ids_1L, labels=ids_1L).loss.backward(), 1)[0]
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=64, help="rollouts, a multiple of 8 (default 64)")
    parser.add_argument("--length", type=int, default=4096, help="tokens of each (default 4096)")
    parser.add_argument("--repeats", type=int, default=10, help="times lower() runs; the median is shown (default 10)")
    parser.add_argument("--policy", default="specs/demo/policy", help="a Hugging Face directory")
    args = parser.parse_args()
    torch.set_num_threads(1)
    plan, batch = make_plan(), make_batch(args.rows, args.length)
    lower(plan, batch, 20)
    times = seconds(lambda: lower(plan, batch, 20), args.repeats)
    print(
        f"lower: {len(plan.routes)} routes, {args.rows} x {args.length} tokens, median of {args.repeats}: "
        f"{median(times):.3f} s ({min(times):.3f} to {max(times):.3f})"
    )
    whole = policy_pass(args.policy, args.rows, args.length)
    print(f"{args.policy}: forward and backward on as many tokens: {whole:.1f} s")
    print(f"lower takes {median(times) / whole:.2%} of it")


if __name__ == "__main__":
    main()
