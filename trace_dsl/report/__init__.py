"""How findings are shown: `full` for people, `concise` for editors and grep, `json`, `github` and `sarif` for programs.

The format never changes what is found nor the exit code.
"""

from trace_dsl.report._people import concise, full, print_full, render, summary
from trace_dsl.report._programs import as_json, github, whole_message
from trace_dsl.report._sarif import sarif
from trace_dsl.report._styled import Styled

__all__ = [
    "Styled",
    "as_json",
    "concise",
    "full",
    "github",
    "print_full",
    "render",
    "sarif",
    "summary",
    "whole_message",
]
