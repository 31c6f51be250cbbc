"""`trace-dsl lint`: what is wrong with a spec, before a run finds out."""

from __future__ import annotations

import sys
from enum import StrEnum
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, assert_never

import typer
from rich.console import Console

from trace_dsl.errors import SpecError, TraceError
from trace_dsl.facts import RunFacts
from trace_dsl.lint import LintResult, lint_file, lint_text
from trace_dsl.report import as_json, concise, print_full, summary

STDIN = "-"


class LintFormat(StrEnum):
    FULL = "full"
    CONCISE = "concise"
    JSON = "json"


class ExitCode:
    """Warnings alone are clean; the output format changes nothing."""

    CLEAN = 0
    ERRORS_FOUND = 1
    COULD_NOT_RUN = 2


def lint(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            help="Specs, or folders to search for *.trace; - reads a spec from standard input. Default: here."
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", help="The run file: with it, rules that need its length, groups and task speak too."),
    ] = None,
    output: Annotated[
        LintFormat,
        typer.Option("--format", help="full for people, concise for editors, json for programs."),
    ] = LintFormat.FULL,
) -> None:
    """Check specs. Exits with 0 when there are no errors, 1 when there are, 2 when a file could not be read.

    Example: trace-dsl lint specs/ --run specs/demo/run.yaml
    """
    try:
        facts = None if run is None else _facts(run)
        results = tuple(_lint_one(path, facts) for path in _specs(paths or ["."]))
    except TraceError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(ExitCode.COULD_NOT_RUN) from error
    _show(results, output)
    if any(result.errors for result in results):
        raise typer.Exit(ExitCode.ERRORS_FOUND)


def _facts(run: Path) -> RunFacts:
    # Reading a run file needs pydantic and yaml; linting alone starts without them.
    from megatron_bridge.run_file import load_run_facts

    facts: RunFacts = load_run_facts(run)
    return facts


def _specs(paths: list[str]) -> list[str]:
    """Files as they are named, folders as the specs below them."""
    found: list[str] = []
    for path in paths:
        if path == STDIN or not Path(path).is_dir():
            found.append(path)
            continue
        below = sorted(str(spec) for spec in Path(path).rglob("*.trace"))
        if not below:
            raise SpecError(f"there is no *.trace file in {path}")
        found.extend(below)
    return list(dict.fromkeys(found))


def _lint_one(path: str, facts: RunFacts | None) -> LintResult:
    if path != STDIN:
        return lint_file(path, facts)
    try:
        text = sys.stdin.read()
    except UnicodeDecodeError as error:
        raise SpecError("standard input is not UTF-8 text") from error
    return lint_text(text, facts, path="<stdin>")


def _show(results: tuple[LintResult, ...], output: LintFormat) -> None:
    if isinstance(sys.stdout, TextIOWrapper):
        # A terminal that cannot show a character of a spec shows its code instead.
        sys.stdout.reconfigure(errors="backslashreplace")
    match output:
        case LintFormat.FULL:
            print_full(results, Console())
        case LintFormat.CONCISE:
            for result in results:
                for line in concise(result):
                    print(line)
            print(summary(results))
        case LintFormat.JSON:
            print(as_json(results))
        case _:
            assert_never(output)
