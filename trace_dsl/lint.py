"""Text -> spec and findings: parse, resolve, check, and apply `# trace: ignore[...]` comments."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from trace_dsl.checks import RULES, check
from trace_dsl.checks.unused_suppression import unused
from trace_dsl.errors import SpecError
from trace_dsl.facts import RunFacts
from trace_dsl.model import Diagnostic, Severity, Spec
from trace_dsl.resolve import resolve
from trace_dsl.rules import LANGUAGE_RULES, LanguageRule
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
    """`spec` is None when there are errors of the language; with findings of rules alone it is complete."""

    path: str
    spec: Spec | None
    diagnostics: tuple[Diagnostic, ...]
    sources: tuple[SourceFile, ...]

    @property
    def errors(self) -> tuple[Diagnostic, ...]:
        return tuple(found for found in self.diagnostics if found.severity is Severity.ERROR)


def read_spec(path: Path) -> str:
    """The text of a spec file; raises SpecError when it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error


def parse_spec(text: str, *, path: str = "<text>") -> tuple[Spec | None, tuple[Diagnostic, ...]]:
    """Parse and resolve a spec without judging it; the spec is None when there are errors.

    `path` names the text in messages, and `extends` is looked up from its folder.
    """
    resolved = resolve(parse_source(path, text))
    return (None if resolved.diagnostics else resolved.spec), resolved.diagnostics


def lint_text(text: str, facts: RunFacts | None = None, *, path: str = "<text>") -> LintResult:
    """Everything that is wrong with a spec, in the order of the file. Never raises for what a spec says."""
    resolved = resolve(parse_source(path, text))
    found = (*resolved.diagnostics, *check(resolved.spec, facts))
    kept, comments = _apply_suppressions(found, resolved.sources, facts)
    diagnostics = tuple(sorted((*kept, *comments), key=lambda d: (d.place.path, d.place.line, d.place.column, d.rule)))
    return LintResult(
        path=path,
        spec=None if resolved.diagnostics else resolved.spec,
        diagnostics=diagnostics,
        sources=tuple(
            SourceFile(path="" if index == 0 else source.path, text=source.text)
            for index, source in enumerate(resolved.sources)
        ),
    )


def lint_file(path: Path | str, facts: RunFacts | None = None) -> LintResult:
    """`lint_text` of a file; raises SpecError when the file cannot be read."""
    return lint_text(read_spec(Path(path)), facts, path=str(path))


# -------------------------------------------------------------------------------------------------------- suppressions


def _apply_suppressions(
    found: tuple[Diagnostic, ...], sources: tuple[ParsedSource, ...], facts: RunFacts | None
) -> tuple[tuple[Diagnostic, ...], tuple[Diagnostic, ...]]:
    """(the findings that stay, what is wrong with the comments). Errors of the language cannot be silenced."""
    silenced: set[Diagnostic] = set()
    comments: list[Diagnostic] = []
    spec_is_whole = not any(diagnostic.rule in _LANGUAGE for diagnostic in found)
    for source in sources:
        for suppression in source.suppressions:
            for rule in suppression.rules:
                refusal = _refusal(rule, suppression)
                if refusal is not None:
                    comments.append(refusal)
                    continue
                hit = {d for d in found if d.rule == rule and _on_line(d, suppression)}
                silenced |= hit
                judged = spec_is_whole and (facts is not None or not RULES[rule].needs_facts)
                if not hit and judged:
                    comments.append(unused(rule, suppression.place))
    return tuple(d for d in found if d not in silenced), tuple(comments)


def _on_line(diagnostic: Diagnostic, suppression: Suppression) -> bool:
    place, comment = diagnostic.place, suppression.place
    return place.path == comment.path and place.line <= comment.line <= place.end_line


def _refusal(rule: str, suppression: Suppression) -> Diagnostic | None:
    if rule in RULES and rule not in _LANGUAGE and rule != "unused-suppression":
        return None
    if rule in RULES:
        message, fix = f"`{rule}` cannot be ignored: without it the spec has no meaning", "mend the line"
    else:
        message = f"there is no rule `{rule}`"
        fix = did_you_mean(rule, (name for name in RULES if name not in _LANGUAGE))
    return Diagnostic(
        rule=LanguageRule.BAD_SUPPRESSION.value,
        severity=Severity.ERROR,
        place=suppression.place,
        message=message,
        consequence="the comment silences nothing",
        fix=fix,
    )
