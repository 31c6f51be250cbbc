"""Forward passes to the last hidden states, through Megatron's schedules: the same code under every layout.

Legend: s places of a sequence on this rank, b sequences, t response tokens predicted on this rank, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.tensor_parallel import gather_from_sequence_parallel_region
from torch import Tensor

from megatron_bridge.model.gpt import bare
from megatron_bridge.model.shape import micro_batch_group
from megatron_bridge.training.microbatch import Sequences

Kept = TypeVar("Kept")


def hidden_states(network: torch.nn.Module, sequences: Sequences) -> Tensor:
    """[s, b, H] on the last stage; before it, what the next stage reads."""
    hidden_sbH: Tensor = network(
        sequences.ids_bs, sequences.positions_bs, None, packed_seq_params=sequences.packed, return_hidden=True
    )
    return hidden_sbH


def predictors(network: torch.nn.Module, hidden_sbH: Tensor, sequences: Sequences) -> Tensor:
    """[t, H]: the hidden states that predict the response tokens `sequences.here_t`, on the last stage.

    Their gradient must come in complete on every tensor-parallel rank, as `routed_linear_loss` gives it. Collectives:
    with sequence parallelism, one all-gather over tp.
    """
    if bare(network).config.sequence_parallel:
        hidden_sbH = gather_from_sequence_parallel_region(hidden_sbH, tensor_parallel_output_grad=False)
    return hidden_sbH[sequences.at_t, sequences.row_t]


def run_schedule(
    step: Callable[[Iterator[Any], torch.nn.Module], tuple[Tensor, Callable[..., Any]]],
    model: torch.nn.ModuleList,
    items: Sequence[Any],
    *,
    forward_only: bool = False,
) -> list[Any]:
    """Put `items`, one a micro-batch, through Megatron's schedule of the layout.

    step: as Megatron's `forward_step_func`. What the loss functions return is there on the last stage; elsewhere the
    list is empty. Collectives: those of the layers; from stage to stage; not `forward_only`: one reduction of the
    gradients.

    An interleaved pipeline needs an item for each stage at least.
    """
    if not items:
        return []
    if len(model) > 1:
        config = bare(model[0]).config
        stages = config.pipeline_model_parallel_size
        config.microbatch_group_size_per_vp_stage = micro_batch_group(len(items), stages)
    results: list[Any] = get_forward_backward_func()(
        forward_step_func=step,
        data_iterator=[iter(items) for _ in model],
        model=list(model),
        num_microbatches=len(items),
        seq_length=1,  # unused: stages tell each other the shapes (config.variable_seq_lengths)
        micro_batch_size=1,
        forward_only=forward_only,
        collect_non_loss_data=forward_only,
    )
    return results


def _as_they_are(_number: int, hidden_tH: Tensor) -> Tensor:
    return hidden_tH


@torch.no_grad()
def hidden_rows(
    model: torch.nn.ModuleList, batches: Sequence[Sequences], kept: Callable[[int, Tensor], Kept] = _as_they_are
) -> list[Kept]:
    """What `kept` makes of the number and the [t, H] of each of `batches`, without a gradient; on stages before the
    last an empty list. The rows of one batch are let go of before the next one is run.
    """

    def step(waiting: Iterator[tuple[int, Sequences]], network: torch.nn.Module) -> tuple[Tensor, Callable[..., Kept]]:
        number, sequences = next(waiting)
        hidden_sbH = hidden_states(network, sequences)

        def rows(hidden_sbH: Tensor, **_kwargs: Any) -> Kept:
            return kept(number, predictors(network, hidden_sbH, sequences))

        return hidden_sbH, rows

    return run_schedule(step, model, _enough(batches, model), forward_only=True)[: len(batches)]


def _enough(batches: Sequence[Sequences], model: torch.nn.ModuleList) -> list[tuple[int, Sequences]]:
    """The batches with their numbers, and the smallest of them again as often as an interleaved pipeline wants more."""
    numbered = list(enumerate(batches))
    if len(model) == 1 or not batches:
        return numbered
    missing = bare(model[0]).config.pipeline_model_parallel_size - len(batches)
    return [*numbered, *[min(numbered, key=lambda one: one[1].ids_bs.numel())] * missing]
