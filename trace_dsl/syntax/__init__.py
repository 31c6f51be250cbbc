"""Text -> syntax tree and diagnostics: a statement at a time, by the tables of the grammar."""

from trace_dsl.syntax.parse import ParsedSource, parse_source
from trace_dsl.syntax.suppressions import Suppression

__all__ = ["ParsedSource", "Suppression", "parse_source"]
