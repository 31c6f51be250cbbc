"""One verdict over all ranks: a failure on any of them becomes the same error on every one."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch.distributed as dist

from trace_dsl.errors import TraceError

# torch's zip writer reports a failed write as a RuntimeError.
WRITE_ERRORS = (OSError, RuntimeError)


class CheckpointError(TraceError, RuntimeError):
    """Something could not be saved or loaded; what was there before is untouched."""


class Verdict:
    """Collects this rank's failure and agrees with the other ranks on it."""

    def __init__(self, describe: Callable[[str], str]) -> None:
        """`describe(reason)` is the message of the error that every rank raises."""
        self._describe = describe
        self._failure: BaseException | None = None

    @contextlib.contextmanager
    def guard(self) -> Iterator[None]:
        """Note a failed write rather than raise it: the other ranks may be waiting in a collective."""
        try:
            yield
        except WRITE_ERRORS as error:
            self.note(error)

    def note(self, error: BaseException) -> None:
        """Note a failure on this rank; the first one is kept."""
        self._failure = self._failure or error

    def agree(self, cleanup: Callable[[], None] = lambda: None) -> None:
        """Raise CheckpointError on every rank if any rank noted a failure, after `cleanup` ran on rank 0.

        Collectives: an all-gather of one short object over all ranks; on failure, a barrier.
        """
        mine = None if self._failure is None else f"{type(self._failure).__name__}: {self._failure}"
        reasons: list[str | None] = [None] * dist.get_world_size()
        dist.all_gather_object(reasons, mine)
        failed = [(rank, reason) for rank, reason in enumerate(reasons) if reason is not None]
        if not failed:
            return
        if dist.get_rank() == 0:
            cleanup()
        dist.barrier()
        rank, reason = failed[0]
        raise CheckpointError(self._describe(f"{reason} (rank {rank})")) from self._failure
