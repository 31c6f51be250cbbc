"""Findings for people: blocks with the line they are about, single lines, and a summary."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from trace_dsl.lint import LintResult, SourceFile
from trace_dsl.model import Diagnostic, Place, Severity
from trace_dsl.spec_files import read_spec_bytes

_COLOURS = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow"}


def render(diagnostics: Iterable[Diagnostic], path: Path | str) -> str:
    """Findings of the spec at `path` in the full format, without colours.

    Raises SpecError when the file cannot be read any more.
    """
    found = tuple(diagnostics)
    paths = dict.fromkeys(place.path for diagnostic in found for place in _places(diagnostic))
    sources = tuple(SourceFile(path=p, text=read_spec_bytes(p or str(path)).text) for p in {"": None, **paths})
    result = LintResult(path=str(path), spec=None, diagnostics=found, sources=sources)
    return "\n".join(text.plain for text in full(result))


def full(result: LintResult) -> Iterator[Text]:
    """One block a finding: where and what, the line with the place underlined, other places, cost, fix."""
    for diagnostic in result.diagnostics:
        yield _block(result, diagnostic)


def concise(result: LintResult) -> Iterator[str]:
    """One line a finding: path:line:column: severity[rule] message."""
    for found in result.diagnostics:
        yield f"{_where(result, found.place)}: {found.severity.value}[{found.rule}] {_printable(found.message)}"


def summary(results: tuple[LintResult, ...]) -> str:
    """One line: how many files were read, what was found in them, and which rules could not judge them."""
    found = [diagnostic for result in results for diagnostic in result.diagnostics]
    errors = sum(diagnostic.severity is Severity.ERROR for diagnostic in found)
    files = _counted(len(results), "spec")
    text = f"{files} checked, nothing found"
    if found:
        text = f"{files} checked: {_counted(errors, 'error')}, {_counted(len(found) - errors, 'warning')}"
    silent = len({rule for result in results for rule in result.not_evaluated})
    if silent:
        text += f" ({_counted(silent, 'rule')} not evaluated: no run given, see --run)"
    return text


def print_full(results: tuple[LintResult, ...], console: Console) -> None:
    """Print every finding and the summary; the console decides about colours."""
    for result in results:
        for block in full(result):
            console.print(block, soft_wrap=True)
            console.print()
    console.print(summary(results), soft_wrap=True, highlight=False)


# ------------------------------------------------------------------------------------------------------------- parts


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _places(diagnostic: Diagnostic) -> tuple[Place, ...]:
    return (diagnostic.place, *(other.place for other in diagnostic.others))


def _where(result: LintResult, place: Place) -> str:
    return f"{place.path or result.path}:{place.line}:{place.column}"


def _printable(text: str) -> str:
    """Control characters of a source would act on the terminal, so they are shown as a mark."""
    return "".join(c if c.isprintable() or c in "\t\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _line(result: LintResult, place: Place) -> str:
    source = next((source for source in result.sources if source.path == place.path), None)
    if source is None:
        return ""
    lines = source.text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return _printable(lines[place.line - 1]) if place.line <= len(lines) else ""


def _underline(line: str, place: Place) -> str:
    """Carets under a place; a place over several lines is underlined to the end of its first."""
    end = place.end_column if place.end_line == place.line else len(line.rstrip()) + 1
    before = "".join("\t" if c == "\t" else " " * cell_len(c) for c in line[: place.column - 1])
    before += " " * max(place.column - 1 - len(line), 0)
    width = cell_len(line[place.column - 1 : end - 1])
    return before + "^" * max(width, 1)


def _block(result: LintResult, found: Diagnostic) -> Text:
    colour = _COLOURS[found.severity]
    margin = " " * len(str(max(place.line for place in _places(found))))
    text = Text()
    text.append(f"{found.severity.value}[{found.rule}]", style=colour)
    text.append(f": {_printable(found.message)}\n", style="bold")
    text.append(f"{margin}--> ", style="blue")
    text.append(_where(result, found.place))
    _append_excerpt(text, result, found.place, margin, colour)
    for other in found.others:
        text.append(f"\n{margin}::: ", style="blue")
        text.append(f"{_where(result, other.place)}: {_printable(other.note)}")
        if other.place != found.place:
            _append_excerpt(text, result, other.place, margin, "blue")
    for word, sentence in (("cost", found.consequence), ("fix", found.fix)):
        if sentence:
            text.append(f"\n{margin} = ", style="blue")
            text.append(f"{word}: ", style="bold")
            text.append(_printable(sentence))
    return text


def _append_excerpt(text: Text, result: LintResult, place: Place, margin: str, colour: str) -> None:
    line = _line(result, place)
    text.append(f"\n{margin} |\n{place.line:>{len(margin)}} | ", style="blue")
    text.append(line.rstrip())
    text.append(f"\n{margin} | ", style="blue")
    text.append(_underline(line, place), style=colour)
