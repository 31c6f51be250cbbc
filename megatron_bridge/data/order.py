"""The order in which rows are read: a pure function of seed and position, without a list of all rows.

Rows come in blocks that are cheap to read together. An epoch goes through the blocks in an order of its own, and
through the rows of each; one block that holds everything is a full shuffle.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate

_ROUNDS = 4


class Order:
    """Row numbers by position, epoch after epoch."""

    def __init__(self, blocks: Sequence[int], *, seed: int | None) -> None:
        """`blocks`: how many rows each holds; `seed` None: the rows as they stand. Raises ValueError without rows."""
        self._blocks = tuple(blocks)
        self._rows = sum(blocks)
        self._seed = seed
        if self._rows < 1:
            raise ValueError("an order needs at least one row")

    def row(self, position: int) -> int:
        """The number of the row at `position`, counted over all epochs. Raises ValueError below 0."""
        if position < 0:
            raise ValueError(f"position {position}: it is at least 0")
        epoch, offset = divmod(position, self._rows)
        if self._seed is None:
            return offset
        key = f"{self._seed}/{epoch}"
        order, ends = _blocks_of_epoch(self._blocks, key)
        place = bisect.bisect_right(ends, offset)
        block = order[place]
        inside = offset - (ends[place - 1] if place else 0)
        first = sum(self._blocks[:block]) if len(self._blocks) > 1 else 0
        return first + permuted(inside, self._blocks[block], f"{key}/{block}")


@lru_cache(maxsize=8)
def _blocks_of_epoch(blocks: tuple[int, ...], key: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The blocks in the order of an epoch, and where each ends."""
    order = tuple(permuted(place, len(blocks), f"{key}/blocks") for place in range(len(blocks)))
    return order, tuple(accumulate(blocks[block] for block in order))


def permuted(place: int, size: int, key: str) -> int:
    """Where a permutation of range(size), drawn by `key`, sends `place`.

    A Feistel network over the next even number of bits, walked until it lands inside (cycle walking).
    """
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while True:
        left, right = place >> half, place & mask
        for turn in range(_ROUNDS):
            digest = hashlib.blake2b(f"{key}/{turn}/{right}".encode(), digest_size=8).digest()
            left, right = right, left ^ (int.from_bytes(digest, "big") & mask)
        place = left << half | right
        if place < size:
            return place
