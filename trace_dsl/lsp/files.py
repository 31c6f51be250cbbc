"""The specs that an `extends` line may name, seen from the folder of the one that is open."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

_EXTENDS = re.compile(r'^[ \t]*extends[ \t]+"(?P<written>[^"\n]*)\Z', re.M)
SUFFIX = ".trace"


def path_written(before: str) -> str | None:
    """What is written so far of the path of an `extends`; None where the text does not end in one."""
    match = _EXTENDS.search(before)
    return None if match is None else match["written"]


def paths_after(spec: Path, written: str) -> Iterator[str]:
    """The paths that `written` may become: specs and folders beside what it names, each as it is written in `extends`.

    Nothing for an absolute path, which `extends` does not take, nor for a folder that cannot be read.
    """
    head, slash, _ = written.rpartition("/")
    if PurePosixPath(written).is_absolute():
        return
    try:
        found = sorted(spec.parent.joinpath(head).iterdir())
    except (OSError, ValueError):  # a path with a zero byte is a ValueError
        return
    own = os.path.realpath(spec)
    for path in found:
        if path.name.startswith("."):
            continue
        if path.is_dir():
            yield f"{head}{slash}{path.name}/"
        elif path.suffix == SUFFIX and os.path.realpath(path) != own:
            yield f"{head}{slash}{path.name}"
