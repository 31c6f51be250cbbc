"""Arguments that are literals: words, lengths, counts, shares, pairs, schedules."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from trace_dsl.model import Place
from trace_dsl.resolve.arguments import Bound
from trace_dsl.resolve.elsewhere import spelled
from trace_dsl.resolve.expressions import expression
from trace_dsl.resolve.findings import Context, is_length
from trace_dsl.rules import LanguageRule
from trace_dsl.schedules import mixes_units, share_of_run
from trace_dsl.syntax.tree import Binary, Call, Name, Node, Number, Text, TupleOf, Unary, Unit
from trace_dsl.terms import Anneal, Constant, Length, Operator, RunFraction, Schedule, Shape, Steps, Tokens
from trace_dsl.vocabulary import Suggestion, ValueKind, closest

LENGTH_FORMS = "write `30` or `30 steps`, `10%` of the run, or `2e6 tokens`"


def word(
    context: Context,
    node: Node,
    choices: Iterable[str],
    what: str,
    *,
    argument: str | None = None,
    calls: re.Pattern[str] | None = None,
) -> str | None:
    """One of a closed set of words. `argument` is what it is given to, for fixes that show both; `calls` are those that
    may stand there too, and are met in quotes."""
    allowed = tuple(choices)
    if isinstance(node, Name):
        if node.name in allowed:
            return node.name
        context.error(
            LanguageRule.UNKNOWN_NAME,
            node.place,
            f"`{node.name}` is no {what}; allowed: {', '.join(allowed)}",
            fix=_word_meant(node.name, allowed),
        )
        return None
    written = spelled(node)
    several = [name for name in _names_joined(node) if name in allowed]
    if several:
        one = " or ".join(name if argument is None else f"{argument}={name}" for name in dict.fromkeys(several))
        context.error(LanguageRule.INVALID_VALUE, node.place, f"{what} is one word", fix=f"write one word: {one}")
        return None
    if isinstance(node, Text) and _stands_without_quotes(node.value.strip(), allowed, calls):
        message = f"the {what} is a word without quotes"
        fix = Suggestion(near=node.value.strip(), words=f"drop the quotes: {node.value.strip()}")
    elif written is not None and not isinstance(node, Number):
        message, fix = f"`{written}` is no {what}; allowed: {', '.join(allowed)}", _word_meant(written, allowed)
    else:
        message = f"{what} is one of these words: {', '.join(allowed)}"
        fix = Suggestion(near=None, words=f"write {allowed[0]}, for example")
    context.error(LanguageRule.INVALID_VALUE, node.place, message, fix=fix)
    return None


def _stands_without_quotes(inside: str, allowed: tuple[str, ...], calls: re.Pattern[str] | None) -> bool:
    return (inside in allowed and inside.isidentifier()) or (calls is not None and calls.fullmatch(inside) is not None)


def _word_meant(written: str, allowed: tuple[str, ...]) -> Suggestion:
    """The word that is meant, where it says all that is written; `const(n)` only shows what is called."""
    says_more = re.search(r"[\d(]", written) is not None
    near = None if says_more else closest(written, (name for name in allowed if name.isidentifier()))
    return Suggestion(near=near, known=allowed)


def _names_joined(node: Node) -> tuple[str, ...]:
    """The names in `(a, b)`, `a + b` or `a and b`; none for any other value."""
    match node:
        case TupleOf(items=parts):
            pass
        case Binary(operator=Operator.ADD | Operator.AND | Operator.OR, left=left, right=right):
            parts = (left, right)
        case _:
            return ()
    return tuple(name for one in parts for name in ((one.name,) if isinstance(one, Name) else _names_joined(one)))


def text(context: Context, node: Node, what: str) -> str | None:
    """A quoted text that is not empty."""
    literal = context.through_lets(node)
    if isinstance(literal, Text) and literal.value.strip():
        return literal.value
    written = (spelled(node) or "").strip()
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
    fix: str | Callable[[float], str] = "",
) -> float | None:
    """A number that does not vary, within bounds. `fix` says what to write instead of one outside them, where there is
    more to say than the bounds."""
    typed = expression(context, node)
    if typed is None:
        return None
    if not isinstance(typed.expr, Constant):
        found = "one that varies" if typed.kind is ValueKind.NUMBER else "a predicate"
        context.error(
            LanguageRule.WRONG_RANK,
            node.place,
            f"{what} must be a constant number, not {found}",
            fix="give a number, or a `let` of one",
        )
        return None
    value = typed.expr.value
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
    within = " and ".join(words for _, words in bounds)
    context.error(
        LanguageRule.INVALID_VALUE,
        node.place,
        f"{what} is {value:g}, but must be {within}",
        fix=(fix if isinstance(fix, str) else fix(value)) or f"write a number {within}",
    )
    return None


def count(context: Context, node: Node, what: str, *, fix: str = "") -> int | None:
    """A whole number, at least 1; `10 steps` counts as 10 where steps are meant."""
    literal = context.through_lets(node)
    if isinstance(literal, Number) and literal.unit is Unit.STEPS and "step" in what:
        literal = Number(value=literal.value, unit=Unit.NONE, is_integer=True, text=literal.text, place=literal.place)
    value = constant(context, literal, what, at_least=1, fix=fix or "write a whole number, at least 1")
    if value is None:
        return None
    if value != int(value):
        context.error(
            LanguageRule.INVALID_VALUE,
            node.place,
            f"{what} is {value:g}, but must be a whole number",
            fix=_whole(value),
        )
        return None
    return int(value)


def _whole(value: float, unit: str = "") -> str:
    """The whole numbers on both sides of one that is not."""
    return f"write {int(value)}{unit} or {int(value) + 1}{unit}" if value >= 1 else f"write 1{unit}"


def length(context: Context, node: Node, what: str) -> Length | None:
    """Steps, a share of the run, or tokens; a bare number that is not whole is ambiguous."""
    literal = context.through_lets(node)
    if isinstance(literal, Unary) and literal.operator is Operator.NEG and isinstance(literal.operand, Number):
        context.error(
            LanguageRule.INVALID_VALUE,
            node.place,
            f"`{what}` is a length and cannot be negative",
            fix=LENGTH_FORMS,
        )
        return None
    if not isinstance(literal, Number):
        context.error(LanguageRule.INVALID_VALUE, node.place, f"`{what}` is a length", fix=LENGTH_FORMS)
        return None
    if literal.value == float("inf"):
        context.error(
            LanguageRule.INVALID_VALUE,
            node.place,
            f"`{literal.text}` is too large for a length",
            fix=LENGTH_FORMS,
        )
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
            context.error(
                LanguageRule.INVALID_VALUE,
                node.place,
                f"`{literal.text}` is not a whole number of steps",
                fix=_whole(literal.value, " steps"),
            )
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
    return constant(context, literal, what, above=0, fix="write a share above 0, such as 25%")


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
            fix="write two, as in (0.2, 0.28), or one for both sides",
        )
        return None
    return (literal.items[0], literal.items[1])


# ----------------------------------------------------------------------------------------------------------- schedules

_SHAPE_WITH_LENGTH = re.compile(
    rf"(?:{'|'.join(shape.value for shape in Shape)})\((?:\d{{1,9}}(?: steps)?|\d{{1,2}}%|\d+(?:e\d)? tokens)\)"
)
_OPEN_END = "; an anneal without a length, as in anneal=cos, lasts to the end of the run"


def anneal(context: Context, node: Node) -> Anneal | None:
    """`cos`, or `linear(30)` with a length."""
    shapes = tuple(shape.value for shape in Shape)
    if isinstance(node, Name | Text):
        shape = word(context, node, shapes, "shape of an anneal", calls=_SHAPE_WITH_LENGTH)
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
    if node is not None and "anneal" not in bound:
        context.error(
            LanguageRule.MISSING_ARGUMENT,
            bound.place_of("floor"),
            "`floor` is where an anneal ends, but there is no `anneal`",
            consequence="the weight would never go down",
            fix="add anneal=cos, which lasts to the end of the run, or take `floor` out",
        )
        complete = False
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
    share = share_of_run(schedule)
    if share > 1 + 1e-9:
        context.error(
            LanguageRule.INVALID_VALUE,
            place,
            f"the lengths of this schedule add up to {share * 100:g}% of the run",
            consequence="the run ends before the schedule does",
            fix="shorten them to 100% or less" + (_OPEN_END if down is not None and down.length is not None else ""),
        )
        return None
    return schedule
