"""What a word of the language or a rule means, for people."""

from trace_dsl.explain.entries import Entry, Kind, entries, find
from trace_dsl.explain.pages import RulePage, rule_pages

__all__ = ["Entry", "Kind", "RulePage", "entries", "find", "rule_pages"]
