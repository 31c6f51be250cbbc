"""The `trace-dsl` command. A new command is one import and one line here."""

from __future__ import annotations

import typer

from trace_dsl.cli.lint import lint
from trace_dsl.cli.plan import plan
from trace_dsl.cli.summary import summary
from trace_dsl.cli.train import train

app = typer.Typer(
    name="trace-dsl",
    help="Say token by token which loss trains a language model: check a spec, see its plan, train.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("lint")(lint)
app.command("plan")(plan)
app.command("train")(train)
app.command("summary")(summary)


@app.callback()
def _commands() -> None:
    """Keeps `lint` a command of its own while it is the only one."""


def run() -> None:
    """The entry point of the installed `trace-dsl`."""
    app()
