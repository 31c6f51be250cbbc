"""A whole file in the canonical form: statements, comments and blank lines between them, columns that line up."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from trace_dsl.errors import SpecError
from trace_dsl.format.columns import Column, aligned
from trace_dsl.format.layout import WIDTH, broken, flat, is_one_line
from trace_dsl.format.pieces import pieces_of
from trace_dsl.format.sameness import says_the_same
from trace_dsl.rules import LanguageRule
from trace_dsl.spec_files import MAX_BYTES
from trace_dsl.syntax import ParsedSource, parse_source
from trace_dsl.syntax.lines import Comment, LogicalLine, split_lines
from trace_dsl.syntax.parse import MAX_LENGTH


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A statement or a comment on a line of its own, with its lines in the file and those it is to have.

    `column` is None unless it is a statement on one line, whose columns may be lined up with its neighbours'.
    """

    first_line: int
    last_line: int
    lines: tuple[str, ...]
    column: Column | None = None


def format_source(parsed: ParsedSource) -> str:
    """The canonical text of a spec, with lines that end in a bare newline.

    Raises SpecError when it does not parse, and when it would be too large to be read.
    """
    if any(found.rule == LanguageRule.SYNTAX.value for found in parsed.diagnostics):
        raise SpecError(f"{parsed.path} does not parse, so it is not formatted")
    lines = _joined(tuple(_blocks(parsed)))
    text = "".join(f"{line}\n" for line in lines)
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise SpecError(f"{parsed.path} is not formatted: it would have more than {MAX_BYTES:,} bytes")
    assert says_the_same(parsed, parse_source(parsed.path, text)), "formatting never changes what a spec says"
    return text


def _blocks(parsed: ParsedSource) -> Iterator[Block]:
    """The blocks of a file from top to bottom."""
    cut = split_lines(parsed.text)
    source = parsed.text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    ignoring = {suppression.place.line for suppression in parsed.suppressions}
    waiting = list(cut.comments)
    for statement in cut.statements:
        last = statement.first_line + statement.text.count("\n")
        while waiting and waiting[0].place.line < statement.first_line:
            yield _comment_block(waiting.pop(0))
        own: list[Comment] = []
        while waiting and waiting[0].place.line <= last:
            own.append(waiting.pop(0))
        if last > statement.first_line and any(comment.place.line in ignoring for comment in own):
            yield _as_written(statement.first_line, last, source)
        else:
            yield _statement_block(statement, last, tuple(own), ignoring, source)
    for comment in waiting:
        yield _comment_block(comment)


def _comment_block(comment: Comment) -> Block:
    line = comment.place.line
    return Block(first_line=line, last_line=line, lines=(comment.text,))


def _as_written(first: int, last: int, source: list[str]) -> Block:
    """A statement over several lines with an ignore comment, which speaks to the lines it has."""
    lines = [line.rstrip() for line in source[first - 1 : last]]
    return Block(first_line=first, last_line=last, lines=(lines[0].lstrip(), *lines[1:]))


def _statement_block(
    statement: LogicalLine, last: int, comments: tuple[Comment, ...], ignoring: set[int], source: list[str]
) -> Block:
    block = _laid_out(statement, last, comments, ignoring)
    # White space must not make a statement too long to be read.
    too_long = sum(map(len, block.lines)) + len(block.lines) > MAX_LENGTH
    return _as_written(statement.first_line, last, source) if too_long else block


def _laid_out(statement: LogicalLine, last: int, comments: tuple[Comment, ...], ignoring: set[int]) -> Block:
    pieces = pieces_of(statement, comments)
    ignored = statement.first_line in ignoring
    if not ignored and not is_one_line(pieces):
        return Block(first_line=statement.first_line, last_line=last, lines=broken(pieces))
    text = flat(pieces)
    behind = "".join(f"  {comment}" for comment in pieces[-1].behind)
    return Block(
        first_line=statement.first_line,
        last_line=last,
        lines=(text + behind,),
        column=None if len(text) > WIDTH else Column.of(pieces),
    )


def _joined(blocks: tuple[Block, ...]) -> Iterator[str]:
    """All lines, at most one blank line between blocks; neighbours on consecutive lines are lined up."""
    run: list[Block] = []
    for index, block in enumerate(blocks):
        apart = index > 0 and block.first_line > blocks[index - 1].last_line + 1
        joins = run and not apart and _kind(run[-1]) is not None and _kind(run[-1]) == _kind(block)
        if not joins:
            yield from _run_lines(run)
            run = []
        if apart:
            yield ""
        run.append(block)
    yield from _run_lines(run)


def _kind(block: Block) -> bool | None:
    return None if block.column is None else block.column.is_route


def _run_lines(run: list[Block]) -> Iterator[str]:
    columns = [block.column for block in run if block.column is not None]
    texts = aligned(columns) if len(columns) > 1 else None
    if texts is not None:
        yield from texts
        return
    for block in run:
        yield from block.lines
