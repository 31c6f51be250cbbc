"""The `trace-dsl` command. A new command is one import and one line here."""

from __future__ import annotations

import os
from importlib import metadata
from typing import Annotated

import typer
from typer import rich_utils

from trace_dsl.cli.arguments import for_typer
from trace_dsl.cli.diff import diff
from trace_dsl.cli.explain import explain
from trace_dsl.cli.fit import fit
from trace_dsl.cli.fmt import fmt
from trace_dsl.cli.lint import lint
from trace_dsl.cli.lsp import lsp
from trace_dsl.cli.plan import plan
from trace_dsl.cli.preview import preview
from trace_dsl.cli.prove import prove
from trace_dsl.cli.report import report
from trace_dsl.cli.study import study
from trace_dsl.cli.summary import summary
from trace_dsl.cli.test import expect
from trace_dsl.cli.train import train

app = typer.Typer(
    name="trace-dsl",
    no_args_is_help=True,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
app.command("lint")(for_typer(lint))
app.command("fmt")(fmt)
app.command("plan")(plan)
app.command("preview")(preview)
app.command("diff")(diff)
app.command("explain")(explain)
app.command("prove")(prove)
app.command("test")(expect)
app.command("lsp")(lsp)
app.command("fit")(fit)
app.command("train")(train)
app.command("summary")(summary)
app.command("report")(report)
app.command("study")(study)


def _version(asked: bool) -> None:
    if asked:
        print(f"trace-dsl {metadata.version('trace-dsl')}")
        raise typer.Exit


@app.callback()
def _commands(
    _: Annotated[
        bool, typer.Option("--version", help="Show the version and end.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Say token by token which loss trains a language model: check a spec, see its plan, train.

    A spec is a file that ends in .trace. Each command explains itself with --help; docs/commands.md lists exit codes.

    Example: trace-dsl lint specs/demo/trace.trace
    """


def run() -> None:
    """Run the command that the command line names."""
    if os.environ.get("NO_COLOR"):
        rich_utils.COLOR_SYSTEM = None  # help and its errors; the commands have their own console
    app()
