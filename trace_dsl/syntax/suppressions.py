"""Comments that silence a rule on their line: `# trace: ignore[rule-name] reason`."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from trace_dsl.model import Diagnostic, Place, Severity
from trace_dsl.syntax.lines import Comment

ADDRESSED = re.compile(r"#\s*trace\s*:")
WELL_FORMED = re.compile(r"#\s*trace\s*:\s*ignore\s*\[(?P<rules>[^\]]*)\]\s*(?P<reason>.*)")
_NAME = re.compile(r"[^\s,](?:[^,]*[^\s,])?")
RULE = "bad-suppression"


@dataclass(frozen=True, slots=True, kw_only=True)
class Suppression:
    """`place` is the whole comment's, `rule_places` the names' in it."""

    rules: tuple[str, ...]
    reason: str
    place: Place
    rule_places: tuple[Place, ...]


def read_suppressions(comments: tuple[Comment, ...]) -> tuple[tuple[Suppression, ...], tuple[Diagnostic, ...]]:
    """The suppressions among a file's comments, and an error for each that is malformed or gives no reason."""
    found: list[Suppression] = []
    wrong: list[Diagnostic] = []
    for comment in comments:
        if not ADDRESSED.match(comment.text):
            continue
        match = WELL_FORMED.match(comment.text)
        rules = tuple(rule.strip() for rule in match["rules"].split(",") if rule.strip()) if match else ()
        if match is None or not rules:
            message, fix = (
                "this comment speaks to the checker, but not as `ignore[rule-name] reason`",
                "write `# trace: ignore[rule-name] reason`",
            )
        elif not match["reason"].strip():
            message, fix = (
                f"ignore[{', '.join(rules)}] gives no reason",
                f"say why: `# trace: ignore[{', '.join(rules)}] reason`",
            )
        else:
            found.append(
                Suppression(
                    rules=rules,
                    reason=match["reason"].strip(),
                    place=comment.place,
                    rule_places=_places(comment, match),
                )
            )
            continue
        wrong.append(
            Diagnostic(
                rule=RULE,
                severity=Severity.ERROR,
                place=comment.place,
                message=message,
                consequence="the comment silences nothing",
                fix=fix,
            )
        )
    return tuple(found), tuple(wrong)


def _places(comment: Comment, match: re.Match[str]) -> tuple[Place, ...]:
    """Where the names of rules stand."""
    start = comment.place.column + match.start("rules")
    return tuple(
        replace(comment.place, column=start + name.start(), end_column=start + name.end())
        for name in _NAME.finditer(match["rules"])
    )
