"""The global batch of one optimizer step, as `lower` sees it: facts about rollouts, no weights, no hidden states.

Legend: R rollouts (rows), T response tokens, row after row. An empty response is a row of length 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from trace_dsl.model import PLAIN_ROWS, UNJUDGED_ROWS
from trace_dsl.terms import Signal


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenSpan:
    """Tokens [start, end) of response `row` that the annotator gave `label`, counted from the response's first
    token.
    """

    row: int
    label: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RolloutBatch:
    """All rollouts that one optimizer step trains on, over all ranks.

    length_R: int64 response tokens; reward_R: float64; correct_R: bool, the verifier's outcome; group_R: int64,
    rollouts of one prompt share a number; source_R: the rollout source's name per row; old_logp_T: float32 log-probs
    of the sampled tokens when they were drawn, at the sampling temperature; from_model_T: bool, False for tool
    output; contexts: for each privileged context ("diagnosis", "solution", ...) which rows have it, bool [R];
    measured: token signals that need a forward pass (logp, entropy, teacher_logp, teacher_entropy, ...), float [T].
    """

    length_R: Tensor
    reward_R: Tensor
    correct_R: Tensor
    group_R: Tensor
    old_logp_T: Tensor
    from_model_T: Tensor
    spans: tuple[TokenSpan, ...] = ()
    source_R: tuple[str, ...] = ()
    contexts: tuple[tuple[str, Tensor], ...] = ()
    measured: tuple[tuple[Signal, Tensor], ...] = ()
    row_of_T: Tensor = field(init=False)
    start_R: Tensor = field(init=False)

    def __post_init__(self) -> None:
        rows, tokens = len(self.length_R), int(self.length_R.sum())
        per_row = {"reward_R": self.reward_R, "correct_R": self.correct_R, "group_R": self.group_R}
        per_row |= {f"contexts[{name}]": has_R for name, has_R in self.contexts}
        per_token = {"old_logp_T": self.old_logp_T, "from_model_T": self.from_model_T}
        per_token |= {f"measured[{signal.name}]": value_T for signal, value_T in self.measured}
        for wanted, tensors in ((rows, per_row), (tokens, per_token)):
            for name, tensor in tensors.items():
                if tuple(tensor.shape) != (wanted,):
                    raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected ({wanted},)")
        if not self.source_R:
            object.__setattr__(self, "source_R", (PLAIN_ROWS,) * rows)
        if len(self.source_R) != rows:
            raise ValueError(f"source_R names {len(self.source_R)} rows, expected {rows}")
        object.__setattr__(self, "row_of_T", torch.repeat_interleave(torch.arange(rows), self.length_R))
        object.__setattr__(self, "start_R", self.length_R.cumsum(0) - self.length_R)
        for span in self.spans:
            if not (0 <= span.row < rows and 0 <= span.start <= span.end <= int(self.length_R[span.row])):
                raise ValueError(f"{span} lies outside its response")

    @property
    def rows(self) -> int:
        return len(self.length_R)

    @property
    def tokens(self) -> int:
        return len(self.old_logp_T)

    @property
    def written_T(self) -> Tensor:
        """int64 [T]: how many tokens of its response the model wrote, 0 at those that it did not write."""
        written_R = torch.zeros(self.rows, dtype=torch.int64).index_add(0, self.row_of_T, self.from_model_T.long())
        return torch.where(self.from_model_T, written_R[self.row_of_T], 0)

    @property
    def judged_R(self) -> Tensor:
        """bool [R]: False for responses without a verdict, whose rewards say nothing."""
        return torch.tensor([source != UNJUDGED_ROWS for source in self.source_R], dtype=torch.bool)

    def has(self, context: str) -> Tensor:
        """bool [R]: which rows have a privileged context; all False for one the batch does not carry."""
        return dict(self.contexts).get(context, torch.zeros(self.rows, dtype=torch.bool))

    def measurement(self, signal: Signal) -> Tensor | None:
        """float [T]: the values of a measured signal, NaN at tokens that have none; None when it was not measured."""
        return dict(self.measured).get(signal)
