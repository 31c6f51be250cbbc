"""The arguments of a command, said once: `read` understands them without typer, `for_typer` hands them to it.

Importing typer takes longer than linting a spec. So a command line that is right is read here; --help, and whatever is
not understood, is left to typer, which says what is wrong.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    """A parameter that takes the words that belong to no option."""

    help: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """A parameter with a name. `flag`: --name, or --name/--no-name for a bool; made of the parameter's when empty."""

    help: str
    flag: str = ""
    metavar: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parameter:
    """`kind` is the type of one value; `many`: values are collected in a list."""

    name: str
    about: Argument | Option
    kind: type
    many: bool

    @property
    def flags(self) -> tuple[str, ...]:
        if isinstance(self.about, Argument):
            return ()
        return tuple((self.about.flag or f"--{self.name.replace('_', '-')}").split("/"))


Command = Callable[..., int]


def read(command: Command, words: Sequence[str]) -> dict[str, Any] | None:
    """The arguments that words on the command line give; None when typer has to look at them."""
    given: dict[str, Any] = {}
    parameters = tuple(_parameters(command))
    by_flag = {flag: parameter for parameter in parameters for flag in parameter.flags}
    free = next((parameter for parameter in parameters if isinstance(parameter.about, Argument)), None)
    waiting = list(words)
    while waiting:
        word = waiting.pop(0)
        if word == "-" or not word.startswith("-"):
            if free is None:
                return None
            given.setdefault(free.name, []).append(word)
            continue
        flag, equals, text = word.partition("=")
        parameter = by_flag.get(flag)
        if parameter is None:
            return None
        if parameter.kind is bool:
            if equals:
                return None
            given[parameter.name] = flag == parameter.flags[0]
            continue
        if not equals:
            if not waiting or waiting[0].startswith("-"):
                return None
            text = waiting.pop(0)
        value = _value(parameter.kind, text)
        if value is None:
            return None
        if parameter.many:
            given.setdefault(parameter.name, []).append(value)
        else:
            given[parameter.name] = value
    return given


def for_typer(command: Command) -> Callable[..., None]:
    """The command as typer wants it: its own annotations, and an exit code that is raised."""
    import typer  # takes longer than linting a spec

    hints = get_type_hints(command, include_extras=True)
    parameters = []
    for parameter in inspect.signature(command).parameters.values():
        kind, about = get_args(hints[parameter.name])
        if isinstance(about, Argument):
            made = typer.Argument(help=about.help)
        else:
            flags = (about.flag,) if about.flag else ()
            made = typer.Option(*flags, help=about.help, metavar=about.metavar)
        parameters.append(parameter.replace(annotation=Annotated[kind, made]))

    def run(**given: object) -> None:
        raise typer.Exit(command(**given))

    run.__doc__ = command.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer reads
    return run


def _parameters(command: Command) -> Iterator[_Parameter]:
    for name, hint in get_type_hints(command, include_extras=True).items():
        if get_origin(hint) is not Annotated:
            continue  # what the command returns
        kind, about = get_args(hint)
        (kind,) = [part for part in get_args(kind) or (kind,) if part is not NoneType]
        many = get_origin(kind) is list
        yield _Parameter(name=name, about=about, kind=get_args(kind)[0] if many else kind, many=many)


def _value(kind: type, text: str) -> object | None:
    """The value of one word; None when it has none."""
    if issubclass(kind, StrEnum):
        return next((member for member in kind if member.value == text), None)
    assert kind in (str, Path), "a kind of value that is new here needs its line"
    return kind(text)
