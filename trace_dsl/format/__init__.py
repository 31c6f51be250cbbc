"""Spec text -> the same spec in the one canonical form: spacing, line breaks, aligned columns; comments stay."""

from trace_dsl.format.source import format_source

__all__ = ["format_source"]
