"""Printing by rich: plain when piped, wrapped between words on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from io import TextIOWrapper

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from trace_dsl.report import Styled

_HANG = 4
_LONG_HEAD = 16


def console(*, stderr: bool = False) -> Console:
    """Plain text when piped or when NO_COLOR is set; a character the terminal cannot show is shown as its code."""
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    # without a colour system there are no bold or dim letters either: NO_COLOR asks for plain text
    return Console(
        stderr=stderr, highlight=False, soft_wrap=True, color_system=None if os.environ.get("NO_COLOR") else "auto"
    )


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


def print_row(screen: Console, head: Text, parts: Sequence[str]) -> None:
    """`head`, then `parts` with commas between them: one line when piped, on a terminal broken between parts.

    What follows a break stands under the first part or, after a long head, is indented.
    """
    if not parts:
        print_wrapped(screen, head)
        return
    pieces = [*(f"{part}, " for part in parts[:-1]), parts[-1]]
    if not screen.is_terminal:
        screen.print(head + Text("".join(pieces)))
        return
    indent = len(head.plain) - len(head.plain.lstrip())
    hang = head.cell_len if head.cell_len <= _LONG_HEAD else indent + _HANG
    room = max(screen.width - hang, 2 * _HANG)
    line = Text().append_text(head)  # the head's style is its own
    for atom in (atom for piece in pieces for atom in _atoms(piece, room)):
        if line.cell_len + cell_len(atom.rstrip()) > screen.width and line.cell_len > hang:
            screen.print(_finished(line))
            line = Text(" " * hang)
        line.append(atom)
    screen.print(_finished(line))


def _atoms(piece: str, room: int) -> list[str]:
    """A piece whole, or word by word when it is wider than a line."""
    return [piece] if cell_len(piece.rstrip()) <= room else [f"{word} " for word in piece.split()]


def _finished(line: Text) -> Text:
    line.rstrip()
    line.highlight_words(["(default)"], "dim")
    return line
