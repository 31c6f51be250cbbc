"""Findings for people: blocks with the line they are about, single lines, and a summary."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from trace_dsl.lint import LintResult, SourceFile
from trace_dsl.model import Diagnostic, Place, Severity
from trace_dsl.report._styled import Styled
from trace_dsl.spec_files import read_spec_bytes

LONGEST_LINE = 300
_COLOURS = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow"}


def render(diagnostics: Iterable[Diagnostic], path: Path | str) -> str:
    """Findings of the spec at `path` in the full format, without colours, an empty line between them.

    Raises SpecError when the file cannot be read any more.
    """
    found = tuple(diagnostics)
    paths = dict.fromkeys(place.path for diagnostic in found for place in _places(diagnostic))
    sources = tuple(SourceFile(path=p, text=read_spec_bytes(p or str(path)).text) for p in {"": None, **paths})
    result = LintResult(path=str(path), spec=None, diagnostics=found, sources=sources)
    return "\n\n".join(text.plain for text in full(result))


def full(result: LintResult) -> Iterator[Styled]:
    """One block a finding: where and what, the line with the place underlined, other places, cost, fix."""
    lines = {source.path: _lines(source.text) for source in result.sources} if result.diagnostics else {}
    for diagnostic in result.diagnostics:
        yield _block(result, diagnostic, lines)


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


def print_full(results: tuple[LintResult, ...], show: Callable[[Styled], None]) -> None:
    """Show every finding, an empty line behind each, and the summary."""
    for result in results:
        for block in full(result):
            block.append("\n")
            show(block)
    show(Styled([(summary(results), "")]))


# ------------------------------------------------------------------------------------------------------------- parts


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _places(diagnostic: Diagnostic) -> tuple[Place, ...]:
    return (diagnostic.place, *(other.place for other in diagnostic.others))


def _where(result: LintResult, place: Place) -> str:
    return f"{_printable(place.path or result.path)}:{place.line}:{place.column}"


def _printable(text: str) -> str:
    """Control characters of a source would act on the terminal, so they are shown as a mark."""
    return "".join(c if c.isprintable() or c in "\t\n" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _width(text: str) -> int:
    """How many columns a text takes on a terminal."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # most specs are ASCII, and do without rich

    return cell_len(text)


def _excerpt(line: str, place: Place) -> tuple[str, str]:
    """The line of a place and the carets under it; of a long line, what stands around the place.

    A place over several lines is underlined to the end of its first.
    """
    end = place.end_column if place.end_line == place.line else len(line.rstrip()) + 1
    start, carets = place.column - 1, max(end - place.column, 0)
    cut_before = max(start - LONGEST_LINE // 3, 0) if len(line) > LONGEST_LINE else 0
    shown = line[cut_before : cut_before + LONGEST_LINE]
    start -= cut_before
    before = "".join("\t" if c == "\t" else " " * _width(c) for c in shown[:start])
    before += " " * max(start - len(shown), 0)
    width = max(_width(shown[start : start + carets]), 1)
    left = "... " if cut_before else ""
    right = " ..." if cut_before + LONGEST_LINE < len(line) else ""
    return left + shown.rstrip() + right, " " * len(left) + before + "^" * width


def _block(result: LintResult, found: Diagnostic, lines: dict[str, list[str]]) -> Styled:
    colour = _COLOURS[found.severity]
    margin = " " * len(str(max(place.line for place in _places(found))))
    text = Styled()
    text.append(f"{found.severity.value}[{found.rule}]", style=colour)
    text.append(f": {_printable(found.message)}\n", style="bold")
    text.append(f"{margin}--> ", style="blue")
    text.append(_where(result, found.place))
    _append_excerpt(text, lines, found.place, margin, colour)
    for other in found.others:
        text.append(f"\n{margin}::: ", style="blue")
        text.append(f"{_where(result, other.place)}: {_printable(other.note)}")
        if other.place != found.place:
            _append_excerpt(text, lines, other.place, margin, "blue")
    for word, sentence in (("cost", found.consequence), ("fix", found.fix)):
        if sentence:
            text.append(f"\n{margin} = ", style="blue")
            text.append(f"{word}: ", style="bold")
            text.append(_printable(sentence))
    return text


def _append_excerpt(text: Styled, lines: dict[str, list[str]], place: Place, margin: str, colour: str) -> None:
    of_file = lines.get(place.path, [])
    line = _printable(of_file[place.line - 1]) if place.line <= len(of_file) else ""
    shown, underline = _excerpt(line, place)
    text.append(f"\n{margin} |\n{place.line:>{len(margin)}} | ", style="blue")
    text.append(shown)
    text.append(f"\n{margin} | ", style="blue")
    text.append(underline, style=colour)
