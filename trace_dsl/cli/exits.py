"""The exit codes of every command. The output format never changes them; docs/commands.md says what they mean where."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

from trace_dsl.errors import TraceError


class ExitCode(IntEnum):
    """FINDINGS: the command ran, and what it found is what one wants to stop for."""

    FINE = 0
    FINDINGS = 1
    COULD_NOT_RUN = 2


@contextmanager
def refusing(code: ExitCode = ExitCode.COULD_NOT_RUN) -> Iterator[None]:
    """What goes wrong inside for a reason that people can mend is told on standard error and ends the command."""
    try:
        yield
    except TraceError as error:
        import typer  # linting starts without it

        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(code) from error
