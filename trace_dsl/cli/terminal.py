"""Printing by rich: plain when piped, wrapped between words on a terminal."""

from __future__ import annotations

import sys
from io import TextIOWrapper

from rich.console import Console
from rich.text import Text

from trace_dsl.report import Styled

_HANG = 4


def console(*, stderr: bool = False) -> Console:
    """Plain text when piped or when NO_COLOR is set; a character the terminal cannot show is shown as its code."""
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return Console(stderr=stderr, highlight=False, soft_wrap=True)


def rich_text(block: Styled) -> Text:
    """A block as rich prints it."""
    return Text.assemble(*block.parts)


def print_wrapped(screen: Console, line: Text) -> None:
    """A line of prose: whole when piped, on a terminal wrapped between words with what follows indented further."""
    if not screen.is_terminal:
        screen.print(line)
        return
    indent = len(line.plain) - len(line.plain.lstrip()) + _HANG
    for number, part in enumerate(line.wrap(screen, max(screen.width - indent, 2 * _HANG)) or [line]):
        part.rstrip()
        screen.print(part if number == 0 else Text(" " * indent).append_text(part))
