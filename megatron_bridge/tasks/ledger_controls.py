"""Annotations made worse on purpose, for controls: what remains of a gain when spans or labels say less?

arXiv 2605.10194 compares annotated spans with random and inverted masks of the same size, and with annotations of a
weaker model. Each control here changes one thing of the right annotation and keeps all else.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum

from megatron_bridge.annotation import AnnotatedSpan, Annotation
from megatron_bridge.tasks.ledger_steps import StepType

NOISY_PRECISION = 0.6  # the share of annotations that `noisy` leaves as they are


class Control(StrEnum):
    """random: spans stand at random places. inverted: at random places that the right spans do not touch. shuffled:
    spans stay, their type and the diagnosis are another type's. noisy: six annotations in ten stay; the others are
    both random and shuffled, as those of an annotator with a precision of 0.6 would be.
    """

    RANDOM = "random"
    INVERTED = "inverted"
    SHUFFLED = "shuffled"
    NOISY = "noisy"


def controlled(annotation: Annotation, control: Control, prompt: str, response: str) -> Annotation:
    """The annotation of a response under a control; a function of its arguments alone. Spans keep their lengths (an
    inverted one is cut where no gap is as long) and their number, but that inverted ones without any room vanish.
    """
    if not annotation.spans:
        return annotation
    rng = random.Random(zlib.crc32(f"{control}\n{prompt}\n{response}".encode()))
    match control:
        case Control.RANDOM:
            return _moved(annotation, [(0, len(response))], rng)
        case Control.INVERTED:
            return _moved(annotation, _gaps(annotation.spans, len(response)), rng)
        case Control.SHUFFLED:
            return _relabelled(annotation, rng)
        case Control.NOISY:
            if rng.random() < NOISY_PRECISION:
                return annotation
            return _relabelled(_moved(annotation, [(0, len(response))], rng), rng)


def _gaps(spans: Sequence[AnnotatedSpan], length: int) -> list[tuple[int, int]]:
    """The stretches of a response that no span touches."""
    edges = [0, *(edge for span in sorted(spans, key=lambda s: s.start) for edge in (span.start, span.end)), length]
    return [(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True) if start < end]


def _moved(annotation: Annotation, room: Sequence[tuple[int, int]], rng: random.Random) -> Annotation:
    """Each span at a place drawn from all at which it fits into one of the stretches."""
    spans = []
    for span in annotation.spans:
        size = min(span.end - span.start, max((end - start for start, end in room), default=0))
        starts = [start for begin, end in room for start in range(begin, end - size + 1)]
        if size and starts:
            start = rng.choice(starts)
            spans.append(replace(span, start=start, end=start + size))
    return replace(annotation, spans=tuple(sorted(spans, key=lambda s: s.start)))


def _relabelled(annotation: Annotation, rng: random.Random) -> Annotation:
    """One other type in place of the diagnosis, for all spans."""
    other = str(rng.choice([kind for kind in StepType if kind != annotation.diagnosis]))
    return replace(annotation, spans=tuple(replace(span, kind=other) for span in annotation.spans), diagnosis=other)
