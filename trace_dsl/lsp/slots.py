"""What may stand at a place of a statement, read from what stands before it, so that half-written lines count too."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from trace_dsl.terms import Reduction
from trace_dsl.vocabulary import (
    ARGUMENT_WORDS,
    ESTIMATORS,
    LOSSES,
    ROLLOUT_ARGUMENTS,
    SCHEDULE_ARGUMENTS,
    SIGNALS,
    STATEMENTS,
    TEACHER_ARGUMENTS,
)

_TOKEN = re.compile(r'"[^"\n]*"?|[A-Za-z_]\w*|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|==|!=|<=|>=|\S')
_NAME = re.compile(r"[A-Za-z_]\w*")
ROUTE = "route"
# What makes a teacher, rollouts or the advantage, with the arguments it takes.
MAKERS: dict[str, dict[str, tuple[str, ...]]] = {
    "teacher": TEACHER_ARGUMENTS,
    "rollouts": ROLLOUT_ARGUMENTS,
    "advantage": ESTIMATORS,
}


class SlotKind(Enum):
    """What a word at the place is, or would be."""

    STATEMENT = auto()  # the first word of a statement: a keyword, a label or `rest`
    NEW_NAME = auto()  # the name that a let, teacher or rollouts statement gives
    NEW_LABEL = auto()  # a label in `spans`
    LABEL = auto()  # a further label of a selector
    AFTER_LABEL = auto()  # `when`, `|` or `:`
    SOURCE = auto()  # what a teacher, rollouts or the advantage is made by: self, model, group ...
    LOSS = auto()
    ARGUMENT = auto()  # the name of an argument, or the value of one without a name
    VALUE = auto()  # the value of an argument
    EXPRESSION = auto()  # an operand of a let's value or of a predicate
    OPERATOR = auto()  # what joins operands
    NOTHING = auto()  # a string, a number's unit, the middle of something that is no name


class ValueOf(Enum):
    """What the value of an argument is."""

    EXPRESSION = auto()
    WORD = auto()  # one of ARGUMENT_WORDS, or of `contexts`
    TEACHER = auto()
    CONTEXT = auto()  # what has() asks for
    TEXT = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """`call`: the call whose brackets the place is in; `argument`: the argument there, as far as it is known;
    `given`: the arguments of the call that stand before it. `compared` is the other side of a comparison: `source`.
    """

    kind: SlotKind
    statement: str
    call: str = ""
    argument: str = ""
    given: tuple[str, ...] = ()
    compared: str = ""

    @property
    def owner(self) -> str:
        """The statement whose arguments the call takes; empty for losses and functions."""
        is_made = self.call in MAKERS.get(self.statement, {})
        return self.statement if is_made or (self.statement == "spans" and self.call) else ""

    @property
    def value(self) -> ValueOf:
        """What stands here when it is a value."""
        if self.argument in ("path", "file"):
            return ValueOf.TEXT
        if self.call == "has":
            return ValueOf.CONTEXT
        if self.argument == "teacher":
            return ValueOf.TEACHER
        return ValueOf.WORD if self.argument in ARGUMENT_WORDS or self.argument == "frozen" else ValueOf.EXPRESSION


def arguments_of(slot: Slot) -> tuple[str, ...]:
    """The arguments that the call at a place takes by their names."""
    if slot.owner:
        return MAKERS[slot.owner][slot.call] if slot.owner in MAKERS else ("cap",)
    if slot.statement == ROUTE and slot.call in LOSSES:
        return LOSSES[slot.call].arguments
    if slot.call == "schedule":
        return ("w", *SCHEDULE_ARGUMENTS)
    return ("over",) if slot.call in {reduction.value for reduction in Reduction} else ()


def _positional(statement: str, call: str) -> tuple[str, ...]:
    """The arguments that may stand without their names, as far as their values are more than expressions."""
    if statement == "teacher":
        return ("frozen",) if call == "self" else ("path",)
    if call in ROLLOUT_ARGUMENTS:
        return ("file",) if call == "cached" else ()
    if call == "mix":
        return ("anchor", "teacher", "share")
    if call in SIGNALS and SIGNALS[call].of_teacher:
        return ("teacher",)
    if call == "schedule":
        return ("w",)
    return LOSSES[call].positional if statement == ROUTE and call in LOSSES else ()


# -------------------------------------------------------------------------------------------------------- one statement


@dataclass(frozen=True, slots=True, kw_only=True)
class Word:
    """A token of a statement with its offset in the statement's text, and the slot it stands in."""

    text: str
    offset: int
    slot: Slot

    @property
    def is_name(self) -> bool:
        return _NAME.fullmatch(self.text) is not None


@dataclass(slots=True)
class _Frame:
    """An open bracket: of `call`, or of a group when that is empty."""

    call: str
    argument: str = ""
    position: int = 0
    given: list[str] = field(default_factory=list)


class _Reader:
    """Follows a statement token by token; `slot` says what may stand next."""

    def __init__(self) -> None:
        self.before: list[str] = []
        self.frames: list[_Frame] = []
        self.statement = ""
        self.section = "start"  # start -> name or selector -> predicate -> value (what follows `=` or `:`)

    @property
    def previous(self) -> str:
        return self.before[-1] if self.before else ""

    def take(self, token: str) -> None:
        if not self.before:
            self.statement = token if token in STATEMENTS else ROUTE
            self.section = "selector" if self.statement == ROUTE else "name"
        elif token == "(":
            called = self.previous if _NAME.fullmatch(self.previous) and self.previous not in _JOINS else ""
            self.frames.append(_Frame(call=called))
        elif token == ")" and self.frames:
            self.frames.pop()
        elif self.frames:
            self._take_inside(token)
        elif self.section == "selector" and token == "when":
            self.section = "predicate"
        elif token == (":" if self.statement == ROUTE else "="):
            self.section = "value"
        self.before.append(token)

    def _take_inside(self, token: str) -> None:
        frame = self.frames[-1]
        if token == "," and frame.call:
            frame.argument = ""
            frame.position += 1
        elif token == "=" and frame.call and _NAME.fullmatch(self.previous):
            frame.argument = self.previous
            frame.given.append(self.previous)

    def slot(self) -> Slot:
        statement = self.statement or ROUTE
        if self.previous.startswith('"') and not (len(self.previous) > 1 and self.previous.endswith('"')):
            return Slot(kind=SlotKind.NOTHING, statement=statement)
        if not self.before:
            return Slot(kind=SlotKind.STATEMENT, statement=statement)
        if any(frame.call for frame in self.frames):
            return self._inside()
        match self.section:
            case "name":
                return Slot(kind=self._name(), statement=statement)
            case "selector":
                kind = SlotKind.LABEL if self.previous == "|" else SlotKind.AFTER_LABEL
                return Slot(kind=kind, statement=statement)
            case "value" if statement == ROUTE:
                kind = SlotKind.LOSS if self.previous in (":", "+") else SlotKind.NOTHING
                return Slot(kind=kind, statement=statement)
            case "value" if statement != "let":
                kind = SlotKind.SOURCE if self.previous == "=" and statement in MAKERS else SlotKind.NOTHING
                return Slot(kind=kind, statement=statement)
            case _:
                return self._operand(Slot(kind=SlotKind.EXPRESSION, statement=statement))

    def _name(self) -> SlotKind:
        """Before the `=` of a statement."""
        if self.statement == "spans":
            return SlotKind.NEW_LABEL if self.previous in ("spans", ",") else SlotKind.NOTHING
        named = self.statement in ("let", "teacher", "rollouts") and len(self.before) == 1
        return SlotKind.NEW_NAME if named else SlotKind.NOTHING

    def _inside(self) -> Slot:
        """In the brackets of a call, or of a group in them."""
        depth = max(index for index, frame in enumerate(self.frames) if frame.call)
        frame, grouped = self.frames[depth], depth < len(self.frames) - 1
        argument, statement = frame.argument, self.statement
        if not argument and frame.call == "const":
            argument = "n"
        positional = _positional(statement, frame.call)
        if not argument and frame.position < len(positional):
            argument = positional[frame.position]
        if not grouped and self.previous in ("(", ","):
            kind = SlotKind.ARGUMENT
        elif self.previous == "=":
            kind = SlotKind.VALUE
        else:
            kind = SlotKind.EXPRESSION
        slot = Slot(
            kind=kind,
            statement=statement,
            call=frame.call,
            argument=argument,
            given=(*frame.given, *positional[: frame.position]),
        )
        return slot if kind is not SlotKind.EXPRESSION else self._operand(slot)

    def _operand(self, slot: Slot) -> Slot:
        """An expression's slot: an operand, or what joins it to the next."""
        if self.previous in _JOINS:
            compared = self.before[-2] if self.previous in ("==", "!=") and len(self.before) > 1 else ""
            return replace(slot, compared=compared)
        ended = self.previous == ")" or _NAME.fullmatch(self.previous)
        return replace(slot, kind=SlotKind.OPERATOR if ended else SlotKind.NOTHING)


_JOINS = frozenset({"and", "or", "not", "when", "=", "(", ",", "+", "-", "*", "/", "<", "<=", ">", ">=", "==", "!="})


def words(text: str) -> Iterator[Word]:
    """Every token of a statement with the slot it stands in."""
    reader = _Reader()
    for match in _TOKEN.finditer(text):
        yield Word(text=match.group(), offset=match.start(), slot=reader.slot())
        reader.take(match.group())


def slot_after(text: str) -> Slot:
    """The slot after what is written of a statement."""
    reader = _Reader()
    for match in _TOKEN.finditer(text):
        reader.take(match.group())
    return reader.slot()
