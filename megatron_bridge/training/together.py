"""What ranks do together: a failure on one of them is the same error on every one, and one rank asks for several."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch.distributed as dist
from megatron.core import parallel_state

from trace_dsl.errors import TraceError

T = TypeVar("T")


def agreed(compute: Callable[[], T]) -> T:
    """What `compute` gives on this rank. A TraceError or OSError on any rank is raised on all, that of the lowest.

    Collective: an all-gather of objects over all ranks. A collective inside `compute` must be one in which a rank that
    raises does not leave others waiting.
    """
    if dist.get_world_size() == 1:
        return compute()
    failure: TraceError | OSError | None = None
    value: list[T] = []
    try:
        value.append(compute())
    except (TraceError, OSError) as error:
        failure = error
    failures = gathered(failure, dist.group.WORLD)
    for found in failures:
        if found is not None:
            raise found
    return value[0]


def told_by_first(compute: Callable[[], T]) -> T:
    """What `compute` gives on the first rank of those that hold one copy of the model (tp x pp), on every rank of them;
    its TraceError or OSError too.

    Collective: a broadcast of an object over tp x pp.
    """
    group = parallel_state.get_model_parallel_group()
    if dist.get_world_size(group) == 1:
        return compute()
    told: list[tuple[T | None, TraceError | OSError | None]] = [(None, None)]
    if dist.get_rank(group) == 0:
        try:
            told = [(compute(), None)]
        except (TraceError, OSError) as error:
            told = [(None, error)]
    dist.broadcast_object_list(told, group=group, group_src=0)
    value, failure = told[0]
    if failure is not None:
        raise failure
    return value


def gathered(mine: T, group: dist.ProcessGroup) -> list[T]:
    """`mine` of every rank of `group`, in rank order. One all-gather of objects when there are several."""
    parts = [mine] * dist.get_world_size(group)
    if len(parts) > 1:
        dist.all_gather_object(parts, mine, group=group)
    return parts
