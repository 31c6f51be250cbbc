"""Text -> spec and findings: parse, resolve, check, and apply `# trace: ignore[...]` comments."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from trace_dsl.checks import RULES, check, unused_suppression
from trace_dsl.checks.removals import Removal, removals
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, Place, Replacement, Severity, Spec
from trace_dsl.resolve import resolve
from trace_dsl.rules import DEFAULT_RULES, LANGUAGE_RULES, LanguageRule, RuleSelection
from trace_dsl.spec_files import read_spec_bytes
from trace_dsl.syntax import ParsedSource, Suppression, parse_source
from trace_dsl.vocabulary import did_you_mean

_LANGUAGE = frozenset(rule.name for rule in LANGUAGE_RULES)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceFile:
    """A file that was read, so that a diagnostic can be shown with its line. `path` is "" for the spec itself."""

    path: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LintResult:
    """`spec` is None when there are errors of the language; with findings of rules alone it is complete.

    `not_evaluated` names the rules that were silent because the facts of a run were not given.
    """

    path: str
    spec: Spec | None
    diagnostics: tuple[Diagnostic, ...]
    sources: tuple[SourceFile, ...]
    not_evaluated: tuple[str, ...] = ()

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        return tuple(found for found in self.diagnostics if found.severity is Severity.ERROR)


def parse_spec(text: str, *, path: str = "<text>") -> tuple[Spec | None, tuple[Diagnostic, ...]]:
    """Parse and resolve a spec without judging it; the spec is None when there are errors.

    `path` names the text in messages, and `extends` is looked up from its folder.
    """
    resolved = resolve(parse_source(path, text))
    return (None if resolved.diagnostics else resolved.spec), resolved.diagnostics


def lint_text(
    text: str, facts: RunFacts | None = None, *, path: str = "<text>", selection: RuleSelection = DEFAULT_RULES
) -> LintResult:
    """Everything that is wrong with a spec, in the order of the file. Never raises for what a spec says.

    selection: the rules that judge it; errors of the language are always found.
    """
    resolved = resolve(parse_source(path, text))
    found = (*resolved.diagnostics, *check(resolved.spec, facts, selection))
    kept, comments = _apply_suppressions(found, resolved.sources, facts, selection)
    diagnostics = tuple(sorted((*kept, *comments), key=lambda d: (d.place.path, d.place.line, d.place.column, d.rule)))
    return LintResult(
        path=path,
        spec=None if resolved.diagnostics else resolved.spec,
        diagnostics=diagnostics,
        sources=tuple(
            SourceFile(path="" if index == 0 else source.path, text=source.text)
            for index, source in enumerate(resolved.sources)
        ),
        not_evaluated=tuple(
            rule.name for rule in RULES.values() if facts is None and rule.needs_facts and selection.takes(rule)
        ),
    )


def lint_file(
    path: Path | str, facts: RunFacts | None = None, *, selection: RuleSelection = DEFAULT_RULES
) -> LintResult:
    """`lint_text` of a file; raises SpecError when the file cannot be read."""
    return lint_text(read_spec_bytes(str(path)).text, facts, path=str(path), selection=selection)


# --------------------------------------------------------------------------------------------------------------- fixes


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedText:
    """A spec's text after what nothing uses was taken out, in the order of `removed`."""

    text: str
    removed: tuple[str, ...]
    result: LintResult


def removal_of(found: Diagnostic, text: str, *, path: str = "<text>") -> Removal | None:
    """What can be taken out to settle a finding; None when nothing can, or the spec would mean something else then."""
    before = parse_spec(text, path=path)[0]
    for removal in removals((found,), parse_source(path, text)):
        if len(removal.text) < len(text) and _means_the_same(before, parse_spec(removal.text, path=path)[0]):
            return removal
    return None


def fix_text(
    text: str, facts: RunFacts | None = None, *, path: str = "<text>", selection: RuleSelection = DEFAULT_RULES
) -> FixedText:
    """Take out unused lets, teachers and ignore comments, as long as the spec means the same without them.

    A spec with errors of the language is left as it is. When something new would be found in the text afterwards,
    nothing is taken out at all.
    """
    first = lint_text(text, facts, path=path, selection=selection)
    now, removed = FixedText(text=text, removed=(), result=first), True
    while removed:
        removed = False
        for removal in removals(now.result.diagnostics, parse_source(path, now.text)):
            after = lint_text(removal.text, facts, path=path, selection=selection)
            if len(removal.text) < len(now.text) and _means_the_same(now.result.spec, after.spec):
                now = FixedText(text=removal.text, removed=(*now.removed, removal.removed), result=after)
                removed = True
                break
    if Counter(map(_what, now.result.diagnostics)) - Counter(map(_what, first.diagnostics)):
        return FixedText(text=text, removed=(), result=first)
    return now


def _what(found: Diagnostic) -> tuple[str, str]:
    return found.rule, found.message


def _means_the_same(before: Spec | None, after: Spec | None) -> bool:
    """Whether two specs train alike; the later one may lack teachers, which nothing follows then."""
    if before is None or after is None:
        return False
    return _meaning(before) == _meaning(after) and _teachers(after) <= _teachers(before)


def _meaning(spec: Spec) -> tuple[object, ...]:
    """Everything about a spec that a run follows, without places and names of lets."""
    return (
        spec.spans_declared,
        [(label.name, label.cap) for label in spec.labels],
        (spec.advantage.kind, spec.advantage.scale_by_std),
        [(source.name, source.sees, source.when, source.n, source.cached) for source in spec.rollouts],
        [
            (route.labels, route.when, route.rows, [(loss.kernel, loss.weight, loss.per) for loss in route.channels])
            for route in spec.routes
        ],
    )


def _teachers(spec: Spec) -> set[tuple[object, ...]]:
    return {(teacher.name, teacher.source, teacher.sees) for teacher in spec.teachers}


# -------------------------------------------------------------------------------------------------------- suppressions


def _apply_suppressions(
    found: tuple[Diagnostic, ...],
    sources: tuple[ParsedSource, ...],
    facts: RunFacts | None,
    selection: RuleSelection,
) -> tuple[tuple[Diagnostic, ...], tuple[Diagnostic, ...]]:
    """(the findings that stay, what is wrong with the comments). Errors of the language cannot be silenced."""
    silenced: set[Diagnostic] = set()
    comments: list[Diagnostic] = []
    spec_is_whole = not any(diagnostic.rule in _LANGUAGE for diagnostic in found)
    for source in sources:
        for suppression in source.suppressions:
            for rule, rule_place in zip(suppression.rules, suppression.rule_places, strict=True):
                refusal = _refusal(rule, rule_place, suppression)
                if refusal is not None:
                    comments.append(refusal)
                    continue
                hit = {d for d in found if d.rule == rule and _on_line(d, suppression)}
                silenced |= hit
                info = RULES[rule]
                judged = spec_is_whole and selection.takes(info) and (facts is not None or not info.needs_facts)
                if not hit and judged and selection.takes(unused_suppression.RULE):
                    comments.append(unused_suppression.unused(rule, suppression.place))
    return tuple(d for d in found if d not in silenced), tuple(comments)


def _on_line(diagnostic: Diagnostic, suppression: Suppression) -> bool:
    place, comment = diagnostic.place, suppression.place
    return place.path == comment.path and place.line <= comment.line <= place.end_line


def _refusal(rule: str, rule_place: Place, suppression: Suppression) -> Diagnostic | None:
    if rule in RULES and rule not in _LANGUAGE and rule != "unused-suppression":
        return None
    replacement: Replacement | None = None
    if rule in RULES:
        message, fix = f"`{rule}` cannot be ignored: without it the spec has no meaning", "mend the line"
    else:
        message = f"there is no rule `{rule}`"
        suggestion = did_you_mean(rule, (name for name in RULES if name not in _LANGUAGE))
        fix, replacement = suggestion.text, suggestion.at(rule_place)
    return Diagnostic(
        rule=LanguageRule.BAD_SUPPRESSION.value,
        severity=Severity.ERROR,
        place=suppression.place,
        message=message,
        consequence="the comment silences nothing",
        fix=fix,
        replacement=replacement,
    )
