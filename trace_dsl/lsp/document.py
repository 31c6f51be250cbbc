"""An open spec as every answer reads it: its text, what it means, what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from trace_dsl.facts import RunFacts
from trace_dsl.lint import LintResult, lint_text
from trace_dsl.lsp.names import Named, Role, names_in_text
from trace_dsl.lsp.positions import Encoding, TextLines, text_lines
from trace_dsl.model import Place, Spec
from trace_dsl.plan.support import with_unsupported
from trace_dsl.resolve import Resolved, resolve
from trace_dsl.resolve.findings import is_length
from trace_dsl.rules import DEFAULT_RULES, LanguageRule, RuleSelection
from trace_dsl.spec_files import bare_newlines, line_end_of
from trace_dsl.syntax import ParsedSource, parse_source
from trace_dsl.syntax.tree import LetStatement, Text, TupleOf
from trace_dsl.terms import Expr


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What holds around a document: the rules that judge it, the facts of a run when one is set, where the rules'
    pages are on the web, and what is wrong with the settings that say so.
    """

    rules: RuleSelection = DEFAULT_RULES
    facts: RunFacts | None = None
    documentation: str = ""
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Document:
    """`text` has bare newlines, the editor's has `line_end`."""

    uri: str
    path: Path
    text: str
    line_end: str
    lines: TextLines
    around: Surroundings
    parsed: ParsedSource
    resolved: Resolved

    @property
    def spec(self) -> Spec:
        """Everything that is known of the spec, also when there are errors."""
        return self.resolved.spec

    @property
    def bases(self) -> tuple[ParsedSource, ...]:
        """The specs that this one extends, directly or in turn."""
        return self.resolved.sources[1:]

    @cached_property
    def result(self) -> LintResult:
        """What is wrong with the spec. Rules try every step of a run, so this takes longer than all the rest."""
        facts = self.around.facts
        found = lint_text(self.text, facts, path=str(self.path), selection=self.around.rules)
        return with_unsupported(found, facts)

    @property
    def parses(self) -> bool:
        """Whether every line is a statement."""
        return not any(found.rule == LanguageRule.SYNTAX.value for found in self.parsed.diagnostics)

    @cached_property
    def names(self) -> tuple[Named, ...]:
        """Every name in the text."""
        lets = frozenset(one.name for one in self.base_names if one.role is Role.LET)
        return names_in_text(self.text, lets=lets)

    @cached_property
    def base_names(self) -> tuple[Named, ...]:
        """Every name in the specs that this one extends; their places name their files."""
        return tuple(named for source in self.bases for named in names_in_text(source.text, path=source.path))

    @property
    def total_steps(self) -> int | None:
        """How many steps the run has, when one is set."""
        return None if self.around.facts is None else self.around.facts.total_steps

    def name_at(self, line: int, column: int) -> Named | None:
        """The name that a column is in or right behind."""
        at = (
            one for one in self.names if one.place.line == line and one.place.column <= column <= one.place.end_column
        )
        return next(at, None)

    def let_value(self, name: str) -> Expr | None:
        """What a let stands for; None when it is a pair, a text or a length, or has an error."""
        statement = self._let_statement(name)
        if statement is None or isinstance(statement.value, TupleOf | Text) or is_length(statement.value):
            return None
        if any(_within(found.place, statement.place) for found in self.resolved.diagnostics):
            return None
        return next((let.value for let in self.spec.lets if let.name == name), None)

    def written(self, name: str) -> tuple[str, ...]:
        """The lines of a let's statement as they are written."""
        statement = self._let_statement(name)
        if statement is None:
            return ()
        return self.lines_of(statement.place).lines[statement.place.line - 1 : statement.place.end_line]

    def _let_statement(self, name: str) -> LetStatement | None:
        statements = (statement for source in (self.parsed, *self.bases) for statement in source.statements)
        return next((one for one in statements if isinstance(one, LetStatement) and one.name.name == name), None)

    def uri_of(self, place: Place) -> str:
        """The file that a place is in."""
        return Path(place.path).resolve().as_uri() if place.path else self.uri

    def lines_of(self, place: Place) -> TextLines:
        """The text that a place is in."""
        if not place.path:
            return self.lines
        base = next(base for base in self.bases if base.path == place.path)
        return text_lines(base.text, self.lines.encoding)


def analyse(uri: str, text: str, path: Path, *, encoding: Encoding, around: Surroundings | None = None) -> Document:
    """Read a spec from the text that the editor has; `path` says from where `extends` is looked up."""
    around = around or Surroundings()
    bare = bare_newlines(text)
    parsed = parse_source(str(path), bare)
    return Document(
        uri=uri,
        path=path,
        text=bare,
        line_end=line_end_of(text),
        lines=text_lines(bare, encoding),
        around=around,
        parsed=parsed,
        resolved=resolve(parsed),
    )


def _within(inner: Place, outer: Place) -> bool:
    return inner.path == outer.path and outer.line <= inner.line <= outer.end_line
