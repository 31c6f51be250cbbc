"""The syntax tree: a spec as written, before names are looked up. Every node knows its place."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from trace_dsl.model import Place
from trace_dsl.terms import Operator


class Unit(StrEnum):
    """What follows a number: `10%`, `30 steps`, `2e6 tokens`, or nothing."""

    NONE = ""
    PERCENT = "%"
    STEPS = "steps"
    TOKENS = "tokens"


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    name: str
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """`text` is the literal as written; `is_integer` says that it has neither point nor exponent."""

    value: float
    unit: Unit
    is_integer: bool
    text: str
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    value: str
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class TupleOf:
    items: tuple[Node, ...]
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """`name` is None for a positional argument."""

    name: Name | None
    value: Node
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    function: Name
    arguments: tuple[Argument, ...]
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Unary:
    operator: Operator
    operand: Node
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Binary:
    operator: Operator
    left: Node
    right: Node
    place: Place


Node = Name | Number | Text | TupleOf | Call | Unary | Binary
Callable = Name | Call


# ---------------------------------------------------------------------------------------------------------- statements


@dataclass(frozen=True, slots=True, kw_only=True)
class SpansStatement:
    labels: tuple[Callable, ...]
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherStatement:
    """`name` is None for `teacher = ...`, the teacher named "teacher"."""

    name: Name | None
    value: Callable
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvantageStatement:
    value: Callable
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutsStatement:
    name: Name
    value: Callable
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class LetStatement:
    name: Name
    value: Node
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtendsStatement:
    target: Text
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """`text` is the call as written, on one line."""

    value: Callable
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteStatement:
    """`text` is selector and predicate as written, without the colon."""

    selectors: tuple[Name, ...]
    when: Node | None
    losses: tuple[Loss, ...]
    place: Place
    text: str


class StatementKind(StrEnum):
    """What a broken statement seems to be, from the word it starts with."""

    SPANS = "spans"
    TEACHER = "teacher"
    ADVANTAGE = "advantage"
    ROLLOUTS = "rollouts"
    LET = "let"
    EXTENDS = "extends"
    ROUTE = "route"


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokenStatement:
    """A statement that does not parse: what it declares still counts, and what it mentions may be in use."""

    kind: StatementKind
    declares: tuple[str, ...]
    mentions: frozenset[str]
    place: Place


Statement = (
    SpansStatement
    | TeacherStatement
    | AdvantageStatement
    | RolloutsStatement
    | LetStatement
    | ExtendsStatement
    | RouteStatement
    | BrokenStatement
)


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly below an expression node."""
    match node:
        case TupleOf():
            return node.items
        case Call():
            return tuple(argument.value for argument in node.arguments)
        case Unary():
            return (node.operand,)
        case Binary():
            return (node.left, node.right)
        case Name() | Number() | Text():
            return ()


def expressions_of(statement: Statement) -> tuple[Node, ...]:
    """The expressions that stand in a statement, in order."""
    match statement:
        case SpansStatement():
            return statement.labels
        case TeacherStatement() | AdvantageStatement() | RolloutsStatement() | LetStatement():
            return (statement.value,)
        case RouteStatement():
            when = () if statement.when is None else (statement.when,)
            return (*when, *(loss.value for loss in statement.losses))
        case ExtendsStatement() | BrokenStatement():
            return ()
        case _:
            assert_never(statement)


def names_in(*nodes: Node | None) -> frozenset[str]:
    """Every name that stands in expressions, called functions and argument values alike."""
    found: set[str] = set()
    waiting = [node for node in nodes if node is not None]
    while waiting:
        node = waiting.pop()
        if isinstance(node, Name):
            found.add(node.name)
        elif isinstance(node, Call):
            found.add(node.function.name)
        waiting.extend(children(node))
    return frozenset(found)


def depth_of(node: Node) -> int:
    """How many levels an expression has; safe for any depth."""
    deepest = 0
    waiting = [(node, 1)]
    while waiting:
        current, depth = waiting.pop()
        deepest = max(deepest, depth)
        waiting.extend((child, depth + 1) for child in children(current))
    return deepest
