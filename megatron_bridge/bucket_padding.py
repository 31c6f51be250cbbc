"""Where parameters stand in the state that megatron-core's distributed optimizer gathers for a checkpoint.

A gradient buffer is cut into buckets, each padded at its end to what the data-parallel ranks can share. Version 0.16.1
leaves that padding out of what it gathers (`get_parameter_state_dp_zero`), but takes each parameter's part out of it at
the place that it has with the padding: behind a padded bucket every parameter is saved with a part of its neighbour's
state. A tied embedding on a pipeline's end, for one, has a bucket of its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest import mock


@contextlib.contextmanager
def places_without_padding(optimizer: Any) -> Iterator[None]:
    """Within this block the distributed optimizers inside `optimizer` find parameters at their places in what is
    gathered; others have no buffers, and nothing changes for them."""
    with contextlib.ExitStack() as stack:
        for part in getattr(optimizer, "chained_optimizers", [optimizer]):
            for buffer in getattr(part, "buffers", ()):
                stack.enter_context(mock.patch.object(buffer, "param_index_map", _unpadded(buffer)))
        yield


def _unpadded(buffer: Any) -> dict[Any, tuple[int, int, int]]:
    shift, held = {}, 0
    for number, bucket in enumerate(buffer.buckets):
        shift[number] = held - bucket.offset
        held += bucket.numel_unpadded
    return {
        parameter: (start + shift[bucket], end + shift[bucket], bucket)
        for parameter, (start, end, bucket) in buffer.param_index_map.items()
    }
