"""`trace-dsl fmt`: specs in the one canonical form."""

from __future__ import annotations

import difflib
import sys
from dataclasses import dataclass
from typing import Annotated

import typer
from rich.text import Text

from trace_dsl.cli.exits import ExitCode, refusing
from trace_dsl.cli.output import printer
from trace_dsl.cli.specs import STDIN_NAME, read_bytes, specs_below
from trace_dsl.cli.terminal import console
from trace_dsl.format import format_source
from trace_dsl.format.files import replace_file
from trace_dsl.lint import LintResult, SourceFile
from trace_dsl.report import full
from trace_dsl.rules import LanguageRule
from trace_dsl.spec_files import SpecBytes
from trace_dsl.syntax import parse_source

_DIFF_COLOURS = {"+": "green", "-": "red", "@": "cyan"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Formatted:
    """A spec and its canonical text; `text` is None when the spec does not parse, and `refusal` says why."""

    spec: SpecBytes
    text: str | None
    refusal: LintResult | None = None

    @property
    def changes(self) -> bool:
        return self.text is not None and self.spec.encoded(self.text) != self.spec.content


def fmt(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            help="Specs, or folders to search for *.trace; - formats standard input to standard output. Default: here."
        ),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Write nothing; exit with 1 when a spec is not in canonical form.")
    ] = False,
    diff: Annotated[
        bool, typer.Option("--diff", help="Write nothing; show what would change, and exit as --check does.")
    ] = False,
) -> None:
    """Format specs: spacing, line breaks, columns that line up. Comments stay, and so does what a spec means.

    Exits with 0 when all is well, 1 when a spec does not parse (it is left alone) or --check finds one to format,
    2 when a file could not be read or written.

    Example: trace-dsl fmt specs/ --diff
    """
    with refusing():
        results = [_format_one(path) for path in specs_below(paths or ["."])]
        for result in results:
            _show_or_write(result, write=not (check or diff), diff=diff)
    changed = sum(result.changes for result in results)
    refused = sum(result.text is None for result in results)
    print(_summary(len(results), changed, refused, would=check or diff), file=sys.stderr)
    if refused or (changed and (check or diff)):
        raise typer.Exit(ExitCode.FINDINGS)


def _format_one(path: str) -> Formatted:
    spec = read_bytes(path)
    parsed = parse_source(spec.path, spec.text)
    errors = tuple(found for found in parsed.diagnostics if found.rule == LanguageRule.SYNTAX.value)
    if not errors:
        return Formatted(spec=spec, text=format_source(parsed))
    source = SourceFile(path="", text=spec.text)
    return Formatted(
        spec=spec,
        text=None,
        refusal=LintResult(path=spec.path, spec=None, diagnostics=errors, sources=(source,)),
    )


def _show_or_write(result: Formatted, *, write: bool, diff: bool) -> None:
    """Everything that is done about one spec. Standard output holds diffs and what - formats, and nothing else."""
    spec = result.spec
    if result.refusal is not None:
        show = printer(stderr=True)
        for block in full(result.refusal):
            block.append("\n")
            show(block)
        return
    assert result.text is not None
    if diff and result.changes:
        _show_diff(result, result.text)
    if write and spec.path == STDIN_NAME:
        typer.echo(spec.encoded(result.text), nl=False)
    elif write and result.changes:
        replace_file(spec.path, spec.encoded(result.text))
        print(f"formatted {spec.path}", file=sys.stderr)
    elif result.changes and not diff:
        print(f"would format {spec.path}", file=sys.stderr)


def _show_diff(result: Formatted, text: str) -> None:
    spec = result.spec
    screen = console()
    lines = list(
        difflib.unified_diff(
            spec.text.split("\n"),
            text.split("\n"),
            fromfile=spec.path,
            tofile=f"{spec.path} (formatted)",
            lineterm="",
        )
    )
    if not lines:
        lines = [f"{spec.path}: only line ends or a byte order mark would change"]
    for line in lines:
        screen.print(Text(line, style=_DIFF_COLOURS.get(line[:1], "")))


def _summary(specs: int, changed: int, refused: int, *, would: bool) -> str:
    unchanged = specs - changed - refused
    parts = [f"{changed} {'would be formatted' if would else 'formatted'}", f"{unchanged} in canonical form"]
    if refused:
        parts.append(f"{refused} left alone: {'it does' if refused == 1 else 'they do'} not parse")
    return f"{specs} spec{'' if specs == 1 else 's'}: {', '.join(parts)}"
