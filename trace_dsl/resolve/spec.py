"""Syntax tree -> `Spec`: every name looked up, every let put in place, every unit and rank known."""

from __future__ import annotations

from dataclasses import dataclass

from trace_dsl.model import (
    DEFAULT_TEACHER,
    PLAIN_ROWS,
    REST,
    AdvantageEstimator,
    Cispo,
    Diagnostic,
    Let,
    OtherPlace,
    Place,
    PolicyGradient,
    RolloutSource,
    Route,
    Severity,
    SpanLabel,
    Spec,
)
from trace_dsl.over_steps import formula_size
from trace_dsl.resolve.calls import resolve_call
from trace_dsl.resolve.declarations import advantage, rollout_source, span_labels, teacher
from trace_dsl.resolve.elsewhere import label_meant
from trace_dsl.resolve.expressions import resolve_let
from trace_dsl.resolve.extends import merge
from trace_dsl.resolve.findings import Context, LetEntry, is_length
from trace_dsl.resolve.routes import route
from trace_dsl.rules import LanguageRule
from trace_dsl.syntax import ParsedSource
from trace_dsl.syntax.tree import (
    AdvantageStatement,
    BrokenStatement,
    Callable,
    LetStatement,
    Loss,
    Name,
    Node,
    RolloutsStatement,
    RouteStatement,
    SpansStatement,
    Statement,
    StatementKind,
    TeacherStatement,
    Text,
    TupleOf,
    names_in,
)
from trace_dsl.terms import Constant
from trace_dsl.vocabulary import LOSSES, NO_LOSS, RESERVED, ROWS, SIGNALS

# Formulas that share lets are written out when they are judged: few lines can stand for very many operations.
MAX_PARTS = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """`spec` holds everything that is known, also when there are errors; `sources` are the files that were read."""

    spec: Spec
    diagnostics: tuple[Diagnostic, ...]
    sources: tuple[ParsedSource, ...]


def resolve(source: ParsedSource) -> Resolved:
    """Resolve a parsed spec and those it extends; what is wrong becomes diagnostics, never an exception."""
    merged = merge(source)
    context = Context(resolve_call=resolve_call)
    mentioned = set(_declare(context, merged.statements))
    spans: list[SpanLabel] = []
    estimator: AdvantageEstimator | None = None
    rollouts: list[RolloutSource] = []
    routes: list[Route] = []
    broken: set[Place] = set()
    parts = 0
    for index, statement in enumerate(merged.statements):
        context.index, context.broken = index, False
        match statement:
            case SpansStatement():
                known = {label.name for label in spans}
                spans.extend(x for x in span_labels(context, statement) if x.name not in known)
            case TeacherStatement():
                name = DEFAULT_TEACHER if statement.name is None else statement.name.name
                made = teacher(context, statement)
                if context.teachers.get(name) is None:
                    context.teachers[name] = made
            case AdvantageStatement():
                found = advantage(context, statement)
                estimator = estimator or found
            case RolloutsStatement():
                roll = rollout_source(context, statement)
                if roll is not None and all(other.name != roll.name for other in rollouts):
                    rollouts.append(roll)
            case RouteStatement() if parts > MAX_PARTS:
                context.broken = True
            case RouteStatement():
                made_route = route(context, statement)
                if made_route is not None:
                    parts += _size_of(made_route)
                    if {name.name for name in statement.selectors} != set(made_route.labels):
                        broken.add(made_route.place)
                    if parts <= MAX_PARTS:
                        routes.append(made_route)
                    else:
                        _too_large(context, statement.place)
            case LetStatement():
                entry = context.lets.get(statement.name.name)
                if entry is not None and entry.index == index:
                    errors = len(context.diagnostics)
                    resolve_let(context, entry)
                    # A length or a pair has no value of its own; a let without one for another reason is broken.
                    literal = isinstance(entry.node, TupleOf | Text) or is_length(entry.node)
                    context.broken = len(context.diagnostics) > errors or (entry.value is None and not literal)
            case BrokenStatement():
                mentioned |= statement.mentions
            case _:
                raise AssertionError("extends statements are merged before names are looked up")
        if context.broken:
            mentioned |= _names_of(statement)
    teachers = [made for made in context.teachers.values() if made is not None]
    if context.default_teacher is not None:
        teachers.append(context.default_teacher)
    labels = (
        spans
        if context.labels_declared
        else [SpanLabel(name=name, cap=None, place=place) for name, place in context.labels.items()]
    )
    diagnostics = (*merged.diagnostics, *context.diagnostics)
    if not merged.statements and not diagnostics:
        diagnostics = (_empty(),)
        mentioned.add(REST)
    spec = Spec(
        path=source.path,
        text=source.text,
        labels=tuple(labels),
        spans_declared=context.labels_declared,
        teachers=tuple(teachers),
        advantage=estimator or AdvantageEstimator(),
        rollouts=tuple(rollouts),
        lets=tuple(_let(entry) for entry in context.lets.values()),
        routes=tuple(routes),
        mentioned=frozenset(mentioned),
        broken=frozenset(broken),
    )
    return Resolved(
        spec=spec,
        diagnostics=tuple(sorted(set(diagnostics), key=lambda found: (found.place, found.rule, found.message))),
        sources=merged.sources,
    )


def _size_of(made: Route) -> int:
    """How many operations and values a route has, with its lets put in place."""
    found = [made.when, *(channel.weight for channel in made.channels)]
    kernels = (channel.kernel for channel in made.channels)
    found.extend(kernel.advantage for kernel in kernels if isinstance(kernel, PolicyGradient | Cispo))
    return sum(formula_size(expr) for expr in found if expr is not None)


def _too_large(context: Context, place: Place) -> None:
    context.error(
        LanguageRule.INVALID_VALUE,
        place,
        f"with their lets put in place, the expressions up to this route have more than {MAX_PARTS:,} parts",
        fix="write fewer or smaller ones; this and later routes are not looked at",
    )


def _empty() -> Diagnostic:
    return Diagnostic(
        rule=LanguageRule.SYNTAX.value,
        severity=Severity.ERROR,
        place=Place(line=1, column=1, end_line=1, end_column=2),
        message="this spec has no statements",
        consequence="no token would feed a loss",
        fix="write a route, for example `rest: grpo()`",
    )


def _let(entry: LetEntry) -> Let:
    value = Constant(value=0.0) if entry.value is None else entry.value.expr
    return Let(name=entry.name, value=value, place=entry.place, uses=entry.uses)


# -------------------------------------------------------------------------------------------------------- declarations


def _declare(context: Context, statements: tuple[Statement, ...]) -> set[str]:
    """Collect every declared name before anything is looked up; gives the names of broken declarations."""
    broken: set[str] = set()
    seen: dict[tuple[str, str], Place] = {}
    one_of_a_kind: dict[type, Place] = {}
    for index, statement in enumerate(statements):
        if isinstance(statement, SpansStatement | AdvantageStatement):
            first = one_of_a_kind.setdefault(type(statement), statement.place)
            if first != statement.place:
                word = "spans" if isinstance(statement, SpansStatement) else "advantage"
                _twice(context, f"`{word}`", statement.place, first)
        match statement:
            case SpansStatement():
                context.labels_declared = True
                for item in statement.labels:
                    name = _function(item)
                    if _is_new(context, seen, "label", name):
                        context.labels[name.name] = name.place
            case TeacherStatement():
                name = statement.name or Name(name=DEFAULT_TEACHER, place=statement.place)
                if _is_new(context, seen, "teacher", name):
                    context.teachers[name.name] = None
            case RolloutsStatement():
                if _is_new(context, seen, "rollouts", statement.name):
                    context.rollouts[statement.name.name] = statement.name.place
            case LetStatement():
                if _is_new(context, seen, "let", statement.name):
                    context.lets[statement.name.name] = LetEntry(
                        name=statement.name.name,
                        node=statement.value,
                        place=statement.name.place,
                        index=index,
                    )
            case BrokenStatement():
                broken |= set(statement.declares)
                _declare_broken(context, statement, index)
            case _:
                pass
    return broken


def _declare_broken(context: Context, statement: BrokenStatement, index: int) -> None:
    if statement.kind is StatementKind.EXTENDS:
        # What the other spec declares is unknown; labels of this spec are not judged against a partial list.
        context.labels_declared = context.labels_declared and bool(context.labels)
    if statement.kind is StatementKind.SPANS:
        context.labels_declared = True
    for name in statement.declares:
        match statement.kind:
            case StatementKind.SPANS:
                context.labels.setdefault(name, statement.place)
            case StatementKind.TEACHER:
                context.teachers.setdefault(name, None)
            case StatementKind.ROLLOUTS:
                context.rollouts.setdefault(name, statement.place)
            case StatementKind.LET:
                context.lets.setdefault(name, LetEntry(name=name, node=None, place=statement.place, index=index))
            case StatementKind.ADVANTAGE | StatementKind.EXTENDS | StatementKind.ROUTE:
                pass


def _function(item: Callable) -> Name:
    return item if isinstance(item, Name) else item.function


def _is_new(context: Context, seen: dict[tuple[str, str], Place], what: str, name: Name) -> bool:
    """Whether a name may be declared; a word of the language and a second use of a name may not."""
    taken = name.name in RESERVED
    if what == "let":
        taken = taken or name.name in SIGNALS or name.name in LOSSES or name.name in (ROWS, NO_LOSS)
    if what == "label":
        taken = taken or name.name == REST
    if what == "rollouts":
        taken = taken or name.name == PLAIN_ROWS
    if taken:
        context.error(
            LanguageRule.DUPLICATE_NAME,
            name.place,
            f"`{name.name}` is a word of the language and cannot name a {what}",
            fix="choose another name",
        )
        # Its readers mean this declaration or the language's word; neither is their mistake.
        return False
    first = seen.setdefault((what, name.name), name.place)
    if first != name.place:
        _twice(context, f"the {what} `{name.name}`", name.place, first)
        return False
    return True


def _twice(context: Context, what: str, place: Place, first: Place) -> None:
    context.error(
        LanguageRule.DUPLICATE_NAME,
        place,
        f"{what} is given twice",
        consequence="only the first would count",
        fix="keep one of them",
        others=(OtherPlace(place=first, note="given here first"),),
    )


def _names_of(statement: Statement) -> frozenset[str]:
    """Every name a statement with an error reads."""

    def of(*nodes: Node | None) -> frozenset[str]:
        return names_in(*nodes)

    def of_losses(losses: tuple[Loss, ...]) -> frozenset[str]:
        return of(*(loss.value for loss in losses))

    match statement:
        case SpansStatement():
            return of(*statement.labels)
        case TeacherStatement() | AdvantageStatement():
            return of(statement.value) | {DEFAULT_TEACHER}
        case RolloutsStatement() | LetStatement():
            return of(statement.value) | {statement.name.name}
        case RouteStatement():
            selectors = frozenset(name.name for name in statement.selectors)
            selectors |= {meant for name in selectors if (meant := label_meant(name)) is not None}
            return selectors | of(statement.when) | of_losses(statement.losses) | {DEFAULT_TEACHER}
        case _:
            return frozenset()
