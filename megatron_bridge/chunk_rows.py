"""How many rows of logits the loss holds at a time. Standard library only: what fits is estimated without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkLimit:
    """As many rows as float32 logits of `bytes` hold; where that is fewer than `enough_rows`, up to twice the
    bytes; never more than 4096."""

    bytes: int
    enough_rows: int

    def rows(self, vocab_shard: int) -> int:
        fit = self.bytes // (4 * max(1, vocab_shard))
        return max(1, min(MAX_CHUNK_ROWS, max(fit, min(self.enough_rows, 2 * fit))))


# On an H100 the products of a chunk outweigh the traffic of its weight gradient from about 1053 rows on. On a CPU
# the products run a few per cent faster in chunks of 512 rows than in chunks of 256, which the page faults of twice
# the memory take back. Huge pages are no way out: on a busy machine the kernel compacts memory for longer.
MAX_CHUNK_ROWS = 4096
CHUNK_LIMITS = {
    "cpu": ChunkLimit(bytes=32 << 20, enough_rows=256),
    "cuda": ChunkLimit(bytes=2 << 30, enough_rows=1053),
}


def largest_chunk(vocab_shard: int, device: str) -> int:
    """The most rows that `default_chunk_rows` gives, however many tokens there are."""
    return CHUNK_LIMITS.get(device, CHUNK_LIMITS["cuda"]).rows(vocab_shard)


def default_chunk_rows(tokens: int, vocab_shard: int, device: str) -> int:
    """Rows of a chunk: as many as CHUNK_LIMITS of a device type allow for one float32 [rows, vocab_shard], evenly
    cut.

    A chunk holds one such tensor for the student and one for each teacher of its rows. `vocab_shard` must be
    the padded shard, equal on every rank: ranks with other chunks would issue other collectives.
    """
    limit = largest_chunk(vocab_shard, device)
    chunks = max(1, -(-tokens // limit))
    return max(1, -(-tokens // chunks))
