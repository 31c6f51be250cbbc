"""Rollouts that were asked for and are not trained on yet, as a checkpoint carries them.

With `rollout.staleness` servers draw ahead. Drawn again after a resume, these rollouts would be others, of newer
weights, and what servers had drawn would be lost. A checkpoint keeps what each sample has: whole ones are not drawn
again, the others go on from their tokens, each with the log-prob and the version of the weights that drew it.

Legend: S samples of an iteration over all ranks, prompts together; T their tokens, one sample behind the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from megatron_bridge.rollout.engine import Begun
from megatron_bridge.run_file import RunFile
from megatron_bridge.training.ahead import iterations_behind

Samples = list[list[Begun]]  # of each prompt of an iteration, over all ranks


@dataclass(slots=True, kw_only=True)
class RolloutBuffer:
    """What a checkpoint had, until it is asked for again. asked: what samples are drawn for; minibatches, staleness: as
    in the run file.
    """

    asked: Mapping[str, int | float]
    minibatches: int
    staleness: int
    _begun: dict[int, Samples] = field(default_factory=dict)

    @staticmethod
    def of(file: RunFile) -> RolloutBuffer:
        rollout = file.rollout
        asked = {
            "prompts": rollout.prompts,
            "group_size": rollout.group_size,
            "max_response_tokens": rollout.max_response_tokens,
            "temperature": rollout.temperature,
        }
        return RolloutBuffer(asked=asked, minibatches=file.minibatches, staleness=rollout.staleness)

    def take(self, iteration: int) -> Samples | None:
        """What the samples of an iteration have already, None where they are to be drawn from their beginning."""
        return self._begun.pop(iteration, None)

    def state(self, begun: Mapping[int, Samples], iteration: int, first: int) -> dict[str, Any]:
        """What a checkpoint before `iteration`, whose first prompt is at `first` in the data, carries of the samples
        that were begun, by iteration.
        """
        kept = sorted({**self._begun, **begun}.items())
        return {
            "asked": dict(self.asked),
            "first": first,
            "samples": [[number - iteration, *_packed(samples)] for number, samples in kept],
        }

    def restore(self, state: Mapping[str, Any] | None, iteration: int, first: int) -> None:
        """Go on before `iteration`, whose first prompt is at `first`, with what `state` has (None: nothing). Let go of
        is all where the run file asks for other samples now, and what would be staler than it allows.
        """
        self._begun = {}
        if state is None or state["asked"] != self.asked or state["first"] != first:
            return
        for later, *packed in state["samples"]:
            samples = _unpacked(*packed, group=int(self.asked["group_size"]))
            step = (iteration + later) * self.minibatches
            oldest = min((v for row in samples for one in row for v in one.weight_versions), default=step)
            if iterations_behind(oldest, step=step, minibatches=self.minibatches) <= self.staleness:
                self._begun[iteration + later] = samples


def _packed(samples: Samples) -> tuple[torch.Tensor, ...]:
    """int32 [S] tokens of each sample; of the tokens int32 [T] ids, float64 [T] log-probs, int32 [T] versions."""
    flat = [one for row in samples for one in row]

    def joined(parts: Sequence[Sequence[float]], dtype: torch.dtype) -> torch.Tensor:
        return torch.tensor([value for part in parts for value in part], dtype=dtype)

    return (
        torch.tensor([len(one.token_ids) for one in flat], dtype=torch.int32),
        joined([one.token_ids for one in flat], torch.int32),
        joined([one.logprobs for one in flat], torch.float64),
        joined([one.weight_versions for one in flat], torch.int32),
    )


def _unpacked(
    length_S: torch.Tensor, id_T: torch.Tensor, logprob_T: torch.Tensor, version_T: torch.Tensor, *, group: int
) -> Samples:
    lengths = length_S.tolist()
    parts = [torch.split(tensor_T, lengths) for tensor_T in (id_T, logprob_T, version_T)]
    flat = [
        Begun(token_ids=tuple(ids.tolist()), logprobs=tuple(logps.tolist()), weight_versions=tuple(versions.tolist()))
        for ids, logps, versions in zip(*parts, strict=True)
    ]
    return [flat[i : i + group] for i in range(0, len(flat), group)]
