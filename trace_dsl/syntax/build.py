"""Turns a lark parse tree into `syntax.tree` nodes. Nothing of lark leaves this module and `parse`."""

from __future__ import annotations

import re
from typing import Any

from lark import Token, v_args
from lark.tree import Meta
from lark.visitors import Transformer_NonRecursive

from trace_dsl.model import Place
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

_UNITS = {"PERCENT": Unit.PERCENT, "STEPS": Unit.STEPS, "TOKENS": Unit.TOKENS}


@v_args(meta=True)
class TreeBuilder(Transformer_NonRecursive):  # type: ignore[type-arg]  # lark's class is generic only in its stubs
    """Builds the nodes of one statement whose first line is line `first_line` of the file at `path`."""

    def __init__(self, *, text: str, first_line: int, path: str) -> None:
        super().__init__()
        self._text = text
        self._offset = first_line - 1
        self._path = path

    def _place(self, at: Meta | Token) -> Place:
        assert at.line is not None
        assert at.column is not None
        assert at.end_line is not None
        assert at.end_column is not None
        return Place(
            line=at.line + self._offset,
            column=at.column,
            end_line=at.end_line + self._offset,
            end_column=at.end_column,
            path=self._path,
        )

    def _written(self, start: int, end: int) -> str:
        return " ".join(self._text[start:end].split())

    def _name(self, token: Token) -> Name:
        return Name(name=str(token), place=self._place(token))

    # ---- statements

    def spans(self, meta: Meta, items: list[Any]) -> SpansStatement:
        return SpansStatement(labels=tuple(items[1:]), place=self._place(meta))

    def teacher(self, meta: Meta, items: list[Any]) -> TeacherStatement:
        _, token, value = items
        name = None if token is None else self._name(token)
        return TeacherStatement(name=name, value=value, place=self._place(meta))

    def advantage(self, meta: Meta, items: list[Any]) -> AdvantageStatement:
        return AdvantageStatement(value=items[1], place=self._place(meta))

    def rollouts(self, meta: Meta, items: list[Any]) -> RolloutsStatement:
        return RolloutsStatement(name=self._name(items[1]), value=items[2], place=self._place(meta))

    def let(self, meta: Meta, items: list[Any]) -> LetStatement:
        return LetStatement(name=self._name(items[1]), value=items[2], place=self._place(meta))

    def extends(self, meta: Meta, items: list[Any]) -> ExtendsStatement:
        target = Text(value=str(items[1])[1:-1], place=self._place(items[1]))
        return ExtendsStatement(target=target, place=self._place(meta))

    def selector(self, meta: Meta, items: list[Any]) -> tuple[Name, ...]:
        return tuple(self._name(token) for token in items)

    def losses(self, meta: Meta, items: list[Any]) -> tuple[Loss, ...]:
        return tuple(Loss(value=item, text=self._text_of(item)) for item in items if not isinstance(item, Token))

    def _text_of(self, item: Callable) -> str:
        place = item.place
        lines = self._text.split("\n")[place.line - 1 - self._offset : place.end_line - self._offset]
        lines[-1] = lines[-1][: place.end_column - 1]
        lines[0] = lines[0][place.column - 1 :]
        text = " ".join(" ".join(lines).split())
        return re.sub(r",? \)", ")", text.replace("( ", "("))

    def route(self, meta: Meta, items: list[Any]) -> RouteStatement:
        selectors, _, when, losses = items
        start = meta.start_pos
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
            place=self._place(meta),
            text=self._written(start, end),
        )

    # ---- calls

    def call(self, meta: Meta, items: list[Any]) -> Call:
        token, arguments = items
        return Call(function=self._name(token), arguments=arguments or (), place=self._place(meta))

    def arguments(self, meta: Meta, items: list[Any]) -> tuple[Argument, ...]:
        return tuple(items)

    def named(self, meta: Meta, items: list[Any]) -> Argument:
        return Argument(name=self._name(items[0]), value=items[1], place=self._place(meta))

    def positional(self, meta: Meta, items: list[Any]) -> Argument:
        return Argument(name=None, value=items[0], place=self._place(meta))

    # ---- expressions

    def binary(self, meta: Meta, items: list[Any]) -> Binary:
        left, token, right = items
        return Binary(operator=Operator(str(token)), left=left, right=right, place=self._place(meta))

    def unary(self, meta: Meta, items: list[Any]) -> Unary:
        operator = Operator.NOT if items[0] == "not" else Operator.NEG
        return Unary(operator=operator, operand=items[1], place=self._place(meta))

    def group(self, meta: Meta, items: list[Any]) -> Node:
        inner: Node = items[0]
        return inner

    def tuple(self, meta: Meta, items: list[Any]) -> TupleOf:
        return TupleOf(items=tuple(items), place=self._place(meta))

    def name(self, meta: Meta, items: list[Any]) -> Name:
        return self._name(items[0])

    def text(self, meta: Meta, items: list[Any]) -> Text:
        return Text(value=str(items[0])[1:-1], place=self._place(meta))

    def number(self, meta: Meta, items: list[Any]) -> Number:
        token = items[0]
        unit = _UNITS[items[1].type] if len(items) > 1 else Unit.NONE
        return Number(
            value=float(token),
            unit=unit,
            is_integer=str(token).isdigit(),
            text=self._written(meta.start_pos, meta.end_pos),
            place=self._place(meta),
        )
