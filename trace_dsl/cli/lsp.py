"""`trace-dsl lsp`: the language server that editors start."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

_NEEDED = frozenset({"pygls", "lsprotocol", "cattrs", "attrs"})


def lsp(
    stdio: Annotated[
        bool, typer.Option("--stdio", help="Speak over standard input and output, as it always does.", hidden=True)
    ] = False,
) -> None:
    """Start the language server, for editors: it speaks over standard input and output until the editor ends it.

    How to set up an editor is in docs/editors.md. Exits with 2 when the package pygls is missing.

    Example: the command that an editor is given is trace-dsl lsp
    """
    try:
        from trace_dsl.lsp.server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _NEEDED:
            raise
        print("error: the language server needs pygls: pip install 'trace-dsl[lsp]'", file=sys.stderr)
        raise typer.Exit(2) from error
    serve()
