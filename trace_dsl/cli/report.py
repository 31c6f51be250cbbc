"""`trace-dsl report`: what a run did, or how several compare, as a page."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from trace_dsl.cli.exits import refusing
from trace_dsl.errors import TraceError

if TYPE_CHECKING:
    from trace_dsl.run_report.chart import Chart
    from trace_dsl.run_report.html import Shown
    from trace_dsl.run_report.read import Run

PAGE = "report.html"


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories, such as runs/demo.")],
    html: Annotated[
        Path, typer.Option("--html", metavar="OUT", help=f"Where the page goes. Default: {PAGE}, here.")
    ] = Path(PAGE),
    previews: Annotated[
        bool,
        typer.Option("--previews", help="Write a preview beside the page for each step whose rollouts were kept."),
    ] = False,
    png: Annotated[
        Path | None, typer.Option("--png", metavar="FOLDER", help="Write the charts as PNG too (matplotlib).")
    ] = None,
    svg: Annotated[
        Path | None, typer.Option("--svg", metavar="FOLDER", help="Write the charts as SVG too (matplotlib).")
    ] = None,
) -> None:
    """Show what a run did: accuracy, curves, routes, credit, time, its worst rollouts. Of several: how they compare.

    A run that is under way or was stopped is shown as far as it went. Reads the text files of the run directory alone:
    needs no torch, and the page no network. A run that wrote rollouts also says how to preview them.

    Exits with 0, with 1 when --previews meets a spec with errors, with 2 for what is no run directory or a line that no
    run wrote.

    Example: trace-dsl report runs/demo --html demo.html
    """
    from trace_dsl.run_report.html import charts, html_of
    from trace_dsl.run_report.outcome import moment
    from trace_dsl.run_report.pictures import check_can_draw
    from trace_dsl.run_report.read import read_runs

    with refusing():
        if png is not None or svg is not None:
            check_can_draw()
        found = read_runs(runs)
        shown = [_shown(run, html, previews) for run in found]
        _write_page(html, html_of(shown, moment(time.time())))
        steps = sum(run.done_steps for run in found)
        print(f"{html}: {_counted(len(found), 'run')}, {_counted(steps, 'step')}; open it in a browser")
        kinds: tuple[tuple[Path | None, Literal["png", "svg"]], ...] = ((png, "png"), (svg, "svg"))
        for folder, kind in kinds:
            if folder is not None:
                _write_pictures(charts(found), folder, kind)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _shown(run: Run, html: Path, previews: bool) -> Shown:
    """The run with its rollouts, and the previews of them: written, or how to write them."""
    from trace_dsl.run_report.html import Shown
    from trace_dsl.run_report.worst import kept_steps

    names = {step: f"preview-{run.name.strip('/').replace('/', '-')}-{step}.html" for step, _ in run.rollouts}
    links, commands = {}, {}
    for step, path in run.rollouts:
        if previews:
            _write_preview(run, path, html.parent / names[step])
            links[step] = names[step]
        else:
            commands[step] = _command(run, path, html.parent / names[step])
    return Shown(run=run, kept=kept_steps(run), links=links, commands=commands)


def _steps(run: Run) -> int | None:
    """The run's steps where its plan does not say them to the preview."""
    return None if run.plan is not None else run.total_steps


def _write_preview(run: Run, rollouts: Path, out: Path) -> None:
    from trace_dsl.cli.preview import preview

    preview(str(run.path / "spec.trace"), rollouts=rollouts, steps=_steps(run), html=out)


def _command(run: Run, rollouts: Path, out: Path) -> str:
    steps = _steps(run)
    words = ["trace-dsl", "preview", str(run.path / "spec.trace"), "--rollouts", str(rollouts), "--html", str(out)]
    return shlex.join([*words, *(() if steps is None else ("--steps", str(steps)))])


def _write_page(out: Path, page: str) -> None:
    from megatron_bridge.atomic import write_text

    try:
        write_text(out, page)
    except OSError as error:
        raise TraceError(f"{out} cannot be written: {(error.strerror or str(error)).lower()}") from error


def _write_pictures(charts: tuple[Chart, ...], folder: Path, kind: Literal["png", "svg"]) -> None:
    from trace_dsl.run_report.pictures import write_pictures

    try:
        written = write_pictures(charts, folder, kind)
    except OSError as error:
        raise TraceError(f"{folder} cannot be written: {(error.strerror or str(error)).lower()}") from error
    print(f"{folder}: {_counted(len(written), 'picture')}")
