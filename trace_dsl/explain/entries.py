"""Everything that can be explained, by name. A name may mean several things: `entropy` is a signal and a loss."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from trace_dsl.checks import RULES
from trace_dsl.reference import (
    FUNCTION_TEXTS,
    LOSS_ARGUMENTS,
    LOSS_NEEDS,
    LOSS_TEXTS,
    PART_OF_ROUTE,
    SIGNAL_NEEDS,
    STATEMENT_ARGUMENTS,
    STATEMENT_TEXTS,
    ArgumentText,
)
from trace_dsl.reference_values import VALUE_TEXTS, stands_in
from trace_dsl.vocabulary import (
    HAS,
    LOSSES,
    RANK_WORDS,
    SCHEDULE_ARGUMENTS,
    SIGNALS,
    SOURCES,
    SignalInfo,
    ValueKind,
)


class Kind(StrEnum):
    """The sections of `explain --all`, in their order."""

    STATEMENT = "statement"
    LOSS = "loss"
    ARGUMENT = "argument"
    SIGNAL = "signal"
    FUNCTION = "function"
    VALUE = "value"
    RULE = "rule"


@dataclass(frozen=True, slots=True, kw_only=True)
class Argument:
    name: str
    text: ArgumentText


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One meaning of one name. `aside` qualifies it in brackets: a rule's severity, a signal's rank.

    `needs` says what a trainer has to gather for it.
    """

    kind: Kind
    name: str
    meaning: str
    aside: str = ""
    usage: str = ""
    example: str = ""
    needs: str = ""
    arguments: tuple[Argument, ...] = ()
    notes: tuple[str, ...] = ()


def entries() -> tuple[Entry, ...]:
    """Every meaning of every name, section by section."""
    return (*_statements(), *_losses(), *_arguments(), *_signals(), *_functions(), *_values(), *_rules())


def find(name: str) -> tuple[Entry, ...]:
    """What a name means; nothing when it means nothing. `has(x)` and `rest` are found under what explains them."""
    value = name.strip().strip("`").removesuffix("()")
    is_has = value.startswith("has(") or f"has_{value}" in {info.name for info in HAS.values()}
    wanted = "has" if is_has else value
    names = {wanted, "route" if wanted in PART_OF_ROUTE else wanted}
    return tuple(
        entry for entry in entries() if entry.name in names or (entry.kind is Kind.VALUE and entry.name == value)
    )


def _named(texts: dict[str, ArgumentText], names: tuple[str, ...]) -> tuple[Argument, ...]:
    return tuple(Argument(name=name, text=texts[name]) for name in names)


def _statements() -> list[Entry]:
    return [
        Entry(
            kind=Kind.STATEMENT,
            name=name,
            meaning=text.meaning,
            usage=text.usage,
            example=text.example,
            arguments=_named(STATEMENT_ARGUMENTS[name], tuple(STATEMENT_ARGUMENTS[name])),
        )
        for name, text in STATEMENT_TEXTS.items()
    ]


def _losses() -> list[Entry]:
    return [
        Entry(
            kind=Kind.LOSS,
            name=name,
            meaning=LOSS_TEXTS[name].meaning,
            aside="" if _says(LOSS_TEXTS[name].meaning, info.summary) else info.summary,
            usage=LOSS_TEXTS[name].usage,
            example=LOSS_TEXTS[name].example,
            needs=LOSS_NEEDS[name] or "nothing beside the student's own forward pass",
            arguments=_named(LOSS_ARGUMENTS, info.arguments),
        )
        for name, info in LOSSES.items()
    ]


def _says(formula: str, summary: str) -> bool:
    return summary.replace(" ", "") in formula.replace(" ", "")


def _arguments() -> list[Entry]:
    """The arguments of losses, each once, with the losses that take it; then those of statements."""
    found = []
    for name, text in LOSS_ARGUMENTS.items():
        takers = [loss for loss, info in LOSSES.items() if name in info.arguments]
        of = "every loss" if len(takers) == len(LOSSES) else ", ".join(takers)
        found.append(_argument(name, text, of))
    for statement, texts in STATEMENT_ARGUMENTS.items():
        found.extend(_argument(name, text, statement) for name, text in texts.items())
    return found


def _argument(name: str, text: ArgumentText, of: str) -> Entry:
    default = f"default: {text.default}" if text.default else "no default"
    return Entry(
        kind=Kind.ARGUMENT, name=name, meaning=text.meaning, aside=f"of {of}", notes=(f"takes {text.takes}", default)
    )


def _signals() -> list[Entry]:
    found = []
    for info in SIGNALS.values():
        notes = [f"{info.kind.value}, {RANK_WORDS[info.rank]}"]
        if info.of_teacher:
            notes.append(f"reads the teacher named `teacher`; {info.name}(NAME) reads another")
        found.append(
            Entry(
                kind=Kind.SIGNAL,
                name=info.name,
                meaning=info.summary,
                aside=f"{info.rank.name.lower()} rank",
                example=_example_of(info),
                needs=SIGNAL_NEEDS.get(info.name, ""),
                notes=tuple(notes),
            )
        )
    return found


def _example_of(info: SignalInfo) -> str:
    match info.kind:
        case ValueKind.PREDICATE:
            return f"rest when {info.name}: grpo()"
        case ValueKind.NUMBER:
            return f"rest when {info.name} > 0: grpo()"
        case ValueKind.SOURCE:
            return f"rest when {info.name} == {next(iter(SOURCES))}: grpo()"
        case _:
            assert_never(info.kind)


def _functions() -> list[Entry]:
    return [
        Entry(
            kind=Kind.FUNCTION,
            name=name,
            meaning=text.meaning,
            usage=text.usage,
            example=text.example,
            arguments=_named(LOSS_ARGUMENTS, ("w", *SCHEDULE_ARGUMENTS)) if name == "schedule" else (),
        )
        for name, text in FUNCTION_TEXTS.items()
    ]


def _values() -> list[Entry]:
    return [
        Entry(
            kind=Kind.VALUE,
            name=name,
            meaning=meaning,
            notes=(f"written {', '.join(f'`{place}`' for place in stands_in(name))}",),
        )
        for name, meaning in VALUE_TEXTS.items()
    ]


def _rules() -> list[Entry]:
    found = []
    for info in RULES.values():
        words = [info.severity.value]
        words += ["pedantic"] if info.pedantic else []
        words += ["with a run file"] if info.needs_facts else []
        found.append(Entry(kind=Kind.RULE, name=info.name, meaning=info.summary, aside=", ".join(words)))
    return found
