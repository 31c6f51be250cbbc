"""Files and directories that are either whole or not there: written aside, flushed to the disk, renamed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """As `write_bytes`, in UTF-8."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write `content` to `path`: aside, flushed, then renamed over what was there. Raises OSError."""
    aside = path.with_name(path.name + ".partial")
    try:
        with open(aside, "wb") as stream:
            stream.write(content)
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
