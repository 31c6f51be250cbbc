"""Comparisons that are no plain ones: with `source`, and those that mean something else than they say."""

from __future__ import annotations

from trace_dsl.expressions import apply_operator
from trace_dsl.resolve.elsewhere import spelled, truth_of
from trace_dsl.resolve.findings import Context, Typed
from trace_dsl.rules import LanguageRule
from trace_dsl.syntax.tree import Binary, Name, Node, Number, Unit
from trace_dsl.terms import Constant, Operation, Operator, Rank, Signal
from trace_dsl.vocabulary import ROWS, SIGNALS, SOURCES, Suggestion, ValueKind, did_you_mean, word_of_elsewhere

_COMPARISONS = frozenset({Operator.LT, Operator.LE, Operator.GT, Operator.GE, Operator.EQ, Operator.NE})
_EQUALITIES = frozenset({Operator.EQ, Operator.NE})


def source_comparison(node: Binary) -> Typed | None:
    """`source == tool` and its like; None when the node is something else."""
    if node.operator not in _EQUALITIES:
        return None
    names = _plain_names(node)
    if "source" not in names or len(names) < 2:
        return None
    writer = names[1] if names[0] == "source" else names[0]
    if writer not in SOURCES:
        return None
    source = Signal(name="source", rank=Rank.TOKEN)
    expr = Operation(op=node.operator, args=(source, Constant(value=SOURCES[writer])), rank=Rank.TOKEN)
    return Typed(expr=expr, kind=ValueKind.PREDICATE)


def misspelt_source(context: Context, node: Binary) -> Name | None:
    """The unknown name in `sourc == tool`: one mistake, not two."""
    if not any(name in SOURCES for name in _plain_names(node)):
        return None
    sides = (node.left, node.right)
    known = (*context.lets, *SIGNALS, *SOURCES)
    unknown = [side for side in sides if isinstance(side, Name) and side.name not in known]
    return unknown[0] if len(unknown) == 1 else None


def refused(context: Context, node: Binary) -> bool:
    """Whether a comparison means nothing here, or not what it says; then an error is recorded."""
    if node.operator not in _COMPARISONS:
        return False
    return (
        _picks_rollouts(context, node)
        or _source_with_another(context, node)
        or _counter_with_share(context, node)
        or _truth(context, node, node.left, node.right)
        or _truth(context, node, node.right, node.left)
    )


def _picks_rollouts(context: Context, node: Binary) -> bool:
    """`rows == NAME` where it cannot stand, or with a text."""
    if node.operator not in _EQUALITIES or ROWS not in _plain_names(node):
        return False
    context.error(
        LanguageRule.INVALID_VALUE,
        node.place,
        "`rows ==` picks the rollouts a route reads: it stands alone or joined by `and` in the `when` of a route",
        fix="write `when rows == NAME and ...`, one route for each source; the name has no quotes",
    )
    return True


def _source_with_another(context: Context, node: Binary) -> bool:
    """`source == assistant`, `source == "tool"`."""
    if node.operator not in _EQUALITIES or "source" not in _plain_names(node):
        return False
    other = _beside(node, "source")
    written = spelled(other)
    if written is None or isinstance(other, Number) or written in context.lets or written in SIGNALS:
        return False
    if written in SOURCES:
        message, fix = "what `source` compares with has no quotes", Suggestion(near=written, words=f"write {written}")
    else:
        message, fix = f"`source` is `model` or `tool`, never `{written}`", did_you_mean(written, SOURCES)
    context.error(LanguageRule.UNKNOWN_NAME, other.place, message, fix=fix)
    return True


def _counter_with_share(context: Context, node: Binary) -> bool:
    """`step < 10%`, which would be step < 0.1, and its like."""
    counter = next((name for name in _plain_names(node) if name in _COUNTED and name not in context.lets), None)
    if counter is None:
        return False
    other = _beside(node, counter)
    literal = context.through_lets(other)
    if not isinstance(literal, Number) or literal.unit is not Unit.PERCENT:
        return False
    context.error(
        LanguageRule.AMBIGUOUS_UNIT,
        other.place,
        f"`{counter}` {_COUNTED[counter]}, and `{literal.text}` is the number {literal.value / 100:g} here",
        consequence=_CONSEQUENCE[counter == "step"],
        fix=_share_of(node, counter, literal),
    )
    return True


# What the signals measure that no share is compared with.
_COUNTED = {
    "step": "counts optimizer steps",
    "pos": "counts tokens",
    "len": "counts tokens",
    "turn": "counts turns from 0",
    "group_size": "counts rollouts",
    "entropy": "is measured in nats",
    "teacher_entropy": "is measured in nats",
}
_CONSEQUENCE = (
    "the predicate would hold for other tokens than is written",
    "the predicate would hold in another part of the run than is written",
)


def _share_of(node: Binary, counter: str, literal: Number) -> str:
    """What to write instead of a share that a signal is compared with."""
    share = literal.value / 100
    if node.operator in _EQUALITIES and counter != "group_size":
        return f"write the number that is meant, as in {counter} {node.operator.value} 2; a share compares by < or >"
    less = (node.left is _beside(node, counter)) is (node.operator in (Operator.GT, Operator.GE))
    sign = "<" if less else ">"
    if literal.value >= 100:
        return f"write the number that is meant, such as {share:g}"
    match counter:
        case "step":
            schedule = f"anneal=step({literal.text})" if less else f"start={literal.text}"
            return f"compare with a number of steps, or weigh the loss by schedule(1, {schedule})"
        case "pos":
            return f"compare with a number of tokens, or with a share of the response: pos {sign} {share:g}*len"
        case "turn":
            return f"compare with a number of turns, or with the last one: turn {sign} {share:g}*max(turn, over=row)"
        case "group_size":
            compared = node.operator.value if node.operator in _EQUALITIES else sign
            return f"compare with a number of rollouts, as in group_size {compared} 4"
        case _:
            cut = f"{counter} {sign} quantile({counter}, {literal.text}, over=batch)"
            if less or counter == "len":
                return f"compare with a number, or with a share of the batch: {cut}"
            return f"compare with a number, or take the highest: top({counter}, {100 - literal.value:g}%, over=batch)"


def _truth(context: Context, node: Binary, predicate: Node, value: Node) -> bool:
    """`correct == True`, `correct > 0`: what is true or false is compared with nothing."""
    if not isinstance(predicate, Name) or predicate.name in context.lets:
        return False
    signal = predicate.name if predicate.name in SIGNALS else word_of_elsewhere(predicate.name, SIGNALS)
    if signal is None:
        return False
    truth = None if isinstance(value, Name) and value.name in context.lets else truth_of(value)
    if SIGNALS[signal].kind is not ValueKind.PREDICATE or (truth is None and not isinstance(value, Number)):
        return False
    number = value.value if isinstance(value, Number) else float(bool(truth))
    holds = [bool(apply_operator(node.operator, _in_order(node, predicate, is_true, number))) for is_true in (0, 1)]
    itself = signal if holds == [False, True] else f"not {signal}" if holds == [True, False] else None
    context.error(
        LanguageRule.WRONG_RANK,
        node.place,
        f"`{signal}` is true or false itself: it compares with nothing",
        fix=f"write `{signal}` or `not {signal}`"
        if itself is None
        else Suggestion(near=itself, words=f"write `{itself}`"),
    )
    return True


def _in_order(node: Binary, predicate: Node, is_true: int, number: float) -> tuple[float, float]:
    return (float(is_true), number) if node.left is predicate else (number, float(is_true))


def _beside(node: Binary, name: str) -> Node:
    """What stands on the other side of a name."""
    return node.right if isinstance(node.left, Name) and node.left.name == name else node.left


def _plain_names(node: Binary) -> tuple[str, ...]:
    return tuple(side.name for side in (node.left, node.right) if isinstance(side, Name))
