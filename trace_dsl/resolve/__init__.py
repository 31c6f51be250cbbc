"""Syntax tree -> `Spec` and diagnostics."""

from trace_dsl.resolve.spec import Resolved, resolve

__all__ = ["Resolved", "resolve"]
