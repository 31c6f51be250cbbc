"""Puts the arguments of a call into the named places they are for."""

from __future__ import annotations

from trace_dsl.model import Place
from trace_dsl.resolve import elsewhere
from trace_dsl.resolve.findings import Context
from trace_dsl.resolve.unnamed import fix_for_unnamed
from trace_dsl.rules import LanguageRule
from trace_dsl.syntax.tree import Argument, Call, Callable, Name, Node
from trace_dsl.vocabulary import ARGUMENT_WORDS, Suggestion, closest, words_of_elsewhere

# Of the arguments of one call that should have a name, so many are told which: to tell it, the others are looked at.
MOST_ADVISED = 20
_TAKE_OUT = "take it out, or name what it is for"


class Bound:
    """The arguments of one call by name."""

    def __init__(self, name: str, place: Place, values: dict[str, Argument]) -> None:
        self.name = name
        self.place = place
        self._values = values

    def get(self, name: str) -> Node | None:
        """The value given for an argument, None when it is not given."""
        argument = self._values.get(name)
        return None if argument is None else argument.value

    def place_of(self, name: str) -> Place:
        """Where an argument stands; the call when it is not given."""
        argument = self._values.get(name)
        return self.place if argument is None else argument.place

    def __contains__(self, name: str) -> bool:
        return name in self._values

    @property
    def names(self) -> tuple[str, ...]:
        """The arguments that are given, in the order of the call."""
        return tuple(self._values)


def function_of(value: Callable) -> Name:
    """The name that is called: `none` and `group(...)` alike."""
    return value if isinstance(value, Name) else value.function


def bind(
    context: Context,
    value: Callable,
    *,
    known: tuple[str, ...],
    positional: tuple[str, ...] = (),
    required: tuple[str, ...] = (),
) -> Bound:
    """Bind a call's arguments; unknown, doubled and missing ones become errors, the others stay usable."""
    function = function_of(value).name
    values: dict[str, Argument] = {}
    meant: set[str | None] = set()
    free = list(positional)
    unnamed = 0
    arguments = value.arguments if isinstance(value, Call) else ()
    used = {argument.name.name for argument in arguments if argument.name}
    without_name = sum(1 for argument in arguments if argument.name is None)
    for argument in arguments:
        if argument.name is None:
            while free and free[0] in values:
                free.pop(0)
            if free:
                used.add(free[0])
                values[free.pop(0)] = argument
            elif isinstance(value, Call):
                unnamed += 1
                advised = unnamed <= MOST_ADVISED
                words = fix_for_unnamed(context, value, argument, known, used) if advised else _TAKE_OUT
                context.error(
                    LanguageRule.UNKNOWN_ARGUMENT,
                    argument.place,
                    f"`{function}` does not take this argument without a name",
                    fix=words,
                )
            continue
        name = argument.name.name
        if name not in known:
            given = used | set(free[:without_name])
            said = elsewhere.for_argument(context, function, argument, arguments, known)
            instead = said or _fix_for_unknown(function, name, _required_first(known, required), given)
            meant.add(instead.near if isinstance(instead, Suggestion) else None)
            context.error(
                LanguageRule.UNKNOWN_ARGUMENT,
                argument.name.place,
                f"`{function}` has no argument `{name}`",
                fix=instead,
                consequence="elsewhere such a key is dropped in silence and the run is another one than was written",
            )
        elif name in values:
            context.error(
                LanguageRule.DUPLICATE_ARGUMENT,
                argument.place,
                f"`{name}` is given twice to `{function}`",
                fix="keep one of them",
            )
        else:
            values[name] = argument
    for name in required:
        if name not in values and name not in meant and name not in used:
            context.error(
                LanguageRule.MISSING_ARGUMENT,
                value.place,
                f"`{function}` needs `{name}`",
                fix=_fix_for_missing(function, name),
            )
    return Bound(function, value.place, values)


def _fix_for_missing(function: str, name: str) -> str:
    if name == "over":
        return f"add {' or '.join(f'over={scope}' for scope in ARGUMENT_WORDS['over'] if scope != 'micro')}"
    return f"write {function}({name}=...)"


def _required_first(known: tuple[str, ...], required: tuple[str, ...]) -> tuple[str, ...]:
    return (*required, *(name for name in known if name not in required))


def _fix_for_unknown(function: str, name: str, known: tuple[str, ...], given: set[str]) -> str | Suggestion:
    """The argument that is meant, of those that are not given; among equals the first."""
    if not known:
        return f"take it out: `{function}` takes no arguments"
    free = tuple(one for one in known if one not in given)
    meant = words_of_elsewhere(name)
    near = next((one for one in free if one in meant), None) or closest(name, free)
    if near is None and (already := closest(name, known)) is not None:
        return f"`{already}` is given already: keep one of them"
    return Suggestion(near=near, known=free, words="" if near or free else "take it out")
