"""The error of data."""

from __future__ import annotations

from trace_dsl.errors import TraceError


class DataError(TraceError, ValueError):
    """A file of problems cannot be read, or a row lacks what the task needs."""
