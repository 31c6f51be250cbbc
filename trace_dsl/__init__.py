"""trace-dsl: a small language that says, token by token, which loss trains a language model.

This page is the public face of the language. It imports neither torch nor numpy; lowering and training live in
`trace_dsl.lowering` and beyond.
"""

from trace_dsl.checks import RULES, check
from trace_dsl.errors import RunFileError, SpecError, TraceError
from trace_dsl.facts import RunFacts
from trace_dsl.lint import LintResult, lint_file, lint_text, parse_spec
from trace_dsl.model import Diagnostic, Severity, Spec

__all__ = [
    "RULES",
    "Diagnostic",
    "LintResult",
    "RunFacts",
    "RunFileError",
    "Severity",
    "Spec",
    "SpecError",
    "TraceError",
    "check",
    "lint_file",
    "lint_text",
    "parse_spec",
]
