"""An ignore comment that silences nothing. Read by `trace_dsl.lint`, which knows what was silenced."""

from __future__ import annotations

from trace_dsl.checks.reading import finding
from trace_dsl.model import Diagnostic, Place, Severity
from trace_dsl.rules import RuleInfo

RULE = RuleInfo(
    name="unused-suppression",
    severity=Severity.WARNING,
    summary="an ignore comment on a line where its rule finds nothing",
)


def unused(rule: str, place: Place) -> Diagnostic:
    """The warning for one rule that a comment names in vain."""
    return finding(
        RULE,
        place,
        f"`{rule}` finds nothing on this line",
        consequence="the comment would silence a later mistake here",
        fix=f"take `{rule}` out of the comment",
    )


def rule_of(diagnostic: Diagnostic) -> str:
    """The rule that a warning of `unused` speaks of."""
    return diagnostic.message.split("`")[1]
