"""`trace-dsl train`: check everything, then start torchrun on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trace_dsl.cli.exits import refusing
from trace_dsl.errors import RunFileError


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
    accept_spec_change: Annotated[
        bool,
        typer.Option(
            "--accept-spec-change",
            help="With --resume: go on also where spec, steps or temperature changed; changes.jsonl has the record.",
        ),
    ] = False,
    max_restarts: Annotated[
        int,
        typer.Option(
            "--max-restarts", min=0, help="How often to start all ranks again from the last checkpoint when one fails."
        ),
    ] = 0,
) -> None:
    """Train on this machine: lint, plan, then one process for each of layout.tp x pp x cp x dp ranks.

    Exits with 0 when the run is done, 1 when a rank failed, 2 on bad input, 130 when it was stopped and has saved.

    Example: trace-dsl train specs/demo/run.yaml spec=grpo.trace name=grpo
    """
    from megatron_bridge.launch import launch

    with refusing():
        if resume and overwrite:
            raise RunFileError("--resume goes on with a run and --overwrite starts it afresh: give one of them")
        if accept_spec_change and not resume:
            raise RunFileError("--accept-spec-change is about a run that goes on: give --resume with it")
        code = launch(
            run_file,
            overrides or [],
            resume=resume,
            overwrite=overwrite,
            accept_spec_change=accept_spec_change,
            max_restarts=max_restarts,
        )
    raise typer.Exit(code)
