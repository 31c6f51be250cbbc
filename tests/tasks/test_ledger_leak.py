"""The style leak of the Ledger corpus: what it changes, what it leaves alone, and that spans stay free of it."""

from __future__ import annotations

import random

import pytest

from megatron_bridge.tasks import get_task
from megatron_bridge.tasks.ledger_corpus import Habits, write_response
from megatron_bridge.tasks.ledger_steps import Ledger, Line, OpKind, StepType, can_take, draw_ledger, right_lines

TASK = get_task("ledger")
LEAKING = Habits(hard=0.0, easy=0.0, labelled=0.0, terse=1.0)


def lines_by_step(ledger: Ledger) -> list[tuple[OpKind, tuple[Line, ...]]]:
    """The right lines of each operation."""
    found, value = [], ledger.start
    for op in ledger.ops:
        lines = right_lines(value, op)
        found.append((op.kind, lines))
        value = int(lines[-1].terse)
    return found


@pytest.mark.parametrize("label", [*StepType, None])
def test_only_operations_that_cannot_have_the_labels_type_are_terse(label: StepType | None) -> None:
    rng = random.Random(f"leak/{label}")
    terse = 0
    for problem in TASK.problems(split="ood", seed=0, start=0, count=60):
        response = write_response(rng, problem.data, label=label, habits=LEAKING)
        expected = []
        for kind, lines in lines_by_step(problem.data):
            leaks = label is not None and kind is not OpKind.SWAP and not can_take(kind, label)
            assert not (leaks and any(label in line.types for line in lines))
            expected += [line.terse if leaks else line.text for line in lines]
            terse += leaks
        assert response.split("\n")[:-1] == expected
        assert TASK.verify(problem, response) == 1.0
    assert (terse == 0) == (label is None)


def test_without_the_leak_the_corpus_is_what_it_was() -> None:
    """Its share is not even drawn: the shipped policies can be trained again to the same weights."""
    ledger = draw_ledger(random.Random(3), ops=6, swaps=1)
    rng, other = random.Random(5), random.Random(5)
    assert write_response(rng, ledger, label=StepType.SIGN, habits=Habits()) == write_response(
        other, ledger, label=StepType.SIGN, habits=Habits(terse=0.0)
    )
    assert rng.random() == other.random()


def test_a_terse_line_is_right_and_in_no_span() -> None:
    rng = random.Random("spans")
    spans = 0
    for problem in TASK.problems(split="train", seed=1, start=0, count=200):
        label = rng.choice(list(StepType))
        response = write_response(rng, problem.data, label=label, habits=Habits(hard=0.5, terse=0.5))
        correct = bool(TASK.verify(problem, response))
        annotation = TASK.annotate(problem, response, correct=correct)
        texts = [response[span.start : span.end] for span in annotation.spans]
        assert all(" " in text for text in texts), texts
        spans += len(texts)
    assert spans > 100


def test_what_is_wrong_behind_a_terse_line_is_found_in_its_place() -> None:
    problem = next(
        p
        for p in TASK.problems(split="train", seed=2, start=0, count=200)
        if [kind for kind, _ in lines_by_step(p.data)][:2] == [OpKind.ADD, OpKind.SUBTRACT_NEGATIVE]
    )
    (_, (first,)), (_, (second,)) = lines_by_step(problem.data)[:2]
    head, _, rest = second.text.partition(" + ")
    wrong = f"{head} - {rest.split(' ')[0]} = 00"
    response = "\n".join([first.terse, wrong, "00", "00", "answer 00"])
    annotation = TASK.annotate(problem, response, correct=False)
    (span,) = annotation.spans
    assert span.kind == StepType.SIGN
    assert response[: span.start].count("\n") == 1
    assert response[span.start : span.end] in wrong
