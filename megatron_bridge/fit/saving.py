"""Bytes that writing a checkpoint takes beside the state that is written, on one rank.

With the distributed optimizer megatron-core brings main weights and both moments of all its ranks together, in float32
in host memory, on every one of them, bucket by bucket of its gradient buffers (`fully_reshardable`). What is written in
the background is copied to host memory first, on the ranks that write: one of those that hold the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from megatron_bridge.fit.memory import FLOAT
from megatron_bridge.fit.parameters import Parameters, parameters_of
from megatron_bridge.fit.teachers import TeacherLoad
from megatron_bridge.model.shape import Layout
from megatron_bridge.run_file import RunFile

_STATES = 3  # main weights, both moments
_BUCKET = 40_000_000  # parameters of one of megatron-core's, or 1,000,000 for each rank that shares the state


@dataclass(frozen=True, slots=True, kw_only=True)
class SavingBytes:
    """exchanged: on a GPU, a bucket on its way; gathered: in host memory until all ranks know what they write;
    copied: in host memory until it is written, while training goes on."""

    exchanged: int
    gathered: int
    copied: int


def saving_bytes(
    file: RunFile,
    parameters: Parameters,
    teachers: Sequence[TeacherLoad],
    *,
    stage: int,
    width: int,
) -> SavingBytes:
    """Of a rank that writes. What is copied are weights, the optimizer's state, and the teachers that a checkpoint
    carries: copies of the policy, of a moving average in bfloat16 the average."""
    layout, count = file.layout.layout, parameters.total
    of_optimizer = FLOAT * (_STATES if file.optim.distributed or width != FLOAT else _STATES - 1) * count
    carried = sum(
        (FLOAT if teacher.average else width) * parameters_of(teacher.shape, layout, stage).total
        for teacher in teachers
        if teacher.what != "model"
    )
    copied = width * count + of_optimizer + carried if file.checkpoint.asynchronous else 0
    if not file.optim.distributed:
        return SavingBytes(exchanged=0, gathered=0, copied=copied)
    bucket = FLOAT * _bucket(layout, parameters, stage)
    mine = bucket // (layout.dp * layout.cp)
    return SavingBytes(
        exchanged=mine + 2 * bucket,  # what is sent and received, and where the collective puts it
        # what came from each rank, and it joined, beside what was joined before
        gathered=FLOAT * _STATES * count + _STATES * mine + 3 * bucket,
        copied=copied,
    )


def _bucket(layout: Layout, parameters: Parameters, stage: int) -> int:
    """Parameters of the largest bucket: the first stage's are cut into several, those of a later one are one."""
    chunk = parameters.total // layout.vpp
    if stage > 0:
        return chunk
    return min(chunk, max(_BUCKET, 1_000_000 * layout.dp * layout.cp) + parameters.largest)
