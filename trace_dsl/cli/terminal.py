"""What commands share: which files a path means; printing that is plain when piped and wraps between words."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from pathlib import Path

from rich.console import Console
from rich.text import Text

from trace_dsl.errors import SpecError

STDIN = "-"
_HANG = 4


def specs_below(paths: list[str]) -> list[str]:
    """Files as they are named, folders as the specs below them; raises SpecError for a folder without any."""
    found: list[str] = []
    for path in paths:
        if path == STDIN or not Path(path).is_dir():
            found.append(path)
            continue
        below = sorted(str(spec) for spec in Path(path).rglob("*.trace") if not spec.is_dir())
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


def print_wrapped(screen: Console, line: Text) -> None:
    """A line of prose: whole when piped, on a terminal wrapped between words with what follows indented further."""
    if not screen.is_terminal:
        screen.print(line)
        return
    indent = len(line.plain) - len(line.plain.lstrip()) + _HANG
    for number, part in enumerate(line.wrap(screen, max(screen.width - indent, 2 * _HANG)) or [line]):
        part.rstrip()
        screen.print(part if number == 0 else Text(" " * indent).append_text(part))
