"""Controls change one thing of an annotation and keep all else."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from megatron_bridge.annotation import Annotation, Problem
from megatron_bridge.tasks import get_task
from megatron_bridge.tasks.ledger import LedgerTask
from megatron_bridge.tasks.ledger_controls import NOISY_PRECISION, Control
from megatron_bridge.tasks.ledger_corpus import Habits, write_response

PLAIN = LedgerTask()


def annotated() -> Iterator[tuple[Problem, str, bool, Annotation]]:
    """Responses with spans, of which the annotator says something."""
    rng = random.Random(7)
    for problem in PLAIN.problems(split="train", seed=5, start=0, count=400):
        response = write_response(rng, problem.data, label=None, habits=Habits(hard=0.5))
        correct = PLAIN.verify(problem, response) == 1.0
        annotation = PLAIN.annotate(problem, response, correct=correct)
        if annotation.spans:
            yield problem, response, correct, annotation


CASES = list(annotated())


def under(control: Control) -> Iterator[tuple[Annotation, Annotation, str]]:
    task = get_task(f"ledger-{control}")
    assert isinstance(task, LedgerTask)
    for problem, response, correct, right in CASES:
        found = task.annotate(problem, response, correct=correct)
        assert found == task.annotate(problem, response, correct=correct)
        yield right, found, response


def characters(annotation: Annotation) -> set[int]:
    return {place for span in annotation.spans for place in range(span.start, span.end)}


def lengths(annotation: Annotation) -> list[int]:
    return sorted(span.end - span.start for span in annotation.spans)


def test_random_spans_are_as_long_and_elsewhere() -> None:
    moved, hit = 0, []
    for right, found, response in under(Control.RANDOM):
        assert found.diagnosis == right.diagnosis
        assert lengths(found) == lengths(right)
        assert characters(found) <= set(range(len(response)))
        moved += found.spans != right.spans
        hit.append(len(characters(found) & characters(right)) / len(characters(right)))
    assert moved > 0.9 * len(CASES)
    assert 0.05 < sum(hit) / len(hit) < 0.35  # a random place meets the right one about as often as its share


def test_inverted_spans_touch_no_right_one() -> None:
    kept = 0
    for right, found, _ in under(Control.INVERTED):
        assert not characters(found) & characters(right)
        assert found.diagnosis == right.diagnosis
        kept += lengths(found) == lengths(right)
    assert kept > 0.9 * len(CASES)


def test_shuffled_labels_are_another_type_at_the_same_place() -> None:
    for right, found, _ in under(Control.SHUFFLED):
        assert characters(found) == characters(right)
        assert found.diagnosis != right.diagnosis
        assert {span.kind for span in found.spans} == {found.diagnosis}
        assert [span.label for span in found.spans] == [span.label for span in right.spans]


def test_a_noisy_annotator_has_the_stated_precision() -> None:
    right_ones = sum(right == found for right, found, _ in under(Control.NOISY))
    assert right_ones / len(CASES) == pytest.approx(NOISY_PRECISION, abs=4 * (0.24 / len(CASES)) ** 0.5)
    assert all(right.diagnosis != found.diagnosis for right, found, _ in under(Control.NOISY) if right != found)


def test_what_has_no_span_stays_as_it_is() -> None:
    problem = CASES[0][0]
    for control in Control:
        assert LedgerTask(control).annotate(problem, "", correct=False) == Annotation()
