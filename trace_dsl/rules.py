"""What a rule is, and the rules of the language itself: those without which a spec has no meaning.

The rules that read a finished spec live in `trace_dsl.checks`, one module each.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from trace_dsl.model import Severity


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleInfo:
    """`needs_facts`: the rule is silent unless the facts of a run are known; `pedantic`: unless it is asked for."""

    name: str
    severity: Severity
    summary: str
    needs_facts: bool = False
    pedantic: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleSelection:
    """Which rules are to judge a spec. Without `select` all do, the pedantic ones when asked for; with it, just those.

    The rules of the language are not chosen: without them a spec has no meaning.
    """

    select: frozenset[str] = frozenset()
    ignore: frozenset[str] = frozenset()
    pedantic: bool = False

    def takes(self, rule: RuleInfo) -> bool:
        """Whether a rule is among them."""
        if rule.name in self.ignore:
            return False
        return rule.name in self.select if self.select else self.pedantic or not rule.pedantic


DEFAULT_RULES = RuleSelection()


class LanguageRule(StrEnum):
    SYNTAX = "syntax"
    BAD_EXTENDS = "bad-extends"
    BAD_SUPPRESSION = "bad-suppression"
    DUPLICATE_NAME = "duplicate-name"
    UNKNOWN_NAME = "unknown-name"
    UNKNOWN_SPAN = "unknown-span"
    UNKNOWN_ARGUMENT = "unknown-argument"
    MISSING_ARGUMENT = "missing-argument"
    DUPLICATE_ARGUMENT = "duplicate-argument"
    INVALID_VALUE = "invalid-value"
    AMBIGUOUS_UNIT = "ambiguous-unit"
    WRONG_RANK = "wrong-rank"
    TEACHER_UNDECLARED = "teacher-undeclared"


_SUMMARIES = {
    LanguageRule.SYNTAX: "a line is not a statement of the language",
    LanguageRule.BAD_EXTENDS: "an extended spec is missing, not a relative path, or extends itself",
    LanguageRule.BAD_SUPPRESSION: "an ignore comment names no known rule or gives no reason",
    LanguageRule.DUPLICATE_NAME: "a name is given twice, or is a word of the language",
    LanguageRule.UNKNOWN_NAME: "a signal, function, loss or word that does not exist",
    LanguageRule.UNKNOWN_SPAN: "a route takes a label that `spans` does not declare, or that looks misspelt without it",
    LanguageRule.UNKNOWN_ARGUMENT: "an argument that the call does not have",
    LanguageRule.MISSING_ARGUMENT: "an argument that the call cannot do without",
    LanguageRule.DUPLICATE_ARGUMENT: "an argument given twice",
    LanguageRule.INVALID_VALUE: "a value outside what its argument allows",
    LanguageRule.AMBIGUOUS_UNIT: "a length that could be steps, a share of the run, or tokens",
    LanguageRule.WRONG_RANK: "a value of the wrong kind, or that varies more finely than its place allows",
    LanguageRule.TEACHER_UNDECLARED: "a loss or signal names a teacher that no statement declares",
}

LANGUAGE_RULES: tuple[RuleInfo, ...] = tuple(
    RuleInfo(name=rule.value, severity=Severity.ERROR, summary=_SUMMARIES[rule]) for rule in LanguageRule
)
