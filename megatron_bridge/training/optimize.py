"""One optimizer step on Megatron's schedules: forward and backward over micro-batches, reduce, clip, update.

The weights of the loss already hold global denominators, so nothing may divide again: Megatron's token division is
turned off by finalising gradients without a token count, and DDP sums over data-parallel ranks
(`calculate_per_token_loss`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from megatron.core import parallel_state
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.optimizer import MegatronOptimizer, OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
from torch import Tensor

from megatron_bridge.losses import routed_linear_loss
from megatron_bridge.model.gpt import bare
from megatron_bridge.run_settings import OptimizerSettings
from megatron_bridge.training.forward import hidden_states, predictors, run_schedule
from megatron_bridge.training.microbatch import MicroBatch, Share
from megatron_bridge.training.step_sums import Credit, LossSums, credit_of, losses_of, over_ranks, token_sums
from megatron_bridge.training.stopped import NotFinite, SpoiledTokens, find_not_finite
from megatron_bridge.training.teacher import TeacherModel, TeacherRows
from megatron_bridge.training.timings import Timings


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepResult:
    """loss: the global objective; loss_C: its part from each channel; both summed over data-parallel ranks.

    logp_gap: mean |log-prob now - log-prob when sampled| over routed tokens; entropy, nats a token; clip_fraction of
    the tokens with weight on a policy gradient or cispo, 0 without any; grad_norm before clipping; lr that the step
    used; mismatch, mismatch_max: mean and largest |trainer's - engine's log-prob| over routed tokens that the weights
    of this step drew, mismatch_kl the k3 estimate of KL(engine || trainer) there, None without any; losses: of each
    loss of the spec, in the order of the routing's.
    """

    loss: float
    loss_C: tuple[float, ...]
    logp_gap: float
    entropy: float
    clip_fraction: float
    grad_norm: float
    lr: float
    mismatch: float | None
    mismatch_max: float | None
    mismatch_kl: float | None
    losses: tuple[LossSums, ...]
    credit: Credit


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trainer:
    """The policy, its chunks under Megatron's DDP, with its optimizer and learning-rate scheduler."""

    model: torch.nn.ModuleList
    optimizer: MegatronOptimizer
    scheduler: OptimizerParamScheduler


def make_trainer(policy: torch.nn.ModuleList, settings: OptimizerSettings, steps: int) -> Trainer:
    """Wrap a policy for training. Call inside `megatron_runtime()`. Collective: parameters are broadcast (dp, cp).

    With `settings.distributed` each data-parallel rank holds a part of the optimizer's state; gradients are then
    reduced while the backward pass goes on.
    """
    config = bare(policy[0]).config  # of all chunks
    config.calculate_per_token_loss = True  # DDP then sums over data-parallel ranks instead of averaging
    ddp = DistributedDataParallelConfig(
        grad_reduce_in_fp32=True,
        use_distributed_optimizer=settings.distributed,
        overlap_grad_reduce=settings.distributed,
    )
    chunks = [DistributedDataParallel(config, ddp, chunk) for chunk in policy]
    for chunk in chunks:
        chunk.broadcast_params()
    optimizer = get_megatron_optimizer(
        OptimizerConfig(
            optimizer="adam",
            lr=settings.lr,
            min_lr=settings.min_lr,
            weight_decay=settings.weight_decay,
            adam_beta1=settings.beta1,
            adam_beta2=settings.beta2,
            adam_eps=settings.eps,
            clip_grad=settings.clip_grad,
            bf16=config.bf16,
            params_dtype=config.params_dtype,
            use_distributed_optimizer=settings.distributed,
        ),
        chunks,
    )
    scheduler = OptimizerParamScheduler(
        optimizer,
        init_lr=0.0,
        max_lr=settings.lr,
        min_lr=settings.min_lr,
        lr_warmup_steps=settings.warmup,
        lr_decay_steps=max(steps, settings.warmup + 1),
        lr_decay_style=settings.decay,
        start_wd=settings.weight_decay,
        end_wd=settings.weight_decay,
        wd_incr_steps=steps,
        wd_incr_style="constant",
        # the run file's settings count, also in a run that goes on from a checkpoint made under others
        use_checkpoint_opt_param_scheduler=False,
        override_opt_param_scheduler=True,
    )
    config.grad_scale_func = optimizer.scale_loss
    # megatron-core's schedules take these one by one where a pipeline is interleaved, and alone where it is not
    no_sync, start_sync = [chunk.no_sync for chunk in chunks], [chunk.start_grad_sync for chunk in chunks]
    config.no_sync_func = no_sync if len(chunks) > 1 else no_sync[0]
    if settings.distributed and config.pipeline_model_parallel_size > 1:
        config.grad_sync_func = start_sync if len(chunks) > 1 else start_sync[0]
    config.finalize_model_grads_func = _finalize_without_token_count
    return Trainer(model=torch.nn.ModuleList(chunks), optimizer=optimizer, scheduler=scheduler)


def _finalize_without_token_count(model: list[torch.nn.Module], _num_tokens: Tensor, **kwargs: Any) -> None:
    finalize_model_grads(model, None, **kwargs)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Item:
    """A micro-batch and the teachers' rows for it."""

    batch: MicroBatch
    teachers: Mapping[str, TeacherRows]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Accumulated:
    """sums: over all micro-batches and ranks, float64, by name; spoiled: this rank's tokens whose loss is
    not finite, on the last stage.
    """

    sums: Mapping[str, Tensor]
    spoiled: tuple[SpoiledTokens, ...]


def accumulate_gradients(
    model: torch.nn.ModuleList,
    micro_batches: Sequence[MicroBatch],
    teachers: Sequence[TeacherModel],
    part: Share,
    *,
    temperature: float,
    vocab_size: int,
    chunk_rows: int | None = None,
    timings: Timings | None = None,
) -> Accumulated:
    """Run all micro-batches forward and backward; gradients end up reduced in Megatron's buffers.

    Collectives: those of the layers and of
    `routed_linear_loss` (tp), of the teachers, from stage to stage (pp), one reduction of the gradients (dp, cp), the
    sums.
    """
    timings = timings or Timings()
    with timings.part("teacher"):
        rows = {
            teacher.teacher.name: teacher.hidden_rows(
                micro_batches, [b.routing.teacher_tokens(teacher.teacher.name) for b in micro_batches], part
            )
            for teacher in teachers
        }
    items = [
        _Item(batch=batch, teachers={name: found[n] for name, found in rows.items() if found[n] is not None})
        for n, batch in enumerate(micro_batches)
    ]

    def forward_step(waiting: Iterator[_Item], network: torch.nn.Module) -> tuple[Tensor, Any]:
        item = next(waiting)
        sequences = item.batch.sequences
        hidden_sbH = hidden_states(network, sequences)

        def loss_function(hidden_sbH: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
            here = item.batch.take(sequences.here_t)
            result = routed_linear_loss(
                predictors(network, hidden_sbH, sequences),
                bare(network).output_weight(),
                target_T=here.target_T,
                old_logp_T=here.old_logp_T,
                proximal_logp_T=here.proximal_logp_T,
                routing=here.routing,
                teacher_hidden={name: found.for_loss() for name, found in item.teachers.items()},
                temperature=temperature,
                vocab_size=vocab_size,
                chunk_rows=chunk_rows,
                tp_group=parallel_state.get_tensor_model_parallel_group(),
                gradient_accumulation_fusion=bare(network).config.gradient_accumulation_fusion,
            )
            tokens = torch.tensor(len(here.target_T), dtype=torch.int, device=here.target_T.device)
            return result.loss, tokens, (token_sums(result, here), SpoiledTokens.of(result, here))

        return hidden_sbH, loss_function

    with timings.part("forward_backward"):
        results = run_schedule(forward_step, model, items)
    return Accumulated(
        sums=over_ranks([sums for sums, _ in results], micro_batches[0].routing),
        spoiled=tuple(spoiled for _, spoiled in results),
    )


def train_step(
    trainer: Trainer,
    micro_batches: Sequence[MicroBatch],
    teachers: Sequence[TeacherModel],
    part: Share,
    *,
    temperature: float,
    vocab_size: int,
    chunk_rows: int | None = None,
    timings: Timings | None = None,
) -> StepResult | NotFinite:
    """One optimizer step; or, with every weight as it was on every rank, what is not finite in its loss or gradient.

    Collectives: those of `accumulate_gradients`, `find_not_finite` and the optimizer.
    """
    for chunk in trainer.model:
        chunk.zero_grad_buffer()
    trainer.optimizer.zero_grad()
    accumulated = accumulate_gradients(
        trainer.model,
        micro_batches,
        teachers,
        part,
        temperature=temperature,
        vocab_size=vocab_size,
        chunk_rows=chunk_rows,
        timings=timings,
    )
    sums = accumulated.sums
    trainer.optimizer.prepare_grads()
    grad_norm = float(trainer.optimizer.get_grad_norm())
    found = find_not_finite(trainer.model, sums["loss_C"], grad_norm, accumulated.spoiled)
    if found is not None:
        return found
    lr = trainer.optimizer.param_groups[0]["lr"]
    updated, _, _ = trainer.optimizer.step()
    assert updated  # it only ever leaves out a step whose gradients overflow
    trainer.scheduler.step(increment=1)
    evaluated = max(float(sums["evaluated"]), 1.0)
    return StepResult(
        loss=float(sums["loss_C"].sum()),
        loss_C=tuple(sums["loss_C"].tolist()),
        logp_gap=float(sums["logp_gap"]) / evaluated,
        entropy=float(sums["entropy"]) / evaluated,
        clip_fraction=float(sums["clipped"]) / max(float(sums["ratios"]), 1.0),
        grad_norm=grad_norm,
        lr=float(lr),
        mismatch=float(sums["mismatch"] / sums["fresh"]) if sums["fresh"] else None,
        mismatch_max=float(sums["mismatch_max"]) if sums["fresh"] else None,
        mismatch_kl=float(sums["mismatch_kl"] / sums["fresh"]) if sums["fresh"] else None,
        losses=losses_of(sums),
        credit=credit_of(sums),
    )
