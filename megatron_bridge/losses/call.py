"""From the arguments of a call to what a sweep evaluates: the part that both forms of the loss share.

Legend: T tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch.distributed as dist
from torch import Tensor

from megatron_bridge.chunk_rows import default_chunk_rows
from megatron_bridge.losses.checks import check_call, live_channels
from megatron_bridge.losses.inputs import PolicyLogProbs, SweepInputs
from megatron_bridge.losses.student import Student
from megatron_bridge.losses.teacher import TeacherRows
from trace_dsl.lowering.fused import FusedRouting, teacher_of

NO_POLICIES: Mapping[str, Tensor] = MappingProxyType({})


def sweep_inputs(
    student_of: Callable[[int], Student],
    teacher_rows: Callable[..., TeacherRows],
    given_teachers: Mapping[str, Any],
    *,
    shard: int,
    target_T: Tensor,
    old_logp_T: Tensor | None,
    proximal_logp_T: Tensor | None,
    reference_logp: Mapping[str, Tensor],
    routing: FusedRouting,
    temperature: float,
    vocab_size: int | None,
    tp_group: dist.ProcessGroup | None,
    chunk_rows: int | None,
    evaluate_all: bool,
) -> SweepInputs:
    """Check a call and make ready what it reads.

    student_of: the student with so many true columns on this rank; teacher_rows: `HiddenTeacherRows.of` or
    `GivenTeacherRows.of`, for the teachers that channels with weight read. Raises as `routed_linear_loss`.
    """
    world, rank = (1, 0) if tp_group is None else (tp_group.size(), tp_group.rank())
    vocabulary = shard * world if vocab_size is None else vocab_size
    policies = PolicyLogProbs.of(old_logp_T, proximal_logp_T, reference_logp)
    check_call(
        target_T=target_T,
        policies=policies,
        routing=routing,
        temperature=temperature,
        vocabulary=vocabulary,
        padded_vocabulary=shard * world,
        chunk_rows=chunk_rows,
    )
    columns = min(max(vocabulary - rank * shard, 0), shard)
    student = student_of(columns)
    live = live_channels(routing)
    teachers = {}
    for name in dict.fromkeys(teacher for channel in live if (teacher := teacher_of(routing.kernels[channel]))):
        if name not in given_teachers:
            raise ValueError(f"no rows of teacher {name!r}: given are {sorted(given_teachers) or 'none'}")
        teachers[name] = teacher_rows(
            name,
            given_teachers[name],
            routing=routing,
            shard=shard,
            columns=columns,
            temperature=temperature,
            dtype=student.dtype,
        )
    return SweepInputs(
        student=student,
        teachers=teachers,
        target_T=target_T,
        policies=policies,
        routing=routing,
        live=frozenset(live),
        temperature=temperature,
        shard=shard,
        vocabulary=vocabulary,
        tp_group=tp_group if world > 1 else None,
        chunk_rows=chunk_rows or default_chunk_rows(target_T.numel(), shard, target_T.device.type),
        evaluate_all=evaluate_all,
    )
