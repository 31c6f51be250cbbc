"""Which tokens carry which span label, after the caps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from trace_dsl.lowering.batch import RolloutBatch
from trace_dsl.model import SpanLabel


def label_mask(batch: RolloutBatch, label: SpanLabel) -> Tensor:
    """bool [T]: the tokens of `label`, at most floor(cap x length) of them in each response.

    Spans are taken in order of their start; the one that would pass the cap is cut at its end, later ones are
    dropped.
    A token covered twice counts once.
    """
    mask_T = torch.zeros(batch.tokens, dtype=torch.bool)
    length_R, start_R = batch.length_R.tolist(), batch.start_R.tolist()
    left: dict[int, int] = {}
    for span in sorted((s for s in batch.spans if s.label == label.name), key=lambda s: (s.row, s.start, s.end)):
        length, first = length_R[span.row], start_R[span.row]
        if span.row not in left:
            left[span.row] = length if label.cap is None else math.floor(round(label.cap * length, 9))
        covered_t = mask_T[first + span.start : first + span.end]
        fresh = (~covered_t).nonzero()[:, 0][: left[span.row]]
        covered_t[fresh] = True
        left[span.row] -= len(fresh)
    return mask_T


def label_masks(batch: RolloutBatch, labels: tuple[SpanLabel, ...]) -> dict[str, Tensor]:
    """The mask of every label of a plan, by name. Spans of other labels are not routed by it and are left out."""
    return {label.name: label_mask(batch, label) for label in labels}
