"""Printing that needs rich only where a terminal may want colours."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from io import TextIOWrapper

from trace_dsl.report import Styled

# Variables that make rich take a pipe for a terminal.
_FORCE = ("FORCE_COLOR", "TTY_COMPATIBLE")


def printer(*, stderr: bool = False) -> Callable[[Styled], None]:
    """What prints a block: with colours on a terminal (as rich decides), plain otherwise.

    A character that the stream cannot show is shown as its code.
    """
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    if not stream.isatty() and not any(os.environ.get(name) for name in _FORCE):
        return lambda block: print(block.plain, file=stream)
    from trace_dsl.cli.terminal import console, rich_text  # importing rich takes as long as linting a spec

    screen = console(stderr=stderr)
    return lambda block: screen.print(rich_text(block), soft_wrap=True)
