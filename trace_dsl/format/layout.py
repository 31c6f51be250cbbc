"""The lines of one statement.

A statement stands on one line when it fits. Otherwise its brackets are opened, the outer and later ones first as far as
needed: one argument a line, indented, with a comma after the last. A bracket with a comment in it is always open.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from trace_dsl.format.pieces import Piece, Role

WIDTH = 120
INDENT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """What stands between two commas of a bracket, and the comma behind it, if any."""

    nodes: tuple[Node, ...]
    comma: Piece | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bracket:
    opening: Piece
    items: tuple[Item, ...]
    closing: Piece


Node = Piece | Bracket


def flat(pieces: Sequence[Piece]) -> str:
    """The pieces on one line, without comments and without a comma before a closing bracket."""
    text = ""
    for index, piece in enumerate(pieces):
        last = piece.role is Role.COMMA and index + 1 < len(pieces) and pieces[index + 1].role is Role.CLOSE
        if not last:
            text += (" " if piece.spaced and text else "") + piece.text
    return text


def is_one_line(pieces: Sequence[Piece]) -> bool:
    """Whether a statement stands on one line, comments after its end aside."""
    inside = any(piece.has_comment for piece in pieces[:-1]) or bool(pieces[-1].above)
    return not inside and len(flat(pieces)) <= WIDTH


def broken(pieces: Sequence[Piece]) -> tuple[str, ...]:
    """A statement over several lines, comments included."""
    page = _Page()
    page.write_all(_nest(pieces), indent=0)
    page.end_line()
    return tuple(page.lines)


def _nest(pieces: Sequence[Piece]) -> tuple[Node, ...]:
    nodes, end = _nodes(pieces, 0)
    assert end == len(pieces), "a statement that parses has its brackets in pairs"
    return nodes


def _nodes(pieces: Sequence[Piece], at: int) -> tuple[tuple[Node, ...], int]:
    """The nodes from `at` up to the comma or closing bracket that ends them (commas outside brackets are words)."""
    found: list[Node] = []
    depth_zero = at == 0
    while at < len(pieces):
        piece = pieces[at]
        if piece.role is Role.CLOSE or (piece.role is Role.COMMA and not depth_zero):
            break
        if piece.role in (Role.CALL, Role.GROUP):
            bracket, at = _bracket(pieces, at)
            found.append(bracket)
        else:
            found.append(piece)
            at += 1
    return tuple(found), at


def _bracket(pieces: Sequence[Piece], at: int) -> tuple[Bracket, int]:
    opening = pieces[at]
    items: list[Item] = []
    at += 1
    while pieces[at].role is not Role.CLOSE:
        nodes, at = _nodes(pieces, at)
        comma = pieces[at] if pieces[at].role is Role.COMMA else None
        at += comma is not None
        items.append(Item(nodes=nodes, comma=comma))
    return Bracket(opening=opening, items=tuple(items), closing=pieces[at]), at + 1


def _pieces(nodes: Sequence[Node]) -> Iterator[Piece]:
    for node in nodes:
        if isinstance(node, Piece):
            yield node
            continue
        yield node.opening
        for item in node.items:
            yield from _pieces(item.nodes)
            if item.comma is not None:
                yield item.comma
        yield node.closing


def _has_inner_comment(bracket: Bracket) -> bool:
    *inside, closing = _pieces((bracket,))
    return any(piece.has_comment for piece in inside) or bool(closing.above)


def _until_next_break(nodes: Sequence[Node]) -> int:
    """The width of what must follow on the same line: up to and with the next bracket that can be opened."""
    must: list[Piece] = []
    for node in nodes:
        if isinstance(node, Bracket) and node.items:
            must.append(node.opening)
            break
        must.extend(_pieces((node,)))
        if must[-1].behind:
            break
    return len(flat(must)) + bool(must and must[0].spaced)


# ----------------------------------------------------------------------------------------------- items on their lines


def _lines_of_items(bracket: Bracket) -> tuple[tuple[tuple[Node, ...], ...], Piece]:
    """The items of an open bracket, each with its comma written to its last piece, and the closing piece.

    One comment stays behind an item's comma; others that stood around the comma go above what comes next.
    """
    rows: list[tuple[Node, ...]] = []
    carried: tuple[str, ...] = ()
    for index, item in enumerate(bracket.items):
        nodes = _with_above(item.nodes, carried)
        comma = item.comma
        last = _last_piece(nodes)
        behind = last.behind if comma is None else (*last.behind, *comma.above, *comma.behind)
        wanted = index + 1 < len(bracket.items) or bracket.opening.role is Role.CALL
        carried = behind[1:]
        nodes = _with_last(nodes, replace(last, text=last.text + ("," if wanted else ""), behind=behind[:1]))
        rows.append(nodes)
    closing = bracket.closing
    return tuple(rows), replace(closing, above=(*carried, *closing.above))


def _with_above(nodes: tuple[Node, ...], comments: tuple[str, ...]) -> tuple[Node, ...]:
    first = nodes[0]
    if isinstance(first, Piece):
        return (replace(first, above=(*comments, *first.above)), *nodes[1:])
    opening = replace(first.opening, above=(*comments, *first.opening.above))
    return (replace(first, opening=opening), *nodes[1:])


def _last_piece(nodes: tuple[Node, ...]) -> Piece:
    last = nodes[-1]
    return last if isinstance(last, Piece) else last.closing


def _with_last(nodes: tuple[Node, ...], piece: Piece) -> tuple[Node, ...]:
    last = nodes[-1]
    return (*nodes[:-1], piece if isinstance(last, Piece) else replace(last, closing=piece))


class _Page:
    """Lines being written; `line` is empty when the next piece begins one. A comment behind a piece ends its line."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.line = ""

    def end_line(self) -> None:
        if self.line:
            self.lines.append(self.line)
        self.line = ""

    def write(self, piece: Piece, *, indent: int) -> None:
        """A piece with its comments; where it begins a line, it is indented by `indent`."""
        for comment in piece.above:
            self.end_line()
            self.lines.append(" " * indent + comment)
        if self.line:
            self.line += (" " if piece.spaced else "") + piece.text
        else:
            self.line = " " * indent + piece.text
        if piece.behind:
            (comment,) = piece.behind
            self.line += f"  {comment}"
            self.end_line()

    def write_all(self, nodes: Sequence[Node], *, indent: int) -> None:
        """Nodes that follow one another. Where a comment ends a line, what follows stands deeper than the start."""
        for index, node in enumerate(nodes):
            deeper = indent if index == 0 else indent + INDENT
            if isinstance(node, Piece):
                self.write(node, indent=deeper)
            elif _has_inner_comment(node) or (node.items and not self._fits(node, nodes[index + 1 :])):
                self._open(node, indent=len(self.line) - len(self.line.lstrip()) if self.line else deeper)
            else:
                *inside, closing = _pieces((node,))
                self.write(replace(closing, text=flat((*inside, closing)), spaced=node.opening.spaced), indent=deeper)

    def _fits(self, node: Bracket, following: Sequence[Node]) -> bool:
        closed = flat(tuple(_pieces((node,))))
        return len(self.line) + node.opening.spaced + len(closed) + _until_next_break(following) <= WIDTH

    def _open(self, bracket: Bracket, *, indent: int) -> None:
        rows, closing = _lines_of_items(bracket)
        self.write(bracket.opening, indent=indent)
        for row in rows:
            self.end_line()
            self.write_all(row, indent=indent + INDENT)
        self.end_line()
        self.lines.extend(" " * (indent + INDENT) + comment for comment in closing.above)
        self.write(replace(closing, above=()), indent=indent)
