"""Pages of the language and of its rules as Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from trace_dsl.explain import Entry, Kind, entries, find, rule_pages
from trace_dsl.explain.pages import Example, Paragraph
from trace_dsl.reference import STATEMENT_ARGUMENTS

FENCE = "```"


@cache
def pages(name: str, *kinds: Kind) -> str:
    """What a name means in any of the kinds; empty when it means nothing there."""
    return "\n\n---\n\n".join(page(entry) for entry in find(name) if entry.kind in kinds)


@cache
def argument_page(name: str, statement: str = "") -> str:
    """The page of an argument of a statement, else of the losses; empty when it is none."""
    return "".join(page(entry) for entry in _argument_entries(name, statement))


@cache
def argument_meaning(name: str, statement: str = "") -> str:
    """One line about an argument of a statement, else of the losses."""
    return "".join(f"{entry.meaning} ({'; '.join(entry.notes)})" for entry in _argument_entries(name, statement))


def _argument_entries(name: str, statement: str) -> tuple[Entry, ...]:
    found = [entry for entry in find(name) if entry.kind is Kind.ARGUMENT]
    of_statements = {f"of {one}" for one in STATEMENT_ARGUMENTS}
    wanted = {f"of {statement}"} if statement else {entry.aside for entry in found} - of_statements
    return tuple(entry for entry in found if entry.aside in wanted)


def page(entry: Entry) -> str:
    """One meaning of a name."""
    aside = f", {entry.aside}" if entry.aside else ""
    parts = [f"**{entry.name}** — {entry.kind.value}{aside}"]
    if entry.kind is Kind.RULE:
        return "\n\n".join([*parts, *_rule_parts(entry.name)])
    parts += [code([entry.usage])] if entry.usage else []
    parts += [_plain(entry.meaning)]
    parts += [_plain(note) for note in entry.notes]
    parts += ["\n".join(_arguments(entry))] if entry.arguments else []
    parts += [f"Example:\n{code([entry.example])}"] if entry.example else []
    return "\n\n".join(parts)


@cache
def summary_of(name: str, kind: Kind) -> str:
    """One line about a name; empty when it means nothing in this kind."""
    return next((entry.meaning for entry in entries() if entry.kind is kind and entry.name == name), "")


def _rule_parts(rule: str) -> Iterable[str]:
    for part in rule_pages()[rule].parts:
        match part:
            case Paragraph(text=text):
                yield text
            case Example(label=label, text=text):
                yield f"{label.capitalize()}:\n{code(text.splitlines())}"


def _arguments(entry: Entry) -> Iterable[str]:
    for argument in entry.arguments:
        text = argument.text
        default = f"; default {text.default}" if text.default else ""
        yield _plain(f"- `{argument.name}`: {text.meaning} ({text.takes}{default})")


def code(lines: Iterable[str]) -> str:
    """Lines of a spec."""
    return "\n".join([f"{FENCE}trace", *lines, FENCE])


def _plain(text: str) -> str:
    """Text with the signs that Markdown would read as its own, outside code, escaped."""
    parts = text.split("`")
    for index in range(0, len(parts), 2):
        for sign in "\\*_|<>":
            parts[index] = parts[index].replace(sign, f"\\{sign}")
    return "`".join(parts)
