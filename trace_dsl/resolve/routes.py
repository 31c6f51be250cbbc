"""Routes: selector, predicate, rollout source, losses."""

from __future__ import annotations

from trace_dsl.model import PLAIN_ROWS, REST, Channel, OtherPlace, Place, Route
from trace_dsl.resolve.elsewhere import label_meant
from trace_dsl.resolve.expressions import predicate
from trace_dsl.resolve.findings import Context
from trace_dsl.resolve.losses import channel
from trace_dsl.rules import LanguageRule
from trace_dsl.syntax.tree import Binary, Loss, Name, Node, RouteStatement
from trace_dsl.terms import Expr, Operator, Rank, Signal
from trace_dsl.vocabulary import NO_LOSS, RESERVED, SIGNALS, UNKNOWN_PREDICATE, Suggestion, ValueKind

# Predicates that are no labels unless `spans` says so.
_OF_A_ROLLOUT = frozenset(info.name for info in SIGNALS.values() if info.kind is ValueKind.PREDICATE)


def route(context: Context, statement: RouteStatement) -> Route | None:
    """One route with what is right about it; None when not even a label is known."""
    labels = _labels(context, statement)
    rows, when = _when(context, statement)
    channels = _channels(context, statement.losses)
    if not labels:
        return None
    return Route(
        labels=labels,
        when=when,
        channels=channels,
        place=statement.place,
        rows=rows,
        text=statement.text,
    )


def _labels(context: Context, statement: RouteStatement) -> tuple[str, ...]:
    labels: dict[str, Place] = {}
    for selector in statement.selectors:
        name = selector.name
        if name in labels:
            context.error(
                LanguageRule.DUPLICATE_NAME,
                selector.place,
                f"`{name}` stands twice in one selector",
                fix="keep one of them",
                others=(OtherPlace(place=labels[name], note="first here"),),
            )
        elif name in RESERVED:
            context.error(
                LanguageRule.DUPLICATE_NAME,
                selector.place,
                f"`{name}` is a word of the language, not a label",
                fix="call the label something else",
            )
        elif name == REST:
            labels[name] = selector.place
        elif not (context.labels_declared and name in context.labels) and name in _OF_A_ROLLOUT:
            others = " | ".join(other.name for other in statement.selectors if other.name not in _OF_A_ROLLOUT) or REST
            context.error(
                LanguageRule.UNKNOWN_SPAN,
                selector.place,
                f"`{name}` is no label: it says something about rollouts, and stands behind `when`",
                consequence="no token would carry it unless the annotator gives that very label",
                fix=f"write `{others} when {name}: ...`; `spans {name}` declares a label of that name",
            )
        elif context.labels_declared and name not in context.labels:
            context.error(
                LanguageRule.UNKNOWN_SPAN,
                selector.place,
                f"`spans` declares no label `{name}`",
                consequence="no token would ever carry it, so this route would train nothing",
                fix=context.did_you_mean(name, context.labels, (REST,)),
            )
        elif not context.labels_declared and (meant := label_meant(name)) is not None:
            context.error(
                LanguageRule.UNKNOWN_SPAN,
                selector.place,
                f"`{name}` would be a label of its own, and no `spans` declares it",
                consequence="no token would carry it unless the annotator gives that very label",
                fix=Suggestion(near=meant, words=f"did you mean `{meant}`? `spans {name}` declares the label"),
            )
        else:
            labels[name] = selector.place
            context.labels.setdefault(name, selector.place)
    if REST in labels and len(statement.selectors) > 1:
        context.error(
            LanguageRule.INVALID_VALUE,
            labels[REST],
            "`rest` is every response token already and stands alone",
            fix="write `rest: ...` as a route of its own",
        )
        return (REST,)
    return tuple(labels)


def _channels(context: Context, losses: tuple[Loss, ...]) -> tuple[Channel, ...]:
    if len(losses) == 1 and isinstance(losses[0].value, Name) and losses[0].value.name == NO_LOSS:
        return ()
    made = [channel(context, loss) for loss in losses]
    return tuple(one for one in made if one is not None)


# ---------------------------------------------------------------------------------------------------------- predicates


def _when(context: Context, statement: RouteStatement) -> tuple[str, Expr | None]:
    """The rollout source of a route and its predicate without `rows == NAME`."""
    rows = PLAIN_ROWS
    rows_place: Place | None = None
    rest: Node | None = None
    wrong = False
    for part in _conjuncts(statement.when):
        named = _rows_comparison(part)
        if named is None:
            rest = part if rest is None else _and(rest, part)
            continue
        if rows_place is not None:
            context.error(
                LanguageRule.INVALID_VALUE,
                part.place,
                "a route reads one source of rollouts",
                fix="write one route for each source",
                others=(OtherPlace(place=rows_place, note="the other one"),),
            )
            continue
        rows_place = part.place
        if named.name != PLAIN_ROWS and named.name not in context.rollouts:
            context.error(
                LanguageRule.UNKNOWN_NAME,
                named.place,
                f"no statement declares rollouts `{named.name}`",
                fix=context.did_you_mean(named.name, context.rollouts, (PLAIN_ROWS,)),
            )
            wrong = True
        rows = named.name
    when = None if rest is None else predicate(context, rest, "`when`")
    if wrong or (rest is not None and when is None):
        # A name of its own, so that no two routes with errors seem to take the same tokens.
        place = statement.place
        when = Signal(name=f"{UNKNOWN_PREDICATE}:{place.path}:{place.line}", rank=Rank.ROW)
    return rows, when


def _conjuncts(node: Node | None) -> tuple[Node, ...]:
    if node is None:
        return ()
    if isinstance(node, Binary) and node.operator is Operator.AND:
        return (*_conjuncts(node.left), *_conjuncts(node.right))
    return (node,)


def _and(left: Node, right: Node) -> Binary:
    place = Place(
        line=left.place.line,
        column=left.place.column,
        end_line=right.place.end_line,
        end_column=right.place.end_column,
        path=left.place.path,
    )
    return Binary(operator=Operator.AND, left=left, right=right, place=place)


def _rows_comparison(node: Node) -> Name | None:
    """The NAME of `rows == NAME`."""
    if not isinstance(node, Binary) or node.operator is not Operator.EQ:
        return None
    match node.left, node.right:
        case Name(name="rows"), Name() as named:
            return named
        case Name() as named, Name(name="rows"):
            return named
        case _:
            return None
