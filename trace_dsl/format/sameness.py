"""Whether two texts parse to the same spec: their trees without places, and their ignore comments."""

from __future__ import annotations

import dataclasses
from functools import cache

from trace_dsl.syntax import ParsedSource
from trace_dsl.syntax.tree import Loss, Number, RouteStatement


def says_the_same(one: ParsedSource, other: ParsedSource) -> bool:
    """Whether statements and ignore comments are equal, up to where they stand and how they are spaced."""
    return _content(one) == _content(other)


def _content(parsed: ParsedSource) -> tuple[object, ...]:
    ignored = tuple((suppression.rules, suppression.reason) for suppression in parsed.suppressions)
    return (_bare(parsed.statements), ignored, tuple(found.rule for found in parsed.diagnostics))


def _bare(value: object) -> object:
    """A tree as nested tuples, without places and without texts kept as they were written."""
    if isinstance(value, tuple):
        return tuple(_bare(item) for item in value)
    kind: type = type(value)
    names = _meant(kind)
    return value if names is None else (kind.__name__, *(_bare(getattr(value, name)) for name in names))


@cache
def _meant(kind: type) -> tuple[str, ...] | None:
    """The fields of a node that say something; None for what is no node."""
    if not dataclasses.is_dataclass(kind):
        return None
    left_out = {"place", "text"} if issubclass(kind, Loss | Number | RouteStatement) else {"place"}
    return tuple(field.name for field in dataclasses.fields(kind) if field.name not in left_out)
