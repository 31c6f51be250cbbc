"""The `trace-dsl` command. A new command is one import and one line here."""

from __future__ import annotations

from importlib import metadata
from typing import Annotated

import typer

from trace_dsl.cli.arguments import for_typer
from trace_dsl.cli.diff import diff
from trace_dsl.cli.explain import explain
from trace_dsl.cli.fmt import fmt
from trace_dsl.cli.lint import lint
from trace_dsl.cli.plan import plan
from trace_dsl.cli.prove import prove
from trace_dsl.cli.summary import summary
from trace_dsl.cli.train import train

app = typer.Typer(
    name="trace-dsl",
    help="Say token by token which loss trains a language model: check a spec, see its plan, train.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("lint")(for_typer(lint))
app.command("fmt")(fmt)
app.command("plan")(plan)
app.command("diff")(diff)
app.command("explain")(explain)
app.command("prove")(prove)
app.command("train")(train)
app.command("summary")(summary)


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
    """Say token by token which loss trains a language model: check a spec, see its plan, train."""


def run() -> None:
    """Run the command that the command line names."""
    app()
