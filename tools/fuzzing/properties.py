"""What must hold for every text, whatever it says."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tools.fuzzing.texts import ROOT
from trace_dsl.facts import RunFacts, StoredTeacher
from trace_dsl.format import format_source
from trace_dsl.lint import LintResult, fix_text, lint_text
from trace_dsl.model import Place
from trace_dsl.plan import compile_plan
from trace_dsl.plan.describe import default_steps, describe
from trace_dsl.plan.difference import difference
from trace_dsl.plan.support import unsupported
from trace_dsl.plan.table import table_rows
from trace_dsl.prove import covers, disjoint
from trace_dsl.report import as_json, concise, full, github, sarif
from trace_dsl.rules import LanguageRule, RuleSelection
from trace_dsl.syntax import parse_source

# Where the specs that a text may extend are looked up.
PATH = str(ROOT / "tests" / "language" / "golden" / "fuzzed.trace")
ALL_RULES = RuleSelection(pedantic=True)
MOST_SECONDS = 1.0
# So often, in percent of the cases, the slower properties are looked at.
_SELDOM = 5


T = TypeVar("T")


class Violation(AssertionError):
    """A property does not hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of one text. `seconds`: processor time of its slowest property."""

    parses: bool
    clean: bool
    findings: int
    seconds: float


def facts_of(rng: random.Random) -> RunFacts:
    """The facts of some run."""
    return RunFacts(
        total_steps=rng.choice((1, 30, 60)),
        group_size=rng.choice((1, 8)),
        annotator_labels=("key", "error"),
        teacher_contexts=rng.choice((("diagnosis",), ("diagnosis", "solution", "sibling", "feedback"), ())),
        vocab_size=64,
        max_response_tokens=128,
        stored_teachers=rng.choice(((), (StoredTeacher(rollouts="hinted", teacher="teacher", top_k=0),))),
    )


def check(text: str, seed: int) -> Outcome:
    """Look at all properties; raises Violation, or whatever the language raises, for the first that does not hold."""
    rng = random.Random(seed)
    facts = facts_of(rng)
    clock = _Clock()
    bare = clock.timed("lint", lambda: lint_text(text, path=PATH))
    run = clock.timed("lint with a run", lambda: lint_text(text, facts, path=PATH, selection=ALL_RULES))
    for result in (bare, run):
        _findings_are_sound(result, text)
    parses = not any(found.rule == LanguageRule.SYNTAX.value for found in bare.diagnostics)
    if parses:
        clock.timed("fmt", lambda: _formats(text, bare))
    if run.spec is not None and not run.errors:
        clock.timed("plan", lambda: _plans(run, facts))
    if rng.randrange(100) < _SELDOM:
        clock.timed("rest", lambda: _seldom(text, facts, run))
    return Outcome(parses=parses, clean=not bare.diagnostics, findings=len(bare.diagnostics), seconds=clock.slowest)


class _Clock:
    def __init__(self) -> None:
        self.slowest = 0.0

    def timed(self, what: str, work: Callable[[], T]) -> T:
        begun = time.process_time()
        result = work()
        took = time.process_time() - begun
        self.slowest = max(self.slowest, took)
        if took > MOST_SECONDS:
            raise Violation(f"{what} took {took:.1f} s")
        return result


def _findings_are_sound(result: LintResult, text: str) -> None:
    """Every finding says something, about a place in the file it names."""
    files = {source.path: source.text for source in result.sources}
    if files[""] != text:
        raise Violation("the text in the result is not the text that was linted")
    for found in result.diagnostics:
        if not found.message.strip() or not found.rule:
            raise Violation(f"a finding without a message: {found}")
        for place in (found.place, *(other.place for other in found.others)):
            if place.path not in files:
                raise Violation(f"a place in a file that was not read: {found}")
            _is_inside(place, files[place.path], found.message)


def _is_inside(place: Place, text: str, message: str) -> None:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if not 1 <= place.line <= place.end_line <= len(lines):
        raise Violation(f"line {place.line} to {place.end_line} of {len(lines)}: {message}")
    # One column behind the last character is where something is missing; its mark ends one further.
    if not 1 <= place.column <= len(lines[place.line - 1]) + 1:
        raise Violation(f"column {place.column} of a line of {len(lines[place.line - 1])}: {message}")
    if not 1 <= place.end_column <= len(lines[place.end_line - 1]) + 2:
        raise Violation(f"end column {place.end_column} of a line of {len(lines[place.end_line - 1])}: {message}")
    if (place.line, place.column) >= (place.end_line, place.end_column):
        raise Violation(f"a place of nothing: {place}: {message}")


def _formats(text: str, bare: LintResult) -> None:
    """Formatting gives a text that formats to itself and is linted alike."""
    once = format_source(parse_source(PATH, text))
    if format_source(parse_source(PATH, once)) != once:
        raise Violation("formatting twice is not formatting once")
    before, after = (Counter(found.rule for found in x.diagnostics) for x in (bare, lint_text(once, path=PATH)))
    if before != after:
        raise Violation(f"formatting changes what is found: {before - after} lost, {after - before} new")


def _plans(result: LintResult, facts: RunFacts) -> None:
    """A spec without errors has a plan that can be shown and stored."""
    spec = result.spec
    assert spec is not None
    plan = compile_plan(spec, facts)
    shown = describe(plan, default_steps(plan), unsupported(spec))
    shown.to_json()
    list(table_rows(shown))


def _seldom(text: str, facts: RunFacts, result: LintResult) -> None:
    """Everything else that reads a spec or shows findings."""
    if lint_text(text, facts, path=PATH, selection=ALL_RULES) != result:
        raise Violation("the same text is linted in two ways")
    for block in full(result):
        if not block.plain.strip():
            raise Violation("an empty block")
    for shown in (as_json((result,)), sarif((result,)), *github((result,)), *concise(result)):
        shown.encode("utf-8", "surrogatepass")
    fixed = fix_text(text, facts, path=PATH)
    if fixed.removed and fix_text(fixed.text, facts, path=PATH).removed:
        raise Violation("fixing twice takes out more than fixing once")
    if result.spec is not None:
        if difference(result.spec, result.spec, facts).changes:
            raise Violation("a spec differs from itself")
        covers(result.spec)
        disjoint(result.spec)
