"""What the language can say and this version of the engine does not run yet: found before a run, never during one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import assert_never

from trace_dsl.facts import RunFacts
from trace_dsl.lint import LintResult
from trace_dsl.model import K3, Channel, Diagnostic, Place, Severity, Spec
from trace_dsl.plan.measurements import MEASURED
from trace_dsl.plan.plan import advantage_of
from trace_dsl.terms import Apply, Constant, Expr, Operation, Reduce, Scanned, Scheduled, Scope, Signal

RULE = "engine-unsupported"

ROW_SIGNALS = frozenset({"reward", "correct", "wrong", "len", "A"})
GROUP_SIGNALS = frozenset({"all_correct", "all_wrong", "mixed", "group_size"})
TOKEN_SIGNALS = frozenset({"pos", "old_logp", "source"})
K3_NOT_AT_HAND = frozenset({"ref", "base"})
KNOWN_SIGNALS = ROW_SIGNALS | GROUP_SIGNALS | TOKEN_SIGNALS | MEASURED | {"step"}


def with_unsupported(result: LintResult, facts: RunFacts | None) -> LintResult:
    """What was found, and with a run also what `train` would refuse: see `unsupported`."""
    if facts is None or result.spec is None:
        return result
    found = sorted((*result.diagnostics, *unsupported(result.spec)), key=lambda d: d.place)
    return replace(result, diagnostics=tuple(found))


def unsupported(spec: Spec) -> Iterator[Diagnostic]:
    """One error for everything in `spec` that the engine cannot run."""
    for source in spec.rollouts:
        yield _finding(source.place, f"extra rollouts ({source.name!r}) are not sampled", "remove the statement")
    for route in spec.routes:
        if route.when is not None:
            yield from _in_expression(route.when, route.place)
        for channel in route.channels:
            yield from _in_channel(channel)


def _in_channel(channel: Channel) -> Iterator[Diagnostic]:
    kernel, place = channel.kernel, channel.place
    if isinstance(kernel, K3) and kernel.to in K3_NOT_AT_HAND:
        yield _finding(
            place,
            f"k3(to={kernel.to}) is not run: the engine keeps no log-probs of that policy",
            "use rkl with a frozen self teacher, or k3(to=old)",
        )
    for expr in (channel.weight, advantage_of(channel)):
        if expr is not None:
            yield from _in_expression(expr, place)


def _in_expression(expr: Expr, place: Place) -> Iterator[Diagnostic]:
    match expr:
        case Signal(name=name):
            if name not in KNOWN_SIGNALS and not name.startswith("has_"):
                yield _finding(
                    place,
                    f"the signal {name!r} is not measured",
                    f"use one of {', '.join(sorted(KNOWN_SIGNALS))} or has(...)",
                )
        case Reduce(over=over, value=value):
            if over is Scope.MICRO:
                yield _finding(place, "over=micro depends on how the batch is cut", "use over=batch")
            if value is not None:
                yield from _in_expression(value, place)
        case Operation(args=args) | Apply(args=args) | Scanned(args=args):
            for arg in args:
                yield from _in_expression(arg, place)
        case Constant() | Scheduled():
            pass
        case _:
            assert_never(expr)


def _finding(place: Place, message: str, fix: str) -> Diagnostic:
    return Diagnostic(
        rule=RULE,
        severity=Severity.ERROR,
        place=place,
        message=message,
        consequence="the run would stop before its first step",
        fix=fix,
    )
