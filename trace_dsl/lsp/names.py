"""The names in a spec: what each one is, and which of them give it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from trace_dsl.lsp.slots import ROUTE, Slot, SlotKind, ValueOf, Word, words
from trace_dsl.model import DEFAULT_TEACHER, REST, Place
from trace_dsl.syntax.lines import LogicalLine, split_lines
from trace_dsl.vocabulary import NO_LOSS, RESERVED, ROWS, SOURCES, STATEMENTS


class Role(Enum):
    """What a name is. The first four are given by a spec, the others are words of the language."""

    LET = "let"
    TEACHER = "teacher"
    ROLLOUTS = "rollouts"
    LABEL = "label"
    STATEMENT = "statement"
    LOSS = "loss"
    ARGUMENT = "argument"
    WORD = "word"  # one of the words an argument takes
    SOURCE = "source"  # self, model, group ...
    VALUE = "value"  # a signal or function; a let when one has that name
    UNKNOWN = "unknown"


GIVEN = frozenset({Role.LET, Role.TEACHER, Role.ROLLOUTS, Role.LABEL})


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """One occurrence of a name. `gives`: it stands where the name is given; `word`: it is the language's own word
    there, as `teacher` is in `teacher = ...`.
    """

    name: str
    role: Role
    place: Place
    slot: Slot
    gives: bool = False
    word: bool = False


def names_in_text(text: str, *, path: str = "", lets: frozenset[str] = frozenset()) -> tuple[Named, ...]:
    """Every name of a spec's text outside comments and strings; `lets` are those of the specs it extends."""
    found = [named for line in split_lines(text, path=path).statements for named in _of_statement(line, path)]
    known = lets | {named.name for named in found if named.role is Role.LET}
    return tuple(
        Named(name=one.name, role=Role.LET, place=one.place, slot=one.slot)
        if one.role is Role.VALUE and one.name in known
        else one
        for one in found
    )


def _of_statement(line: LogicalLine, path: str) -> list[Named]:
    tokens = list(words(line.text))
    found: list[Named] = []
    statement = ROUTE
    for index, word in enumerate(tokens):
        if index == 0:
            statement = word.text if word.text in STATEMENTS else ROUTE
        if not word.is_name or word.text in RESERVED - {"when"}:
            continue
        following = [token.text for token in tokens[index + 1 : index + 3]]
        role = _role(word, statement, following)
        unnamed = statement == "teacher" and index == 0 and following[:1] == ["="]
        found.append(
            Named(
                name=DEFAULT_TEACHER if unnamed else word.text,
                role=Role.TEACHER if unnamed else role,
                place=_place(line, word, path),
                slot=word.slot,
                gives=unnamed or word.slot.kind in (SlotKind.NEW_NAME, SlotKind.NEW_LABEL),
                word=unnamed,
            )
        )
    return found


def _role(word: Word, statement: str, following: list[str]) -> Role:
    match word.slot.kind:
        case SlotKind.STATEMENT:
            return _label(word.text) if statement == ROUTE else Role.STATEMENT
        case SlotKind.NEW_NAME:
            return Role(statement)
        case SlotKind.NEW_LABEL | SlotKind.LABEL:
            return _label(word.text)
        case SlotKind.SOURCE:
            return Role.SOURCE
        case SlotKind.LOSS:
            return Role.STATEMENT if word.text == NO_LOSS else Role.LOSS
        case SlotKind.ARGUMENT if following[:1] == ["="]:
            return Role.ARGUMENT
        case SlotKind.ARGUMENT | SlotKind.VALUE | SlotKind.EXPRESSION:
            return _value(word, following)
        case SlotKind.AFTER_LABEL if word.text == "when":
            return Role.STATEMENT
        case SlotKind.AFTER_LABEL | SlotKind.OPERATOR | SlotKind.NOTHING:
            return Role.UNKNOWN


def _label(name: str) -> Role:
    return Role.STATEMENT if name == REST else Role.LABEL


def _value(word: Word, following: list[str]) -> Role:
    """What a name is that stands for a value."""
    match word.slot.value:
        case ValueOf.WORD | ValueOf.CONTEXT:
            return Role.WORD
        case ValueOf.TEACHER:
            return Role.TEACHER
        case ValueOf.TEXT:
            return Role.UNKNOWN
        case ValueOf.EXPRESSION:
            pass
    compares = following[0] if following and following[0] in ("==", "!=") else ""
    with_what = following[1] if compares and len(following) > 1 else word.slot.compared
    if with_what == ROWS:
        return Role.ROLLOUTS
    if word.text == ROWS:
        return Role.STATEMENT
    return Role.WORD if with_what == "source" and word.text in SOURCES else Role.VALUE


def _place(line: LogicalLine, word: Word, path: str) -> Place:
    before = line.text[: word.offset]
    number = line.first_line + before.count("\n")
    column = word.offset - (before.rfind("\n") + 1) + 1
    return Place(line=number, column=column, end_line=number, end_column=column + len(word.text), path=path)
