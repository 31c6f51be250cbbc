"""Columns of neighbouring statements: the `=` of declarations, the `when` and the losses of routes.

    teacher = self(sync=10)          key   when correct: fkl()
    let kl  = 0.5                    rest:               grpo()

All statements of a run are lined up or none: none when a line would get too long or a column would stand too far right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trace_dsl.format.layout import WIDTH, flat
from trace_dsl.format.pieces import Piece, Role

FARTHEST = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A statement on one line, cut where columns can be.

    Declarations: `head` is what stands before the `=` (or before the labels of `spans`), `middle` is empty. Routes:
    `head` is the selector, `middle` the `when` with its predicate, `tail` the losses behind the colon.
    """

    is_route: bool
    head: str
    middle: str
    tail: str
    comment: str

    @classmethod
    def of(cls, pieces: Sequence[Piece]) -> Column | None:
        """The columns of a statement; None for `extends`, which has none."""
        comment = "".join(f"  {comment}" for comment in pieces[-1].behind)
        colon = _first(pieces, Role.COLON)
        if colon is not None:
            when = _first(pieces[:colon], Role.WHEN)
            cut = colon if when is None else when
            return cls(
                is_route=True,
                head=flat(pieces[:cut]),
                middle=flat(pieces[cut:colon]),
                tail=flat(pieces[colon + 1 :]),
                comment=comment,
            )
        cut = _first(pieces, Role.EQUAL) or (1 if pieces[0].text == "spans" else 0)
        if cut == 0:
            return None
        return cls(is_route=False, head=flat(pieces[:cut]), middle="", tail=flat(pieces[cut:]), comment=comment)


def _first(pieces: Sequence[Piece], role: Role) -> int | None:
    return next((index for index, piece in enumerate(pieces) if piece.role is role), None)


def aligned(columns: Sequence[Column]) -> tuple[str, ...] | None:
    """The lines of neighbours of one kind, lined up; None when they cannot be."""
    selector = max((len(column.head) for column in columns if column.middle), default=0)
    heads = [
        f"{column.head:<{selector}} {column.middle}:" if column.middle else column.head + ":" * column.is_route
        for column in columns
    ]
    width = max(map(len, heads))
    codes = [f"{head:<{width}} {column.tail}" for head, column in zip(heads, columns, strict=True)]
    if width > FARTHEST or max(map(len, codes)) > WIDTH:
        return None
    return tuple(code + column.comment for code, column in zip(codes, columns, strict=True))
