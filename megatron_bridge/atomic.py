"""Files and directories that are either whole or not there, and one verdict over all ranks.

A result is written aside, flushed to the disk and renamed. A failure on any rank becomes the same error on
every rank.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import torch.distributed as dist

# torch's zip writer reports a failed write as a RuntimeError.
WRITE_ERRORS = (OSError, RuntimeError)


class CheckpointError(RuntimeError):
    """Something could not be saved or loaded; what was there before is untouched."""


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`: aside, flushed, then renamed over what was there. Raises OSError."""
    aside = path.with_name(path.name + ".partial")
    try:
        with open(aside, "w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Flush the names in `directory` to the disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(directory: Path) -> None:
    """Flush every file under `directory`, and the directories themselves, to the disk."""
    for folder, _, names in os.walk(directory):
        for name in names:
            with open(Path(folder) / name, "rb") as stream:
                os.fsync(stream.fileno())
        sync_directory(Path(folder))


def replace_directory(aside: Path, target: Path) -> None:
    """Rename `aside`, flushed, to `target`; what was there is removed once the new one stands in its place.

    Raises OSError. A process killed between the two renames leaves the old one whole at `<target>.replaced`.
    """
    sync_tree(aside)
    replaced = target.with_name(target.name + ".replaced")
    if replaced.exists():
        shutil.rmtree(replaced)
    if target.exists():
        os.rename(target, replaced)
    os.rename(aside, target)
    sync_directory(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)


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
