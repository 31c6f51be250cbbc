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
    length_R, start_R = batch.length_R.tolist(), batch.start_R.tolist()
    left: dict[int, int] = {}
    reached: dict[int, int] = {}  # up to where spans that begin before this one have covered the response
    begins, ends = [], []
    for span in sorted((s for s in batch.spans if s.label == label.name), key=lambda s: (s.row, s.start, s.end)):
        row, length = span.row, length_R[span.row]
        if row not in left:
            left[row] = length if label.cap is None else math.floor(round(label.cap * length, 9))
        begin = max(span.start, reached.get(row, 0))
        end = min(span.end, length, begin + left[row])
        if end > begin:
            begins.append(start_R[row] + begin)
            ends.append(start_R[row] + end)
            left[row] -= end - begin
            reached[row] = end
    change_T = torch.zeros(batch.tokens + 1, dtype=torch.int32)
    # one span may begin where another ends
    change_T.index_add_(0, torch.tensor(begins, dtype=torch.int64), torch.ones(len(begins), dtype=torch.int32))
    change_T.index_add_(0, torch.tensor(ends, dtype=torch.int64), torch.full((len(ends),), -1, dtype=torch.int32))
    return change_T[:-1].cumsum(0) > 0


def label_masks(batch: RolloutBatch, labels: tuple[SpanLabel, ...]) -> dict[str, Tensor]:
    """The mask of every label of a plan, by name. Spans of other labels are not routed by it and are left out."""
    return {label.name: label_mask(batch, label) for label in labels}
