"""Makes `syntax.tree` nodes of the rules of the grammar as the parser completes them: a method for each."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

from trace_dsl.model import Place
from trace_dsl.syntax.machine import Build, Token
from trace_dsl.syntax.tables import RULES
from trace_dsl.syntax.tree import (
    AdvantageStatement,
    Argument,
    Binary,
    Call,
    Callable,
    ExtendsStatement,
    LetStatement,
    Loss,
    Name,
    Node,
    Number,
    RolloutsStatement,
    RouteStatement,
    SpansStatement,
    TeacherStatement,
    Text,
    TupleOf,
    Unary,
    Unit,
)
from trace_dsl.terms import Operator

Span = tuple[int, int]

_BUILDING = frozenset(what for what, _, _, _ in RULES) - {"", "*"}
_UNITS = {"PERCENT": Unit.PERCENT, "STEPS": Unit.STEPS, "TOKENS": Unit.TOKENS}


class TreeBuilder:
    """Builds the nodes of one statement whose first line is line `first_line` of the file at `path`.

    A method gets the offsets at which its rule begins and ends, and its parts: nodes, tokens, None for what is absent.
    `operations` counts what expressions can be deep with: operators, calls and tuples.
    """

    def __init__(self, *, text: str, first_line: int, path: str) -> None:
        self._text = text
        self._offset = first_line - 1
        self._path = path
        self._line_starts = [0, *(match.end() for match in re.finditer("\n", text))]
        self.operations = 0

    @property
    def rules(self) -> Mapping[str, Build]:
        """The method of each rule that builds something."""
        return {what: getattr(self, what) for what in _BUILDING}

    def _place(self, at: Span) -> Place:
        start, end = at
        if len(self._line_starts) == 1:
            line = 1 + self._offset
            return Place(line=line, column=start + 1, end_line=line, end_column=end + 1, path=self._path)
        first, last = bisect_right(self._line_starts, start), bisect_right(self._line_starts, end)
        return Place(
            line=first + self._offset,
            column=start - self._line_starts[first - 1] + 1,
            end_line=last + self._offset,
            end_column=end - self._line_starts[last - 1] + 1,
            path=self._path,
        )

    def _written(self, start: int, end: int) -> str:
        return " ".join(self._text[start:end].split())

    def _name(self, token: Token) -> Name:
        return Name(name=token.text, place=self._place((token.start, token.end)))

    # ---- statements

    def spans(self, at: Span, items: list[Any]) -> SpansStatement:
        return SpansStatement(labels=tuple(items[1:]), place=self._place(at))

    def teacher(self, at: Span, items: list[Any]) -> TeacherStatement:
        _, token, value = items
        name = None if token is None else self._name(token)
        return TeacherStatement(name=name, value=value, place=self._place(at))

    def advantage(self, at: Span, items: list[Any]) -> AdvantageStatement:
        return AdvantageStatement(value=items[1], place=self._place(at))

    def rollouts(self, at: Span, items: list[Any]) -> RolloutsStatement:
        return RolloutsStatement(name=self._name(items[1]), value=items[2], place=self._place(at))

    def let(self, at: Span, items: list[Any]) -> LetStatement:
        return LetStatement(name=self._name(items[1]), value=items[2], place=self._place(at))

    def extends(self, at: Span, items: list[Any]) -> ExtendsStatement:
        path = items[1]
        target = Text(value=path.text[1:-1], place=self._place((path.start, path.end)))
        return ExtendsStatement(target=target, place=self._place(at))

    def selector(self, at: Span, items: list[Any]) -> tuple[Name, ...]:
        return tuple(self._name(token) for token in items)

    def losses(self, at: Span, items: list[Any]) -> tuple[Loss, ...]:
        return tuple(Loss(value=item, text=self._text_of(item)) for item in items)

    def _text_of(self, item: Callable) -> str:
        place = item.place
        lines = self._text.split("\n")[place.line - 1 - self._offset : place.end_line - self._offset]
        lines[-1] = lines[-1][: place.end_column - 1]
        lines[0] = lines[0][place.column - 1 :]
        text = " ".join(" ".join(lines).split())
        return re.sub(r",? \)", ")", text.replace("( ", "("))

    def route(self, at: Span, items: list[Any]) -> RouteStatement:
        selectors, _, when, losses = items
        start = at[0]
        # The first colon: no name, number or operator of a selector or predicate contains one; strings may.
        end = start
        in_string = False
        while in_string or self._text[end] != ":":
            in_string ^= self._text[end] == '"'
            end += 1
        return RouteStatement(
            selectors=selectors,
            when=when,
            losses=losses,
            place=self._place(at),
            text=self._written(start, end),
        )

    # ---- calls

    def call(self, at: Span, items: list[Any]) -> Call:
        token, arguments = items
        self.operations += 1
        return Call(function=self._name(token), arguments=arguments or (), place=self._place(at))

    def arguments(self, at: Span, items: list[Any]) -> tuple[Argument, ...]:
        return tuple(items)

    def named(self, at: Span, items: list[Any]) -> Argument:
        return Argument(name=self._name(items[0]), value=items[1], place=self._place(at))

    def positional(self, at: Span, items: list[Any]) -> Argument:
        return Argument(name=None, value=items[0], place=self._place(at))

    # ---- expressions

    def binary(self, at: Span, items: list[Any]) -> Binary:
        left, token, right = items
        self.operations += 1
        return Binary(operator=Operator(token.text), left=left, right=right, place=self._place(at))

    def unary(self, at: Span, items: list[Any]) -> Unary:
        self.operations += 1
        operator = Operator.NOT if items[0].text == "not" else Operator.NEG
        return Unary(operator=operator, operand=items[1], place=self._place(at))

    def group(self, at: Span, items: list[Any]) -> Node:
        inner: Node = items[0]
        return inner

    def tuple(self, at: Span, items: list[Any]) -> TupleOf:
        self.operations += 1
        return TupleOf(items=tuple(items), place=self._place(at))

    def name(self, at: Span, items: list[Any]) -> Name:
        return self._name(items[0])

    def text(self, at: Span, items: list[Any]) -> Text:
        return Text(value=items[0].text[1:-1], place=self._place(at))

    def number(self, at: Span, items: list[Any]) -> Number:
        token = items[0]
        unit = _UNITS[items[1].kind] if len(items) > 1 else Unit.NONE
        return Number(
            value=float(token.text),
            unit=unit,
            is_integer=token.text.isdigit(),
            text=self._written(*at),
            place=self._place(at),
        )
