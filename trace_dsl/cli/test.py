"""`trace-dsl test`: whether specs still give the weights that stand beside them."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import typer
from rich.text import Text

from trace_dsl.cli.exits import ExitCode, refusing
from trace_dsl.cli.formats import OutputFormat, print_json
from trace_dsl.cli.specs import specs_below
from trace_dsl.cli.terminal import console, print_wrapped
from trace_dsl.errors import TraceError


def expect(
    paths: Annotated[
        list[str] | None,
        typer.Argument(help="Specs, NAME.expect.yaml files, or folders to search for them. Default: here."),
    ] = None,
    update: Annotated[
        bool, typer.Option("--update", help="Write what was found into the files, to be reviewed as a diff.")
    ] = False,
    output: Annotated[OutputFormat, typer.Option("--format", help="text for people, json for programs.")] = (
        OutputFormat.TEXT
    ),
) -> None:
    """Compare what specs give to tokens with what stands beside them, in NAME.expect.yaml for NAME.trace.

    Which route takes a token, its weight on each loss at a step, its advantage: docs/testing-specs.md describes the
    file. Needs torch.

    Exits with 0 when all is as expected, 1 when something is not, 2 when a file cannot be read.

    Example: trace-dsl test specs/demo/trace.trace
    """
    # pydantic and yaml, which commands that read no settings start without
    from trace_dsl.expect.compare import is_as_expected
    from trace_dsl.expect.file import SUFFIX, expectations_of, read_expectations
    from trace_dsl.expect.report import counted, file_fields, file_lines

    with refusing():
        named = dict.fromkeys(expectations_of(path) for path in specs_below(paths or ["."], SUFFIX))
        files = [read_expectations(path) for path in named]
        if find_spec("torch") is None:
            raise TraceError(
                "trace-dsl test computes weights as training does, with torch, which is not installed: "
                "pip install '.[train]' from the repository"
            )
    from trace_dsl.expect.run import run_cases
    from trace_dsl.expect.update import write_found

    screen = console()
    told, cases, wrong = [], 0, 0
    for file in files:
        with refusing():
            outcomes = run_cases(file)
            written = write_found(file, outcomes) if update else ()
        told.append(file_fields(file, outcomes, written))
        cases += len(outcomes)
        wrong += sum(not is_as_expected(o) and o.case.name not in written for o in outcomes)
        if output is OutputFormat.TEXT:
            for line in file_lines(file, outcomes, written):
                print_wrapped(screen, line)
    match output:
        case OutputFormat.TEXT:
            verdict = "all as expected" if not wrong else f"{wrong} not as expected"
            screen.print(Text(f"{counted(cases, 'case')} of {counted(len(files), 'spec')}: {verdict}"))
        case OutputFormat.JSON:
            print_json(files=told)
    if wrong:
        raise typer.Exit(ExitCode.FINDINGS)
