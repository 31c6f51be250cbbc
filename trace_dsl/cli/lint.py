"""`trace-dsl lint`: what is wrong with a spec, before a run finds out."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, assert_never

import typer

from trace_dsl.cli.terminal import STDIN, console, specs_below
from trace_dsl.configuration import Configuration, FailLevel, nearest_configuration, rule_names
from trace_dsl.errors import SpecError, TraceError
from trace_dsl.facts import RunFacts
from trace_dsl.format.files import read_spec_bytes, replace_file
from trace_dsl.lint import LintResult, fix_text, lint_file, lint_text
from trace_dsl.plan.support import unsupported
from trace_dsl.report import as_json, concise, github, print_full, sarif, summary
from trace_dsl.rules import RuleSelection


class LintFormat(StrEnum):
    FULL = "full"
    CONCISE = "concise"
    JSON = "json"
    GITHUB = "github"
    SARIF = "sarif"


class ExitCode:
    """What counts as a finding is for --fail-level to say; the output format changes nothing."""

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
        typer.Option(
            "--format",
            help="full for people, concise for editors, json and sarif for programs, github for its workflows.",
        ),
    ] = LintFormat.FULL,
    select: Annotated[
        list[str] | None,
        typer.Option(metavar="RULE[,RULE]", help="Only these rules; errors of the language are always found."),
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option(metavar="RULE[,RULE]", help="Not these rules.")] = None,
    pedantic: Annotated[
        bool | None, typer.Option("--pedantic/--no-pedantic", help="Also the rules that are a matter of taste.")
    ] = None,
    fail_level: Annotated[
        FailLevel | None, typer.Option(help="From which severity on to exit with 1. Default: error.")
    ] = None,
    fix: Annotated[
        bool,
        typer.Option("--fix", help="Take out unused lets, teachers and ignore comments where nothing else changes."),
    ] = False,
) -> None:
    """Check specs. Exits with 0 when there are no errors, 1 when there are (see --fail-level), 2 when it could not run.

    Settings come from the table tool.trace-dsl of the nearest pyproject.toml: select, ignore, pedantic, fail-level.

    Example: trace-dsl lint specs/ --run specs/demo/run.yaml
    """
    try:
        settings = nearest_configuration(Path.cwd()).overridden(
            select=_rules(select, "--select"),
            ignore=_rules(ignore, "--ignore"),
            pedantic=pedantic,
            fail_level=fail_level,
        )
        facts = None if run is None else _facts(run)
        specs = specs_below(paths or ["."])
        if fix:
            for path in specs:
                _fix_one(path, facts, settings.rules)
    except TraceError as error:
        print(f"error: {error}", file=sys.stderr)
        raise typer.Exit(ExitCode.COULD_NOT_RUN) from error
    results, unread = _lint_all(specs, facts, settings.rules)
    if results or output in (LintFormat.JSON, LintFormat.SARIF):
        _show(results, output)
    for complaint in unread:
        print(f"error: {complaint}", file=sys.stderr)
    if unread:
        raise typer.Exit(ExitCode.COULD_NOT_RUN)
    if _fails(results, settings):
        raise typer.Exit(ExitCode.ERRORS_FOUND)


def _lint_all(
    specs: Sequence[str], facts: RunFacts | None, rules: RuleSelection
) -> tuple[tuple[LintResult, ...], list[SpecError]]:
    """The result of every spec that can be read, and why the others cannot."""
    results, unread = [], []
    for path in specs:
        try:
            results.append(_with_engine(_lint_one(path, facts, rules), facts))
        except SpecError as error:
            unread.append(error)
    return tuple(results), unread


def _with_engine(result: LintResult, facts: RunFacts | None) -> LintResult:
    """With a run, also what `train` would refuse: kernels, options and signals this version does not run."""
    if facts is None or result.spec is None:
        return result
    found = sorted((*result.diagnostics, *unsupported(result.spec)), key=lambda d: d.place)
    return replace(result, diagnostics=tuple(found))


def _facts(run: Path) -> RunFacts:
    # Reading a run file needs pydantic and yaml; linting alone starts without them.
    from megatron_bridge.run_file import load_run_facts

    facts: RunFacts = load_run_facts(run)
    return facts


def _rules(given: list[str] | None, option: str) -> frozenset[str] | None:
    """The rules that an option names, which may stand several times; None when it is not there."""
    if given is None:
        return None
    names = (name.strip() for item in given for name in item.split(","))
    return rule_names((name for name in names if name), where=option, ignoring=option == "--ignore")


def _lint_one(path: str, facts: RunFacts | None, rules: RuleSelection) -> LintResult:
    if path != STDIN:
        return lint_file(path, facts, selection=rules)
    try:
        text = sys.stdin.read()
    except UnicodeDecodeError as error:
        raise SpecError("standard input is not UTF-8 text") from error
    return lint_text(text, facts, path="<stdin>", selection=rules)


def _fails(results: tuple[LintResult, ...], settings: Configuration) -> bool:
    match settings.fail_level:
        case FailLevel.ERROR:
            return any(result.errors for result in results)
        case FailLevel.WARNING:
            return any(result.diagnostics for result in results)
        case FailLevel.NEVER:
            return False
        case _:
            assert_never(settings.fail_level)


def _show(results: tuple[LintResult, ...], output: LintFormat) -> None:
    screen = console()
    match output:
        case LintFormat.FULL:
            print_full(results, screen)
        case LintFormat.CONCISE:
            for result in results:
                for line in concise(result):
                    print(line)
            print(summary(results))
        case LintFormat.JSON:
            print(as_json(results))
        case LintFormat.GITHUB:
            for line in github(results):
                print(line)
            print(summary(results))
        case LintFormat.SARIF:
            print(sarif(results))
        case _:
            assert_never(output)


# --------------------------------------------------------------------------------------------------------------- fixes


def _fix_one(path: str, facts: RunFacts | None, rules: RuleSelection) -> None:
    """Fix one file in its place and say what was done; a spec that others extend is left alone."""
    if path == STDIN:
        raise SpecError("--fix changes files, and standard input is none; name the file instead of -")
    spec = read_spec_bytes(path)
    fixed = fix_text(spec.text, facts, path=path, selection=rules)
    if not fixed.removed:
        return
    child = _extended_by(Path(path))
    if child is not None:
        print(f"left alone {path}: {child} extends it and may use what looks unused here", file=sys.stderr)
        return
    replace_file(path, spec.encoded(fixed.text))
    for removed in fixed.removed:
        print(f"fixed {path}: took out {removed}", file=sys.stderr)


def _extended_by(path: Path) -> Path | None:
    """A spec of the same folder or below it that extends this one."""
    for other in sorted(path.parent.rglob("*.trace")):
        text = read_spec_bytes(str(other)).text if other.is_file() else ""
        for target in re.findall(r'^\s*extends\s*"([^"\n]+)"', text, flags=re.MULTILINE):
            if (other.parent / target).resolve() == path.resolve():
                return other
    return None
