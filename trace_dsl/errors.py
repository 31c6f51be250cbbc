"""The exceptions of this package. What a user got wrong in a spec is a `Diagnostic`; these are for its edges."""

from __future__ import annotations


class TraceError(Exception):
    """The root of every exception this package raises on purpose; its message is meant for people."""


class SpecError(TraceError, ValueError):
    """A spec cannot be used: it has errors, or it asks for something this run or engine cannot do."""


class RunFileError(TraceError, ValueError):
    """A run file is missing, unreadable, or says something that is not allowed."""
