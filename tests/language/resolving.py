"""What a text means, or what is wrong with it."""

from __future__ import annotations

from trace_dsl.lint import parse_spec
from trace_dsl.model import (
    Channel,
    Spec,
)
from trace_dsl.terms import (
    Expr,
)


def spec_of(text: str) -> Spec:
    spec, diagnostics = parse_spec(text)
    assert diagnostics == ()
    assert spec is not None
    return spec


def channel_of(loss: str, before: str = "") -> Channel:
    return spec_of(f"{before}rest: {loss}\n").routes[-1].channels[0]


def value_of(expression: str, before: str = "") -> Expr:
    return channel_of(f"grpo(w={expression})", before).weight


def errors_of(text: str) -> list[tuple[str, str]]:
    """(rule, the text that is underlined) of every error of the language."""
    lines = text.split("\n")
    found = parse_spec(text)[1]
    return [(d.rule, lines[d.place.line - 1][d.place.column - 1 : d.place.end_column - 1]) for d in found]
