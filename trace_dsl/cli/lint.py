"""`trace-dsl lint`: what is wrong with a spec, before a run finds out."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, assert_never

from trace_dsl.cli.arguments import Argument, Option
from trace_dsl.cli.exits import ExitCode
from trace_dsl.cli.lint_many import Linter, lint_paths
from trace_dsl.cli.output import printer
from trace_dsl.cli.specs import STDIN, run_facts, specs_below
from trace_dsl.configuration import Configuration, FailLevel, nearest_configuration, rule_names
from trace_dsl.errors import SpecError, TraceError
from trace_dsl.facts import RunFacts
from trace_dsl.lint import LintResult, fix_text
from trace_dsl.report import as_json, concise, github, print_full, sarif, summary
from trace_dsl.rules import RuleSelection
from trace_dsl.spec_files import read_spec_bytes


class LintFormat(StrEnum):
    FULL = "full"
    CONCISE = "concise"
    JSON = "json"
    GITHUB = "github"
    SARIF = "sarif"


def lint(
    paths: Annotated[
        list[str] | None,
        Argument(help="Specs, or folders to search for *.trace; - reads a spec from standard input. Default: here."),
    ] = None,
    run: Annotated[
        Path | None,
        Option(help="The run file: with it, rules that need its length, groups and task speak too."),
    ] = None,
    output: Annotated[
        LintFormat,
        Option(
            flag="--format",
            help="full for people, concise for editors, json and sarif for programs, github for its workflows.",
        ),
    ] = LintFormat.FULL,
    select: Annotated[
        list[str] | None,
        Option(metavar="RULE[,RULE]", help="Only these rules; errors of the language are always found."),
    ] = None,
    ignore: Annotated[list[str] | None, Option(metavar="RULE[,RULE]", help="Not these rules.")] = None,
    pedantic: Annotated[
        bool | None,
        Option(flag="--pedantic/--no-pedantic", help="Also the rules that are a matter of taste."),
    ] = None,
    fail_level: Annotated[
        FailLevel | None, Option(help="From which severity on to exit with 1. Default: error.")
    ] = None,
    fix: Annotated[
        bool,
        Option(flag="--fix", help="Take out unused lets, teachers and ignore comments where nothing else changes."),
    ] = False,
) -> int:
    """Check specs: what is wrong with them, what it would cost a run, and how to fix it.

    Exits with 0 when there are no errors, 1 when there are (see --fail-level), 2 when it could not run.

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
        facts = None if run is None else run_facts(run)
        specs = specs_below(paths or ["."])
        if fix:
            for path in specs:
                _fix_one(path, facts, settings.rules)
        answers = lint_paths(specs, Linter(facts=facts, rules=settings.rules))
        assert len(answers) == len(specs), "every spec has an answer"
    except TraceError as error:
        print(f"error: {error}", file=sys.stderr)
        return ExitCode.COULD_NOT_RUN
    results = tuple(answer for answer in answers if isinstance(answer, LintResult))
    unread = tuple(answer for answer in answers if isinstance(answer, SpecError))
    if results or output in (LintFormat.JSON, LintFormat.SARIF):
        _show(results, output)
    for complaint in unread:
        print(f"error: {complaint}", file=sys.stderr)
    if unread:
        return ExitCode.COULD_NOT_RUN
    return ExitCode.FINDINGS if _fails(results, settings) else ExitCode.FINE


def _rules(given: list[str] | None, option: str) -> frozenset[str] | None:
    """The rules that an option names, which may stand several times; None when it is not there."""
    if given is None:
        return None
    names = (name.strip() for item in given for name in item.split(","))
    return rule_names((name for name in names if name), where=option, ignoring=option == "--ignore")


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
    show = printer()
    match output:
        case LintFormat.FULL:
            print_full(results, show)
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
    from trace_dsl.format.files import extended_by, replace_file  # of use here alone

    if path == STDIN:
        raise SpecError("--fix changes files, and standard input is none; name the file instead of -")
    spec = read_spec_bytes(path)
    fixed = fix_text(spec.text, facts, path=path, selection=rules)
    if not fixed.removed:
        return
    child = extended_by(Path(path))
    if child is not None:
        print(f"left alone {path}: {child} extends it and may use what looks unused here", file=sys.stderr)
        return
    replace_file(path, spec.encoded(fixed.text))
    for removed in fixed.removed:
        print(f"fixed {path}: took out {removed}", file=sys.stderr)
