"""`trace-dsl explain`: what a rule or a word of the language means."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.text import Text

from trace_dsl.cli.exits import ExitCode
from trace_dsl.cli.formats import OutputFormat, print_json
from trace_dsl.cli.terminal import console, print_wrapped
from trace_dsl.explain import Entry, Kind, RulePage, entries, find, rule_pages
from trace_dsl.explain.pages import Example, Paragraph
from trace_dsl.vocabulary import closest

_HEADINGS = {
    Kind.STATEMENT: "statements",
    Kind.LOSS: "losses, with their value at a token",
    Kind.ARGUMENT: "arguments",
    Kind.SIGNAL: "signals",
    Kind.FUNCTION: "functions",
    Kind.RULE: "rules of trace-dsl lint",
}


def explain(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME]...", help="Rules, losses, arguments, signals, functions or statements."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="List every name with a line about it.")] = False,
    output: Annotated[OutputFormat, typer.Option("--format", help="text for people, json for programs.")] = (
        OutputFormat.TEXT
    ),
) -> None:
    """Explain a rule or a word of the language: what it means, what it takes, how it is written.

    Exits with 2 when a name means nothing.

    Example: trace-dsl explain hard-pclip fkl gap
    """
    if bool(names) == everything:
        print("error: give names to explain, or --all", file=sys.stderr)
        raise typer.Exit(ExitCode.COULD_NOT_RUN)
    unknown = [name for name in names or () if not find(name)]
    for name in unknown:
        print(f"error: {_unknown(name)}", file=sys.stderr)
    if unknown:
        raise typer.Exit(ExitCode.COULD_NOT_RUN)
    shown = entries() if everything else tuple(dict.fromkeys(entry for name in names or () for entry in find(name)))
    match output:
        case OutputFormat.TEXT:
            screen = console()
            for line in _all() if everything else _several(shown):
                print_wrapped(screen, line)
        case OutputFormat.JSON:
            print_json(entries=[_fields(entry) for entry in shown])


def _unknown(name: str) -> str:
    near = closest(name, {entry.name for entry in entries()})
    fix = f"did you mean `{near}`?" if near else "trace-dsl explain --all lists what there is"
    return f"`{name}` is no rule and no word of the language: {fix}"


def _all() -> Iterator[Text]:
    for kind in Kind:
        listed = [entry for entry in entries() if entry.kind is kind]
        if kind is not next(iter(Kind)):
            yield Text()
        yield Text(_HEADINGS[kind], style="bold")
        width = max(len(entry.name) for entry in listed)
        for entry in listed:
            aside = f" ({entry.aside})" if entry.aside else ""
            line = Text(f"  {entry.name:<{width}}", style="cyan")
            yield line.append(f"  {entry.meaning}{aside}", style="default")


def _fields(entry: Entry) -> dict[str, object]:
    """An entry as JSON fields; a rule has its page, part by part."""
    page = rule_pages().get(entry.name) if entry.kind is Kind.RULE else None
    parts = () if page is None else page.parts
    return {
        **asdict(entry),
        "arguments": [{"name": argument.name, **asdict(argument.text)} for argument in entry.arguments],
        "page": [{"label": part.label if isinstance(part, Example) else None, "text": part.text} for part in parts],
    }


def _several(shown: Sequence[Entry]) -> Iterator[Text]:
    for index, entry in enumerate(shown):
        if index:
            yield Text()
        yield from _page(entry)


def _page(entry: Entry) -> Iterator[Text]:
    title = Text(entry.name, style="bold cyan")
    yield title.append(f"  {entry.kind.value}" + (f", {entry.aside}" if entry.aside else ""), style="default")
    yield Text()
    page = rule_pages().get(entry.name) if entry.kind is Kind.RULE else None
    yield from _rule_page(page) if page is not None else _word_page(entry)


def _word_page(entry: Entry) -> Iterator[Text]:
    yield Text(f"  {entry.meaning}")
    for note in entry.notes:
        yield Text(f"  {note}")
    for heading, code in (("written", entry.usage), ("example", entry.example)):
        if code:
            yield Text()
            yield Text(f"  {heading}: ").append(code, style="green")
    if entry.needs:
        yield Text()
        yield Text(f"  needs: {entry.needs}")
    if entry.arguments:
        yield Text()
        yield Text("  arguments")
        width = max(len(argument.name) for argument in entry.arguments)
        for argument in entry.arguments:
            text = argument.text
            default = f"; default {text.default}" if text.default else ""
            line = Text(f"    {argument.name:<{width}}", style="cyan")
            yield line.append(f"  {text.meaning} ({text.takes}{default})", style="default")


def _rule_page(page: RulePage) -> Iterator[Text]:
    for part in page.parts:
        match part:
            case Paragraph(text=text):
                yield Text(f"  {text}")
            case Example(label=label, text=text):
                yield Text()
                yield Text(f"  {label}:", style="red" if label == "bad" else "green")
                for line in text.split("\n"):
                    yield Text(f"    {line}")
