"""One optimizer step on Megatron's schedules: forward and backward over micro-batches, reduce, clip, update.

The weights of the loss already hold global denominators, so nothing may divide again: Megatron's token division is
turned off by finalising gradients without a token count, and DDP sums over data-parallel ranks
(`calculate_per_token_loss`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.optimizer import MegatronOptimizer, OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
from megatron.core.pipeline_parallel import get_forward_backward_func
from torch import Tensor

from megatron_bridge.losses import RoutedLoss, routed_linear_loss
from megatron_bridge.model.gpt import RoutedGPTModel, bare
from megatron_bridge.run_file import OptimizerSettings
from megatron_bridge.training.microbatch import MicroBatch
from megatron_bridge.training.teacher import SelfTeacherModel


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StepResult:
    """loss: the global objective; loss_C: its part from each channel; both summed over data-parallel ranks.

    logp_gap: mean |log-prob now - log-prob when sampled| over routed tokens; entropy, nats a token; clip_fraction of
    routed policy-gradient tokens; grad_norm before clipping; lr that the step used; mismatch, mismatch_max: mean and
    largest |trainer's - engine's log-prob| over routed tokens that the weights of this step drew, None without any.
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


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trainer:
    """The policy under Megatron's DDP with its optimizer and learning-rate scheduler."""

    model: DistributedDataParallel
    optimizer: MegatronOptimizer
    scheduler: OptimizerParamScheduler


def make_trainer(policy: RoutedGPTModel, settings: OptimizerSettings, steps: int) -> Trainer:
    """Wrap a policy for training. Call inside `megatron_runtime()`. Collective: parameters are broadcast over dp."""
    config = policy.config
    config.calculate_per_token_loss = True  # DDP then sums over data-parallel ranks instead of averaging
    model = DistributedDataParallel(config, DistributedDataParallelConfig(grad_reduce_in_fp32=True), policy)
    model.broadcast_params()
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
        ),
        [model],
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
    )
    config.grad_scale_func = optimizer.scale_loss
    config.no_sync_func = model.no_sync
    config.finalize_model_grads_func = _finalize_without_token_count
    return Trainer(model=model, optimizer=optimizer, scheduler=scheduler)


def _finalize_without_token_count(model: list[torch.nn.Module], _num_tokens: Tensor, **kwargs: Any) -> None:
    finalize_model_grads(model, None, **kwargs)


def accumulate_gradients(
    model: torch.nn.Module,
    micro_batches: Sequence[MicroBatch],
    teachers: Sequence[SelfTeacherModel],
    *,
    temperature: float,
    vocab_size: int,
) -> list[dict[str, Tensor]]:
    """Run all micro-batches forward and backward; gradients end up reduced in Megatron's buffers.

    Returns the metric sums of each micro-batch. Collectives: those of the layers and of `routed_linear_loss` (tp),
    one reduction of the gradients (dp).
    """

    def forward_step(batches: Iterator[MicroBatch], network: torch.nn.Module) -> tuple[Tensor, Any]:
        batch = next(batches)
        teacher_hidden = {}
        for teacher in teachers:
            rows = teacher.hidden_rows(batch, batch.routing.teacher_tokens(teacher.teacher.name))
            if rows is not None:
                teacher_hidden[teacher.teacher.name] = rows
        sequences = batch.sequences
        hidden_sbH = network(sequences.ids_bs, sequences.positions_bs, None, return_hidden=True)

        def loss_function(hidden_sbH: Tensor) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
            result = routed_linear_loss(
                sequences.predictors(hidden_sbH),
                bare(network).output_weight(),
                target_T=batch.target_T,
                old_logp_T=batch.old_logp_T,
                proximal_logp_T=batch.proximal_logp_T,
                routing=batch.routing,
                teacher_hidden=teacher_hidden,
                temperature=temperature,
                vocab_size=vocab_size,
                tp_group=parallel_state.get_tensor_model_parallel_group(),
                gradient_accumulation_fusion=bare(network).config.gradient_accumulation_fusion,
            )
            tokens = torch.tensor(len(batch.target_T), dtype=torch.int, device=batch.target_T.device)
            return result.loss, tokens, _sums(result, batch)

        return hidden_sbH, loss_function

    return get_forward_backward_func()(
        forward_step_func=forward_step,
        data_iterator=iter(micro_batches),
        model=[model],
        num_microbatches=len(micro_batches),
        seq_length=max(b.sequences.ids_bs.shape[1] for b in micro_batches),
        micro_batch_size=micro_batches[0].sequences.ids_bs.shape[0],
    )


def train_step(
    trainer: Trainer,
    micro_batches: Sequence[MicroBatch],
    teachers: Sequence[SelfTeacherModel],
    *,
    step: int,
    temperature: float,
    vocab_size: int,
) -> StepResult:
    """One optimizer step. Raises FloatingPointError, with the weights as they were, when the loss is not finite."""
    trainer.model.zero_grad_buffer()
    trainer.optimizer.zero_grad()
    parts = accumulate_gradients(trainer.model, micro_batches, teachers, temperature=temperature, vocab_size=vocab_size)
    sums = {name: torch.stack([part[name] for part in parts]).sum(0) for name in parts[0] if name != "mismatch_max"}
    for total in sums.values():
        dist.all_reduce(total, group=parallel_state.get_data_parallel_group())
    mismatch_max = torch.stack([part["mismatch_max"] for part in parts]).max()
    dist.all_reduce(mismatch_max, op=dist.ReduceOp.MAX, group=parallel_state.get_data_parallel_group())
    loss = float(sums["loss_C"].sum())
    if not torch.isfinite(sums["loss_C"]).all():
        raise FloatingPointError(f"the loss of step {step} is {loss}")
    lr = trainer.optimizer.param_groups[0]["lr"]
    _, grad_norm, _ = trainer.optimizer.step()
    trainer.scheduler.step(increment=1)
    evaluated = max(float(sums["evaluated"]), 1.0)
    return StepResult(
        loss=loss,
        loss_C=tuple(sums["loss_C"].tolist()),
        logp_gap=float(sums["logp_gap"]) / evaluated,
        entropy=float(sums["entropy"]) / evaluated,
        clip_fraction=float(sums["clipped"]) / evaluated,
        grad_norm=float(grad_norm),
        lr=float(lr),
        mismatch=float(sums["mismatch"] / sums["fresh"]) if sums["fresh"] else None,
        mismatch_max=float(mismatch_max) if sums["fresh"] else None,
    )


def _sums(result: RoutedLoss, batch: MicroBatch) -> dict[str, Tensor]:
    """Sums over one micro-batch, float64, that add up over micro-batches and data-parallel ranks, and one maximum."""
    stats = result.stats
    routed_T = (batch.routing.weight_CT != 0).any(0)
    change_T = (stats.logp_T - batch.old_logp_T).abs()
    mismatch_t = change_T[routed_T & batch.fresh_T].double()
    return {
        "loss_C": result.loss_C.double(),
        "evaluated": routed_T.double().sum(),
        "logp_gap": change_T[routed_T].double().sum(),
        "entropy": stats.entropy_T[routed_T].double().sum(),
        "clipped": stats.clipped_T[routed_T].double().sum(),
        "fresh": torch.tensor(float(len(mismatch_t)), dtype=torch.float64, device=mismatch_t.device),
        "mismatch": mismatch_t.sum(),
        "mismatch_max": mismatch_t.max() if len(mismatch_t) else mismatch_t.sum(),
    }
