"""Random batches to read, and the two forms of a batch: plain lists and the tensors `lower` takes.

Everything draws from a `random.Random`: a seeded one in loops, hypothesis' own (which shrinks) in properties. Numbers
are multiples of 1/64, so that float32 holds them exactly and a comparison cannot depend on the precision.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping
from types import MappingProxyType

import torch

from tests.lowering.plain import PlainBatch, PlainSpan
from tests.lowering.reading_expressions import teacher_can_see
from trace_dsl.facts import RunFacts
from trace_dsl.lowering.batch import RolloutBatch, TokenSpan
from trace_dsl.model import Severity, Spec
from trace_dsl.resolve import resolve
from trace_dsl.syntax import parse_source
from trace_dsl.terms import Signal

LABELS = ("key", "error")
TEACHERS = ("teacher", "other")
CONTEXTS = ("diagnosis", "solution", "sibling", "feedback")

# Steps in every phase of the demo's schedule (hold to 10, then down over 30), and long after.
PHASES = (0, 1, 7, 9, 10, 11, 14, 24, 39, 40, 41, 99)


def facts_of(total_steps: int = 100, group_size: int = 4) -> RunFacts:
    return RunFacts(
        total_steps=total_steps,
        group_size=group_size,
        annotator_labels=LABELS,
        teacher_contexts=CONTEXTS,
        vocab_size=11,
        max_response_tokens=64,
    )


def spec_of(text: str) -> Spec:
    """The spec a text means. An error in it fails the test that wrote it."""
    resolved = resolve(parse_source("test.trace", text))
    errors = [found.message for found in resolved.diagnostics if found.severity is Severity.ERROR]
    assert not errors, f"{errors} in\n{text}"
    return resolved.spec


def measured_of(batch: PlainBatch, spec: Spec, wanted: Iterable[Signal]) -> dict[Signal, list[list[float]]]:
    """What a trainer measures for `lower`: NaN where a teacher lacks the response's context."""
    found = {}
    for signal in wanted:
        if signal.teacher is None:
            found[signal] = getattr(batch, signal.name)
            continue
        values = getattr(batch, signal.name)[signal.teacher]
        seen = [teacher_can_see(spec, batch, signal.teacher, row) for row in range(len(values))]
        found[signal] = [row if can else [math.nan] * len(row) for row, can in zip(values, seen, strict=True)]
    return found


def tensors_of(batch: PlainBatch, measured: Mapping[Signal, list[list[float]]] = MappingProxyType({})) -> RolloutBatch:
    """The same batch as `lower` takes it."""
    return RolloutBatch(
        length_R=torch.tensor([len(row) for row in batch.old_logp], dtype=torch.int64),
        reward_R=torch.tensor(batch.reward, dtype=torch.float32),
        correct_R=torch.tensor(batch.correct, dtype=torch.bool),
        group_R=torch.tensor(batch.group, dtype=torch.int64),
        old_logp_T=torch.tensor([x for row in batch.old_logp for x in row], dtype=torch.float32),
        from_model_T=torch.tensor([x for row in batch.from_model for x in row], dtype=torch.bool),
        spans=tuple(TokenSpan(row=s.row, label=s.label, start=s.start, end=s.end) for s in batch.spans),
        source_R=tuple(batch.source),
        contexts=tuple((name, torch.tensor(has, dtype=torch.bool)) for name, has in batch.contexts.items()),
        measured=tuple(
            (signal, torch.tensor([x for row in rows for x in row], dtype=torch.float32))
            for signal, rows in measured.items()
        ),
    )


# ------------------------------------------------------------------------------------------------------------- batches


def random_batch(rng: random.Random, *, longest: int = 12, groups: int = 4) -> PlainBatch:
    """Several prompts (also all correct, all wrong, alone), ragged and empty responses, spans that overlap and pass
    their caps, tool output, and responses without a context."""
    numbers = rng.sample(range(20), rng.randint(1, groups))
    smallest = rng.randint(1, 2)
    group = [number for number in numbers for _ in range(rng.randint(smallest, 4))]
    if rng.random() < 0.3:
        rng.shuffle(group)
    outcome_of_group = {number: rng.choice(("correct", "wrong", "mixed", "mixed")) for number in numbers}
    graded = rng.random() < 0.4
    correct, reward, old_logp, from_model, spans = [], [], [], [], []
    tool_share = rng.choice((0.0, 0.0, 0.3))
    for row, number in enumerate(group):
        outcome = outcome_of_group[number]
        correct.append(outcome == "correct" or (outcome == "mixed" and rng.random() < 0.5))
        reward.append(rng.choice((-1.0, 0.0, 0.25, 0.5, 1.0)) if graded else float(correct[-1]))
        length = 0 if rng.random() < 0.15 else rng.randint(1, longest)
        old_logp.append([-rng.randint(1, 256) / 64 for _ in range(length)])
        from_model.append([rng.random() >= tool_share for _ in range(length)])
        for _ in range(rng.randint(0, 3)):
            start = rng.randint(0, length)
            spans.append(PlainSpan(row=row, label=rng.choice(LABELS), start=start, end=rng.randint(start, length)))
    rng.shuffle(spans)
    own = random.Random(rng.getrandbits(32))  # many numbers of one draw, for the drawing that shrinks is slow

    def of_tokens(low: int, high: int) -> list[list[float]]:
        return [[own.randint(low, high) / 64 for _ in row] for row in old_logp]

    contexts = {name: [rng.random() < 0.7 for _ in group] for name in CONTEXTS if rng.random() < 0.9}
    return PlainBatch(
        reward=reward,
        correct=correct,
        group=group,
        old_logp=old_logp,
        from_model=from_model,
        spans=spans,
        contexts=contexts,
        logp=[[min(x + own.randint(-40, 40) / 64, -1 / 64) for x in row] for row in old_logp],
        entropy=of_tokens(0, 192),
        teacher_logp={name: of_tokens(-256, -1) for name in TEACHERS},
        teacher_entropy={name: of_tokens(0, 192) for name in TEACHERS},
    )
