"""Text -> syntax tree and diagnostics: no parse tree of lark and no dict leaves this package."""

from trace_dsl.syntax.parse import ParsedSource, parse_source
from trace_dsl.syntax.suppressions import Suppression

__all__ = ["ParsedSource", "Suppression", "parse_source"]
