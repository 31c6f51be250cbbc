"""What to write for an argument that stands without its name: one that is still free and takes such a value."""

from __future__ import annotations

from itertools import pairwise

from trace_dsl.model import DEFAULT_TEACHER
from trace_dsl.resolve.elsewhere import reference_loss, spelled
from trace_dsl.resolve.findings import Context
from trace_dsl.syntax.tree import Argument, Call, Name, Node, Number, Text, TupleOf, Unit
from trace_dsl.vocabulary import ARGUMENT_WORDS, DIVERGENCES, SIGNALS, ValueKind

# Arguments that take a text, a whole number, a number, an expression; of those that are free the first is meant.
_TEXTS = ("path", "file")
_COUNTS = ("sync", "n")
_NUMBERS = ("high", "w", "cap", "ema")
_EXPRESSIONS = ("adv", "w")


def fix_for_unnamed(context: Context, call: Call, argument: Argument, known: tuple[str, ...], used: set[str]) -> str:
    """What to write instead; the argument it offers is added to those `used` in the call."""
    function, value = call.function.name, argument.value
    free = tuple(name for name in known if name not in used)
    written = written_as(value)
    if "clip" in known:
        sides = _sides_of_clip(call, argument)
        if sides is not None:
            used.add("clip")
            return f"write clip=({', '.join(written_as(side) for side in sides)})"
    if function in DIVERGENCES and _is_reference(context, value):
        weight = next((a.value for a in call.arguments if a.name is not None and a.name.name == "w"), None)
        return "write " + reference_loss(context, function, "0.01" if weight is None else written_as(weight))
    name, given = _meant(context, value, free, written, function)
    if name is None or (name == "w" and _has_number_before(call, argument)):
        return _none_fits(function, free, known)
    used.add(name)
    if name == "w" and "clip" in free and isinstance(value, Number) and 0 < value.value < 1:
        return f"name it: {function}(w={given}) for its weight, {function}(clip={given}) for its clip"
    return f"name it: {function}({given if given == 'frozen' else f'{name}={given}'})"


def written_as(node: Node) -> str:
    """A value as it is written in a fix; dots for one that is long."""
    if isinstance(node, TupleOf):
        return f"({', '.join(written_as(item) for item in node.items)})"
    if isinstance(node, Text):
        return f'"{node.value}"'
    return spelled(node) or "..."


def _is_reference(context: Context, value: Node) -> bool:
    return isinstance(value, Name) and value.name in ("ref", "reference") and value.name not in context.teachers


def _sides_of_clip(call: Call, argument: Argument) -> tuple[Node, Node] | None:
    """The two numbers, this one among them, that look like the sides of `clip`: `clip=0.2, 0.28` or `0.2, 0.28`."""
    named = any(other.name is not None and other.name.name == "clip" for other in call.arguments)
    for low, high in pairwise(call.arguments):
        if argument not in (low, high) or high.name is not None:
            continue
        starts = low.name.name == "clip" if low.name is not None else not named
        if starts and isinstance(low.value, Number) and isinstance(high.value, Number):
            return low.value, high.value
    return None


def _has_number_before(call: Call, argument: Argument) -> bool:
    """Whether another number without a name stands before this one: a weight would stand first."""
    before = call.arguments[: call.arguments.index(argument)]
    return any(other.name is None and isinstance(other.value, Number) for other in before)


def _meant(context: Context, value: Node, free: tuple[str, ...], written: str, function: str) -> tuple[str | None, str]:
    """The free argument that takes such a value, and how the value is given to it."""
    literal = context.through_lets(value)
    choices: tuple[str, ...]
    if isinstance(value, Name | Text) and _is_teacher(context, value, free):
        return "teacher", spelled(value) or written
    word = spelled(value) if isinstance(value, Name | Text) else None
    by_word = next((name for name in free if word is not None and word in ARGUMENT_WORDS.get(name, ())), None)
    if by_word is not None and word is not None:
        return by_word, word
    if isinstance(value, Call):
        called = next((name for name in free if value.function.name in ARGUMENT_WORDS.get(name, ())), None)
        if called is not None:
            inner = ", ".join(written_as(one.value) for one in value.arguments)
            return called, f"{value.function.name}({inner})"
    if word is not None and word in free:
        return word, word if word == "frozen" else "..."
    match literal:
        case Text():
            choices = _TEXTS
        case TupleOf():
            choices = ("clip",)
        case Number() if function == "schedule" or literal.unit in (Unit.STEPS, Unit.TOKENS):
            return _length(literal, free, written)
        case Number():
            choices = (*_COUNTS, *_NUMBERS) if literal.is_integer and literal.unit is Unit.NONE else _NUMBERS
        case Name() if _is_predicate(literal):
            choices = ("when",)
        case Name() if literal.name not in SIGNALS and literal.name not in context.lets:
            choices = ("teacher",)
        case _:
            choices = _EXPRESSIONS
    name = next((choice for choice in choices if choice in free), None)
    if name == "cap" and isinstance(literal, Number) and literal.unit is Unit.NONE:
        return name, f"{literal.value if literal.value > 1 else literal.value * 100:g}%"
    return name, written


def _is_teacher(context: Context, value: Name | Text, free: tuple[str, ...]) -> bool:
    return "teacher" in free and (spelled(value) in context.teachers or spelled(value) == DEFAULT_TEACHER)


def _is_predicate(value: Name) -> bool:
    return value.name in SIGNALS and SIGNALS[value.name].kind is ValueKind.PREDICATE


def _length(literal: Number, free: tuple[str, ...], written: str) -> tuple[str | None, str]:
    """The hold of a schedule first, then how long it goes down."""
    if literal.unit is Unit.NONE and not literal.is_integer:
        if "anneal" not in free:
            return ("floor" if "floor" in free else None), written
        written, unit = f"{literal.value * 100:g}%", ""
        if literal.value > 1:
            return None, written
    else:
        unit = f" {literal.unit.value}" if literal.unit in (Unit.STEPS, Unit.TOKENS) and " " not in written else ""
    if "warmup" in free:
        return "warmup", f"{written}{unit}"
    return ("anneal", f"linear({written}{unit})") if "anneal" in free else (None, written)


def _none_fits(function: str, free: tuple[str, ...], known: tuple[str, ...]) -> str:
    if not known:
        return f"take it out: `{function}` takes no arguments"
    if not free:
        return "take it out"
    return f"take it out, or name what it is for: `{function}` also takes {', '.join(free)}"
