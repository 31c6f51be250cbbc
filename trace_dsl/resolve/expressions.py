"""Syntax -> expressions: names, operators, ranks, and what is a number and what a predicate."""

from __future__ import annotations

import math
from typing import assert_never

from trace_dsl.expressions import apply_operator, is_larger_than, text_of
from trace_dsl.model import OtherPlace, Place
from trace_dsl.resolve.comparisons import misspelt_source, refused, source_comparison
from trace_dsl.resolve.elsewhere import for_value
from trace_dsl.resolve.findings import Context, LetEntry, Typed, is_above, is_length
from trace_dsl.rules import LanguageRule
from trace_dsl.syntax.tree import Binary, Call, Name, Node, Number, Text, TupleOf, Unary, Unit
from trace_dsl.terms import Constant, Expr, Operation, Operator, Signal
from trace_dsl.vocabulary import (
    FUNCTIONS,
    LOSSES,
    NO_LOSS,
    ROWS,
    SIGNALS,
    SOURCES,
    SignalInfo,
    Suggestion,
    ValueKind,
)

MAX_NODES = 5_000
MAX_DEPTH = 100
# An expression is put into a fix up to so many characters.
LONGEST_SHOWN = 40

_LOGICAL = frozenset({Operator.AND, Operator.OR, Operator.NOT})
_ARITHMETIC = frozenset({Operator.NEG, Operator.ADD, Operator.SUB, Operator.MUL, Operator.DIV})


def expression(context: Context, node: Node) -> Typed | None:
    """The expression a node stands for; None, with an error recorded, when it stands for none."""
    match node:
        case Number():
            return _number_literal(context, node)
        case Name():
            return _name(context, node)
        case Call():
            return context.resolve_call(context, node)
        case Unary():
            return _unary(context, node)
        case Binary():
            return _binary(context, node)
        case Text():
            context.error(
                LanguageRule.WRONG_RANK,
                node.place,
                f'"{node.value}": a text is not a value',
                fix=_without_quotes(context, node) or "texts are the arguments of model(...) and cached(...)",
            )
            return None
        case TupleOf():
            context.error(
                LanguageRule.WRONG_RANK,
                node.place,
                "a pair is not a value; pairs stand in arguments such as clip=",
                fix="write one value",
            )
            return None
        case _:
            assert_never(node)


def number(context: Context, node: Node, what: str) -> Expr | None:
    """An expression that must be a number."""
    return of_kind(context, node, ValueKind.NUMBER, what)


def predicate(context: Context, node: Node, what: str) -> Expr | None:
    """An expression that must be a predicate."""
    return of_kind(context, node, ValueKind.PREDICATE, what)


def of_kind(context: Context, node: Node, kind: ValueKind, what: str) -> Expr | None:
    """An expression of a kind, small enough to be worked with."""
    typed = expression(context, node)
    if typed is None:
        return None
    if typed.kind is not kind:
        wrong_kind(context, node.place, typed, kind, what)
        return None
    if is_larger_than(typed.expr, nodes=MAX_NODES, depth=MAX_DEPTH):
        context.error(
            LanguageRule.INVALID_VALUE,
            node.place,
            f"with its lets put in place this expression has more than {MAX_NODES} parts or {MAX_DEPTH} levels",
            fix="write a smaller one",
        )
        return None
    return typed.expr


def wrong_kind(context: Context, place: Place, found: Typed, wanted: ValueKind, what: str) -> None:
    """Record that a number stands where a predicate is meant, or the other way round."""
    written = text_of(found.expr)
    short = len(written) <= LONGEST_SHOWN
    fix: str | Suggestion
    if found.kind is ValueKind.SOURCE:
        message, fix = (
            "`source` is who wrote a token and only compares with `model` or `tool`",
            "write `source == model` or `source == tool`",
        )
    elif wanted is ValueKind.NUMBER:
        message = f"{what} must be a number, but this is a predicate (true or false)"
        number_of = f"where({written}, 1, 0)"
        fix = Suggestion(near=number_of, words=f"write {number_of}") if short else "where(p, 1, 0) is a number"
    else:
        message = f"{what} must be a predicate (true or false), but this is a number"
        fix = f"compare it with something, as in `{written if short else 'x'} > 0`"
    context.error(LanguageRule.WRONG_RANK, place, message, fix=fix)


def signal(context: Context, info: SignalInfo, place: Place, teacher: str | None = None) -> Typed | None:
    """A signal; one that is about a teacher reads the default teacher unless `teacher` is given."""
    if info.of_teacher and teacher is None:
        teacher = context.teacher_by_default(place)
        if teacher is None:
            return None
    return Typed(expr=Signal(name=info.name, rank=info.rank, teacher=teacher), kind=info.kind)


# ---------------------------------------------------------------------------------------------------------------- names


def _number_literal(context: Context, node: Number) -> Typed | None:
    if is_length(node):
        context.error(
            LanguageRule.WRONG_RANK,
            node.place,
            f"`{node.text}` is a length; lengths stand in schedules only",
            fix=f"write {node.value:g} if a plain number is meant",
        )
        return None
    value = node.value / 100 if node.unit is Unit.PERCENT else node.value
    if value == float("inf"):
        context.error(
            LanguageRule.INVALID_VALUE,
            node.place,
            f"`{node.text}` is too large for a number",
            fix="write a smaller one",
        )
        return None
    return Typed(expr=Constant(value=value), kind=ValueKind.NUMBER)


def _name(context: Context, node: Name) -> Typed | None:
    entry = context.lets.get(node.name)
    if entry is not None:
        return _let(context, node, entry)
    info = SIGNALS.get(node.name)
    if info is not None:
        return signal(context, info, node.place)
    message, fix = _unknown_name(context, node.name)
    context.error(LanguageRule.UNKNOWN_NAME, node.place, message, fix=fix)
    return None


def _unknown_name(context: Context, name: str) -> tuple[str, str | Suggestion]:
    """The message for a name that is no value, and the fix."""
    if name in FUNCTIONS:
        return f"`{name}` is a function, not a value", f"call it, as in {name}(...)"
    if name in LOSSES:
        return f"`{name}` is a loss, not a value", "losses stand after the `:` of a route"
    if name in context.teachers:
        return f"`{name}` is a teacher, not a value", f"gap({name}) and teacher_logp({name}) are values"
    if name in context.rollouts or name == ROWS:
        return f"`{name}` is about rollout sources", "write `rows == NAME` in the `when` of a route"
    if name in context.labels:
        return f"`{name}` is a span label, not a value", "a route starts with its labels"
    if name in SOURCES:
        return f"`{name}` only compares with `source`", f"write `source == {name}`"
    said = for_value(name)
    if said is not None and (not context.lets or context.closest(name, context.lets) is None):
        return f"there is no `{name}`", said
    if name == NO_LOSS:
        return "`none` is no value", "leave the argument out; `trace-dsl explain` tells what it is then"
    near = context.closest(name, context.lets, SIGNALS)
    words = "" if near else f"write the value, or name one with `let {name} = ...`"
    return f"there is no signal or `let` called `{name}`", Suggestion(near=near, words=words)


def _let(context: Context, node: Name, entry: LetEntry) -> Typed | None:
    entry.uses += 1
    if not is_above(entry, node.place) and entry.state != "busy":
        context.error(
            LanguageRule.UNKNOWN_NAME,
            node.place,
            f"`{entry.name}` is read before its `let`",
            fix="move the `let` above this line",
            others=(OtherPlace(place=entry.place, note="it is given here"),),
        )
        return None
    value = resolve_let(context, entry, node)
    if value is None:
        context.broken = True
    return value


def resolve_let(context: Context, entry: LetEntry, reader: Name | None = None) -> Typed | None:
    """The value of a `let`, resolved once. A let that reads itself is an error, and so is one read as a value that is a
    pair, a text or a length: those are for the arguments that take them."""
    if isinstance(entry.node, TupleOf | Text) or is_length(entry.node):
        if reader is not None:
            context.error(
                LanguageRule.WRONG_RANK,
                reader.place,
                f"`{entry.name}` is a pair, a text or a length, not a value",
                fix="give it to an argument that takes one, or write a number or a predicate here",
            )
        return None
    if entry.state == "done":
        return entry.value
    if entry.state == "busy":
        context.error(
            LanguageRule.UNKNOWN_NAME,
            entry.place if reader is None else reader.place,
            f"`{entry.name}` reads itself",
            fix="give the two different names",
            others=(OtherPlace(place=entry.place, note="it is given here"),),
        )
        return None
    entry.state = "busy"
    outer = context.index, context.broken
    context.index, context.broken = entry.index, False
    if entry.node is not None:
        entry.value = expression(context, entry.node)
        if entry.value is not None and is_larger_than(entry.value.expr, nodes=MAX_NODES, depth=MAX_DEPTH):
            context.error(
                LanguageRule.INVALID_VALUE,
                entry.place,
                f"with its lets put in place `{entry.name}` has more than {MAX_NODES} parts or {MAX_DEPTH} levels",
                fix="write a smaller one",
            )
            entry.value = None
    entry.state = "done"
    context.index, context.broken = outer
    return entry.value


# ------------------------------------------------------------------------------------------------------------ operators


def _unary(context: Context, node: Unary) -> Typed | None:
    if node.operator is Operator.NOT:
        operand = predicate(context, node.operand, "what follows `not`")
        if operand is None:
            return None
        return Typed(expr=Operation(op=Operator.NOT, args=(operand,), rank=operand.rank), kind=ValueKind.PREDICATE)
    operand = number(context, node.operand, "what follows `-`")
    if operand is None:
        return None
    if isinstance(operand, Constant):
        return Typed(expr=Constant(value=-operand.value), kind=ValueKind.NUMBER)
    return Typed(expr=Operation(op=Operator.NEG, args=(operand,), rank=operand.rank), kind=ValueKind.NUMBER)


def _binary(context: Context, node: Binary) -> Typed | None:
    compared = source_comparison(node)
    if compared is not None:
        return compared
    misspelt = misspelt_source(context, node)
    if misspelt is not None:
        message, fix = _unknown_name(context, misspelt.name)
        context.error(LanguageRule.UNKNOWN_NAME, misspelt.place, message, fix=fix)
        return None
    if refused(context, node):
        return None
    wanted = ValueKind.PREDICATE if node.operator in _LOGICAL else ValueKind.NUMBER
    side = f"each side of `{node.operator.value}`"
    left = of_kind(context, node.left, wanted, side)
    right = of_kind(context, node.right, wanted, side)
    if left is None or right is None:
        return None
    if node.operator not in _ARITHMETIC:
        return Typed(
            expr=Operation(op=node.operator, args=(left, right), rank=max(left.rank, right.rank)),
            kind=ValueKind.PREDICATE,
        )
    return arithmetic(context, node.place, node.operator, left, right)


def arithmetic(context: Context, place: Place, op: Operator, left: Expr, right: Expr) -> Typed | None:
    """An operation on two numbers, carried out when both are constants."""
    if isinstance(right, Constant) and right.value == 0 and op is Operator.DIV:
        context.error(LanguageRule.INVALID_VALUE, place, "this divides by zero", fix="divide by a number that is not 0")
        return None
    if isinstance(left, Constant) and isinstance(right, Constant):
        value = apply_operator(op, (left.value, right.value))
        if not math.isfinite(value):
            context.error(
                LanguageRule.INVALID_VALUE, place, "this is too large for a number", fix="write smaller numbers"
            )
            return None
        return Typed(expr=Constant(value=value), kind=ValueKind.NUMBER)
    expr = Operation(op=op, args=(left, right), rank=max(left.rank, right.rank))
    return Typed(expr=expr, kind=ValueKind.NUMBER)


def _without_quotes(context: Context, node: Text) -> str:
    known = node.value in context.lets or node.value in SIGNALS
    return f"drop the quotes: {node.value}" if known else ""
