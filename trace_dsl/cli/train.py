"""`trace-dsl train`: check everything, then start torchrun on this machine."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from trace_dsl.errors import TraceError


def train(
    run_file: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key=value]...", help="Settings to change, such as optim.lr=3e-4 layout.tp=1."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Start afresh; an existing run is moved to NAME.previous.")
    ] = False,
) -> None:
    """Train on this machine: lint, plan, then one process for each of layout.tp x pp x dp ranks.

    Example: trace-dsl train specs/demo/run.yaml spec=grpo.trace name=grpo
    """
    from megatron_bridge.launch import launch

    if resume and overwrite:
        print("error: --resume goes on with a run and --overwrite starts it afresh: give one of them", file=sys.stderr)
        raise typer.Exit(2)
    try:
        code = launch(run_file, overrides or [], resume=resume, overwrite=overwrite)
    except TraceError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(2) from error
    raise typer.Exit(code)
