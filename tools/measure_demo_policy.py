"""Measure the demo's policy: its accuracy with and without a label, and what the label tells a teacher.

    python tools/measure_demo_policy.py --policy specs/demo/policy

prints the tables of the policy's model card, in some minutes on one thread. Everything is sampled at
temperature 1 from the whole vocabulary.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase, Qwen3ForCausalLM

from megatron_bridge.annotation import AnnotatedSpan, Problem
from megatron_bridge.contexts import Diagnosis
from megatron_bridge.tasks import get_task
from megatron_bridge.tasks.ledger import SPLIT_OPS
from megatron_bridge.tasks.ledger_steps import (
    StepType,
    draw_ledger,
    problem_types,
    prompt_text,
    right_response,
)


def sample(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 128,
) -> list[list[int]]:
    """Responses at temperature 1 from the whole vocabulary, as token ids without the end token."""
    batch = tokenizer(list(prompts), padding=True, return_tensors="pt")
    with torch.no_grad():
        ids = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=max_new_tokens,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
        )
    rows = ids[:, batch["input_ids"].shape[1] :].tolist()
    ends = (tokenizer.eos_token_id, tokenizer.pad_token_id)
    return [row[: next((i for i, token in enumerate(row) if token in ends), len(row))] for row in rows]


def token_log_probabilities(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    responses: Sequence[list[int]],
) -> list[torch.Tensor]:
    """Of each response the log-probabilities of the whole vocabulary, [response tokens, vocabulary]."""
    found = []
    for prompt, response in zip(tokenizer(list(prompts))["input_ids"], responses, strict=True):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1]
        found.append(logits.float().log_softmax(-1))
    return found


def marked_tokens(
    tokenizer: PreTrainedTokenizerBase, response: list[int], spans: Sequence[AnnotatedSpan]
) -> torch.Tensor:
    """Which tokens meet a span, [response tokens] bool; intervals come from single-token decodes."""
    marks, at = [], 0
    for token in response:
        end = at + len(tokenizer.decode([token]))
        marks.append(any(at < span.end and end > span.start for span in spans))
        at = end
    return torch.tensor(marks)


def accuracy(
    model: Qwen3ForCausalLM,
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    labels: Sequence[str | None],
) -> tuple[float, float]:
    """The share of right responses (0..1) and the mean response length in tokens, the end token included."""
    task = get_task("ledger")
    right = length = 0.0
    for low in range(0, len(problems), 512):
        batch = problems[low : low + 512]
        prompts = [
            task.teacher_prompt(problem, None if label is None else Diagnosis(label))
            for problem, label in zip(batch, labels[low : low + 512], strict=True)
        ]
        for problem, ids in zip(batch, sample(model, tokenizer, prompts), strict=True):
            right += task.verify(problem, tokenizer.decode(ids))
            length += len(ids) + 1
    return right / len(problems), length / len(problems)


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowledge:
    """What the label tells the teacher, in nats a token, on sampled responses of one outcome.

    `divergence` is KL(student || teacher) for wrong responses and KL(teacher || student) for correct ones,
    `gain` the teacher's log-probability of the right token minus the student's (wrong responses: at the
    first wrong token, and at the tokens before it). Pairs are (inside spans, outside).
    """

    rows: int
    token_share: float
    divergence: tuple[float, float]
    gain: tuple[float, float]


def measure_knowledge(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem], *, correct: bool
) -> Knowledge:
    """Compare the policy behind the diagnosis (teacher) with itself (student), on its own responses."""
    task = get_task("ledger")
    divergence, gain = ([], []), ([], [])
    rows, shares = 0, 0.0
    responses = sample(model, tokenizer, [problem.prompt for problem in problems])
    for problem, ids in zip(problems, responses, strict=True):
        text = tokenizer.decode(ids)
        if bool(task.verify(problem, text)) != correct:
            continue
        annotation = task.annotate(problem, text, correct=correct)
        if not annotation.spans:
            continue
        shown = task.teacher_prompt(problem, Diagnosis(annotation.diagnosis))
        student, teacher = token_log_probabilities(model, tokenizer, [problem.prompt, shown], [ids, ids])
        over, under = (teacher, student) if correct else (student, teacher)
        kl = (over.exp() * (over - under)).sum(-1)
        marks = marked_tokens(tokenizer, ids, annotation.spans)
        right = tokenizer.encode("\n".join(line.text for line in right_response(problem.data)))
        for at, (token, wanted) in enumerate(zip(ids, right, strict=False)):
            if correct:
                gain[int(not marks[at])].append(float((teacher - student)[at, wanted]))
            elif token == wanted:
                gain[1].append(float((teacher - student)[at, wanted]))
            else:
                gain[0].append(float((teacher - student)[at, wanted]))
                break
        divergence[0].extend(kl[marks].tolist())
        divergence[1].extend(kl[~marks].tolist())
        rows, shares = rows + 1, shares + float(marks.float().mean())
    if rows == 0:
        outcome = "correct" if correct else "wrong"
        raise ValueError(f"no {outcome} response of {len(problems)} has a span: raise --count or train for more steps")
    return Knowledge(
        rows=rows,
        token_share=shares / rows,
        divergence=(fmean(divergence[0]), fmean(divergence[1])),
        gain=(fmean(gain[0]), fmean(gain[1])),
    )


def single_step_problems(step_type: StepType, count: int) -> list[Problem]:
    """Problems of one operation whose right path takes a decision of this type."""
    rng = random.Random(f"ledger/single/{step_type}")
    found = []
    while len(found) < count:
        ledger = draw_ledger(rng, ops=1, swaps=0)
        if step_type in problem_types(ledger):
            found.append(Problem(prompt=prompt_text(ledger), data=ledger))
    return found


def random_labels(problems: Sequence[Problem]) -> list[StepType]:
    """For each problem one type that occurs on its right path, chosen by the problem's own text."""
    return [random.Random(p.prompt).choice(problem_types(p.data) or tuple(StepType)) for p in problems]


def measure(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerBase, *, count: int, seed: int) -> str:
    """Every figure of the model card, as its Markdown tables."""
    task = get_task("ledger")
    torch.manual_seed(seed)
    lines = [
        "| problems | operations | without label | with a label | tokens a response |",
        "|---|---|---|---|---|",
    ]
    for split, ops in SPLIT_OPS.items():
        if split == "train":
            continue
        problems = task.problems(split=split, seed=0, start=0, count=count)
        plain, length = accuracy(model, tokenizer, problems, [None] * count)
        labelled, _ = accuracy(model, tokenizer, problems, random_labels(problems))
        lines.append(f"| {split} | {ops} | {plain:.3f} | {labelled:.3f} | {length:.1f} |")
        print(lines[-1], flush=True)
    lines += ["", "| one step of type | without label | with its label |", "|---|---|---|"]
    for step_type in StepType:
        problems = single_step_problems(step_type, count)
        plain, _ = accuracy(model, tokenizer, problems, [None] * count)
        labelled, _ = accuracy(model, tokenizer, problems, [step_type] * count)
        lines.append(f"| {step_type} | {plain:.3f} | {labelled:.3f} |")
        print(lines[-1], flush=True)
    problems = task.problems(split="eval", seed=1, start=0, count=count)
    wrong = measure_knowledge(model, tokenizer, problems, correct=False)
    right = measure_knowledge(model, tokenizer, problems, correct=True)
    lines += [
        "",
        "| on the policy's own responses | wrong, error spans | correct, key spans |",
        "|---|---|---|",
        f"| responses with a span | {wrong.rows} | {right.rows} |",
        f"| share of tokens marked | {wrong.token_share:.3f} | {right.token_share:.3f} |",
        f"| divergence inside spans, nats a token | {wrong.divergence[0]:.4f} | {right.divergence[0]:.4f} |",
        f"| divergence outside spans, nats a token | {wrong.divergence[1]:.4f} | {right.divergence[1]:.4f} |",
        f"| gain on the right token, inside, nats | {wrong.gain[0]:.3f} | {right.gain[0]:.4f} |",
        f"| gain on the right token, outside, nats | {wrong.gain[1]:.4f} | {right.gain[1]:.4f} |",
    ]
    print("\n".join(lines[-8:]), flush=True)
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--policy",
        type=Path,
        default=Path("specs/demo/policy"),
        help="directory to read (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the sampling (default: %(default)s)")
    parser.add_argument("--count", type=int, default=1024, help="problems behind each figure (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default: %(default)s)")
    arguments = parser.parse_args()
    if arguments.count < 1 or arguments.threads < 1:
        parser.error("--count and --threads must be at least 1")
    torch.set_num_threads(arguments.threads)
    policy = AutoModelForCausalLM.from_pretrained(arguments.policy).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.policy)
    measure(policy, tokenizer, count=arguments.count, seed=arguments.seed)


if __name__ == "__main__":
    main()
