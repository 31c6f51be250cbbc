"""The exceptions of this package. What a user got wrong in a spec is a `Diagnostic`; these are for its edges."""

from __future__ import annotations


class TraceError(Exception):
    """The root of every exception this package raises on purpose; its message is meant for people."""


class SpecError(TraceError, ValueError):
    """A spec cannot be used: it has errors, or it asks for something this run or engine cannot do."""


class RunFileError(TraceError, ValueError):
    """A run file is missing, unreadable, or says something that is not allowed."""


class PolicyError(TraceError, ValueError):
    """A policy's directory holds something else than a whole model of a known family."""


class LayersError(TraceError, ValueError):
    """The layers that a run file asks for cannot run on this machine."""


class OffloadError(TraceError, ValueError):
    """There is no device whose memory could be spared."""


class LayoutError(TraceError, ValueError):
    """The processes that were started are not those that the layout needs."""


class ExpectationError(TraceError, ValueError):
    """A file of expected weights cannot be read, or says something that is not allowed."""


class LoweringError(TraceError, ValueError):
    """A spec gave a weight or an advantage on a batch that no loss can use."""
