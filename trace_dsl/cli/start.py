"""Where the `trace-dsl` command starts. `lint`, which runs at every save and commit, starts without typer."""

from __future__ import annotations

import gc
import os
import sys

INTERRUPTED = 130
# How many new objects call for a search for cycles; Python's own 700 would take a quarter of the time to lint.
_ALLOCATIONS = 100_000


def run() -> None:
    """The entry point of the installed `trace-dsl`; always raises SystemExit."""
    words = sys.argv[1:]
    if words[:1] == ["lint"]:
        _lint(words[1:])
    # Every other command, and every command line that has to be explained.
    from trace_dsl.cli.main import run as run_any

    run_any()


def _lint(words: list[str]) -> None:
    """Lint and exit; returns when typer has to look at the words."""
    gc.disable()  # what modules define is no garbage
    from trace_dsl.cli.arguments import read
    from trace_dsl.cli.lint import lint

    gc.freeze()
    gc.set_threshold(_ALLOCATIONS)  # specs are trees without cycles, which go when nobody holds them
    gc.enable()
    arguments = read(lint, words)
    if arguments is None:
        return
    try:
        code = lint(**arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = INTERRUPTED
    except BrokenPipeError:
        # The reader, such as `head`, has seen enough; what is left in the buffer goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    sys.exit(code)
