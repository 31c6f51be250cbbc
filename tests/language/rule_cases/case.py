"""What is tried for one rule."""

from __future__ import annotations

from dataclasses import dataclass

from trace_dsl.facts import RunFacts
from trace_dsl.rules import RuleSelection


@dataclass(frozen=True, kw_only=True)
class Case:
    """`fires`: specs in which the rule finds something once; `misses`: specs close to them in which it does not."""

    rule: str
    fires: tuple[str, ...]
    misses: tuple[str, ...]
    run: RunFacts | None = None
    pedantic: bool = False

    @property
    def selection(self) -> RuleSelection:
        return RuleSelection(pedantic=self.pedantic)
