"""Arguments that are literals: words, lengths, counts, shares, pairs, schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from trace_dsl.model import Place
from trace_dsl.resolve.arguments import Bound
from trace_dsl.resolve.elsewhere import spelled
from trace_dsl.resolve.expressions import number
from trace_dsl.resolve.findings import Context, is_length
from trace_dsl.rules import LanguageRule
from trace_dsl.schedules import mixes_units
from trace_dsl.syntax.tree import Call, Name, Node, Number, Text, TupleOf, Unary, Unit
from trace_dsl.terms import Anneal, Constant, Length, Operator, RunFraction, Schedule, Shape, Steps, Tokens
from trace_dsl.vocabulary import Suggestion, did_you_mean

LENGTH_FORMS = "write `30` or `30 steps`, `10%` of the run, or `2e6 tokens`"


def word(context: Context, node: Node, choices: Iterable[str], what: str) -> str | None:
    """One of a closed set of words."""
    allowed = tuple(choices)
    if isinstance(node, Name):
        if node.name in allowed:
            return node.name
        context.error(
            LanguageRule.UNKNOWN_NAME,
            node.place,
            f"`{node.name}` is no {what}; allowed: {', '.join(allowed)}",
            fix=did_you_mean(node.name, allowed),
        )
        return None
    written = spelled(node)
    if isinstance(node, Text) and written in allowed:
        message = f"the {what} is a word without quotes"
        fix = Suggestion(near=written, words=f"drop the quotes: {written}")
    elif written is not None and not isinstance(node, Number):
        message, fix = f"`{written}` is no {what}; allowed: {', '.join(allowed)}", did_you_mean(written, allowed)
    else:
        message = f"{what} is one of these words: {', '.join(allowed)}"
        fix = Suggestion(near=None, words=f"write {allowed[0]}, for example")
    context.error(LanguageRule.INVALID_VALUE, node.place, message, fix=fix)
    return None


def text(context: Context, node: Node, what: str) -> str | None:
    """A quoted text that is not empty."""
    literal = context.through_lets(node)
    if isinstance(literal, Text) and literal.value.strip():
        return literal.value
    written = spelled(node)
    fix = 'write "..."' if not written else Suggestion(near=f'"{written}"', words=f'write "{written}"')
    context.error(LanguageRule.INVALID_VALUE, node.place, f"{what} is a text in double quotes", fix=fix)
    return None


def constant(
    context: Context,
    node: Node,
    what: str,
    *,
    above: float | None = None,
    below: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    fix: Callable[[float], str] | None = None,
) -> float | None:
    """A number that does not vary, within bounds. `fix` says what to write instead of one outside them."""
    typed = number(context, node, what)
    if typed is None:
        return None
    if not isinstance(typed, Constant):
        context.error(
            LanguageRule.WRONG_RANK,
            node.place,
            f"{what} must be a constant number, not one that varies",
            fix="give a number, or a `let` of one",
        )
        return None
    value = typed.value
    bounds = []
    if above is not None:
        bounds.append((value > above, f"above {above:g}"))
    if at_least is not None:
        bounds.append((value >= at_least, f"at least {at_least:g}"))
    if below is not None:
        bounds.append((value < below, f"below {below:g}"))
    if at_most is not None:
        bounds.append((value <= at_most, f"at most {at_most:g}"))
    if all(ok for ok, _ in bounds):
        return value
    context.error(
        LanguageRule.INVALID_VALUE,
        node.place,
        f"{what} is {value:g}, but must be {' and '.join(words for _, words in bounds)}",
        fix="" if fix is None else fix(value),
    )
    return None


def count(context: Context, node: Node, what: str, *, fix: str = "") -> int | None:
    """A whole number, at least 1; `10 steps` counts as 10 where steps are meant."""
    literal = context.through_lets(node)
    if isinstance(literal, Number) and literal.unit is Unit.STEPS and "step" in what:
        literal = Number(value=literal.value, unit=Unit.NONE, is_integer=True, text=literal.text, place=literal.place)
    value = constant(context, literal, what, at_least=1, fix=lambda _: fix)
    if value is None:
        return None
    if value != int(value):
        context.error(LanguageRule.INVALID_VALUE, node.place, f"{what} is {value:g}, but must be a whole number")
        return None
    return int(value)


def length(context: Context, node: Node, what: str) -> Length | None:
    """Steps, a share of the run, or tokens; a bare number that is not whole is ambiguous."""
    literal = context.through_lets(node)
    if isinstance(literal, Unary) and literal.operator is Operator.NEG and isinstance(literal.operand, Number):
        context.error(LanguageRule.INVALID_VALUE, node.place, f"`{what}` is a length and cannot be negative")
        return None
    if not isinstance(literal, Number):
        context.error(LanguageRule.INVALID_VALUE, node.place, f"`{what}` is a length", fix=LENGTH_FORMS)
        return None
    if literal.value == float("inf"):
        context.error(LanguageRule.INVALID_VALUE, node.place, f"`{literal.text}` is too large for a length")
        return None
    match literal.unit:
        case Unit.PERCENT:
            if literal.value > 100:
                context.error(
                    LanguageRule.INVALID_VALUE,
                    node.place,
                    f"`{_given(what, literal.text)}` is longer than the whole run",
                    fix=LENGTH_FORMS,
                )
                return None
            return RunFraction(literal.value / 100)
        case Unit.TOKENS:
            return Tokens(literal.value)
        case Unit.STEPS if literal.value == int(literal.value):
            return Steps(int(literal.value))
        case Unit.NONE if literal.is_integer:
            return Steps(int(literal.value))
        case Unit.STEPS:
            context.error(LanguageRule.INVALID_VALUE, node.place, f"`{literal.text}` is not a whole number of steps")
            return None
        case _:
            context.error(
                LanguageRule.AMBIGUOUS_UNIT,
                node.place,
                f"`{_given(what, literal.text)}` has no unit: steps, a share of the run, or tokens?",
                consequence="read as steps it would be over at once; read as a share it would last for most of the run",
                fix=_unit_fix(what, literal),
            )
            return None


def _unit_fix(what: str, literal: Number) -> str:
    if literal.value <= 1:
        return f"write {_given(what, f'{literal.value * 100:g}%')} for a share of the run, or a whole number of steps"
    return f"write {_given(what, f'{int(literal.value)} steps')}, or {_given(what, f'{literal.text} tokens')}"


def _given(what: str, value: str) -> str:
    """A length as it is given: the length of an anneal in the brackets of its shape, the others as arguments."""
    return f"{what}({value})" if what in {shape.value for shape in Shape} else f"{what}={value}"


def share(context: Context, node: Node, what: str) -> float | None:
    """A share above 0, written 20% or 0.2. Nothing above 1 is refused here: see the rule cap-exceeds-one."""
    literal = context.through_lets(node)
    if is_length(literal):
        context.error(LanguageRule.INVALID_VALUE, node.place, f"{what} is a share, not a length", fix="write 25%")
        return None
    return constant(context, literal, what, above=0)


def percent(value: float) -> str:
    """What to write for a share that is more than the whole."""
    return f"write {value:g}%" if 1 < value <= 100 else "write a share, such as 20%"


def pair(context: Context, node: Node, what: str) -> tuple[Node, Node] | None:
    """Two values in brackets; one value stands for both."""
    literal = context.through_lets(node)
    if not isinstance(literal, TupleOf):
        return (literal, literal)
    if len(literal.items) != 2:
        context.error(
            LanguageRule.INVALID_VALUE,
            node.place,
            f"{what} is a number or a pair (low, high), not {len(literal.items)} values",
        )
        return None
    return (literal.items[0], literal.items[1])


# ----------------------------------------------------------------------------------------------------------- schedules


def anneal(context: Context, node: Node) -> Anneal | None:
    """`cos`, or `linear(30)` with a length."""
    shapes = tuple(shape.value for shape in Shape)
    if isinstance(node, Name | Text):
        shape = word(context, node, shapes, "shape of an anneal")
        return None if shape is None else Anneal(shape=Shape(shape))
    if not isinstance(node, Call):
        context.error(
            LanguageRule.INVALID_VALUE,
            node.place,
            "`anneal` is a shape, with its length in brackets",
            fix="write anneal=linear(30), or anneal=cos for one that lasts to the end of the run",
        )
        return None
    shape = word(context, node.function, shapes, "shape of an anneal")
    if len(node.arguments) != 1 or node.arguments[0].name is not None:
        context.error(
            LanguageRule.INVALID_VALUE,
            node.place,
            f"`{node.function.name}` takes its length and nothing else",
            fix=f"write {node.function.name}(30)",
        )
        return None
    lasts = length(context, node.arguments[0].value, node.function.name)
    if shape is None or lasts is None:
        return None
    return Anneal(shape=Shape(shape), length=lasts)


def schedule_from(context: Context, bound: Bound, weight: float | None, place: Place) -> Schedule | None:
    """The schedule that a call's start, ramp, warmup, anneal and floor describe; None when one of them is wrong."""
    complete = weight is not None
    lengths: dict[str, Length] = {}
    for name in ("start", "ramp", "warmup"):
        node = bound.get(name)
        value = Steps(0) if node is None else length(context, node, name)
        if value is None:
            complete = False
        else:
            lengths[name] = value
    node = bound.get("anneal")
    down = None if node is None else anneal(context, node)
    complete = complete and (node is None or down is not None)
    node = bound.get("floor")
    floor = 0.0 if node is None else constant(context, node, "`floor`")
    if not complete or floor is None or weight is None:
        return None
    schedule = Schedule(weight=weight, anneal=down, floor=floor, **lengths)
    if mixes_units(schedule):
        context.error(
            LanguageRule.AMBIGUOUS_UNIT,
            place,
            "this schedule counts some lengths in tokens and others in steps or to the end of the run",
            consequence="its weight at a step would hang on how long earlier responses were",
            fix="give every length of one schedule in tokens, or none",
        )
        return None
    return schedule
