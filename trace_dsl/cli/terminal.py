"""What commands share: which files a path means, and a console that never fails on a character."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from pathlib import Path

from rich.console import Console

from trace_dsl.errors import SpecError

STDIN = "-"


def specs_below(paths: list[str]) -> list[str]:
    """Files as they are named, folders as the specs below them; raises SpecError for a folder without any."""
    found: list[str] = []
    for path in paths:
        if path == STDIN or not Path(path).is_dir():
            found.append(path)
            continue
        below = sorted(str(spec) for spec in Path(path).rglob("*.trace"))
        if not below:
            raise SpecError(f"there is no *.trace file in {path}")
        found.extend(below)
    return list(dict.fromkeys(found))


def console(*, stderr: bool = False) -> Console:
    """Plain text when piped or when NO_COLOR is set; a character the terminal cannot show is shown as its code."""
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return Console(stderr=stderr, highlight=False, soft_wrap=True)
