"""The losses of a route: a call becomes a kernel with its weight and denominator."""

from __future__ import annotations

import re
from collections.abc import Callable

from trace_dsl.model import (
    K3,
    Channel,
    Cispo,
    Divergence,
    DivergenceKind,
    EntropyBonus,
    Kernel,
    MixAnchor,
    Nll,
    OldAnchor,
    Per,
    PerKind,
    PolicyGradient,
    RatioLevel,
    SupportOf,
    Tail,
    TopK,
)
from trace_dsl.resolve.arguments import Bound, bind, function_of
from trace_dsl.resolve.elsewhere import for_denominator, for_loss, spelled, truth_of
from trace_dsl.resolve.expressions import expression, number
from trace_dsl.resolve.findings import Context
from trace_dsl.resolve.literals import constant, count, pair, schedule_from, word
from trace_dsl.resolve.unnamed import written_as
from trace_dsl.rules import LanguageRule
from trace_dsl.syntax.tree import Call, Loss, Name, Node, Number, Unit
from trace_dsl.terms import Constant, Expr, Rank, Scheduled, Signal
from trace_dsl.vocabulary import (
    DIVERGENCES,
    K3_TARGETS,
    LOSSES,
    NO_LOSS,
    PARAMETER_NAMES,
    SCHEDULE_ARGUMENTS,
    Suggestion,
    ValueKind,
    did_you_mean,
)

DEFAULT_CLIP = 0.2
_CONST = re.compile(r"const\([1-9]\d{0,8}\)")
_EXAMPLE = "`clip` gives distances from 1: clip=(0.2, 0.28) keeps the ratio between 0.8 and 1.28"


def channel(context: Context, loss: Loss) -> Channel | None:
    """One loss; None when something in it is wrong. Every independent mistake in the call is reported."""
    function = function_of(loss.value)
    info = LOSSES.get(function.name)
    if info is None:
        _unknown_loss(context, loss.value)
        return None
    if isinstance(loss.value, Name):
        context.error(
            LanguageRule.MISSING_ARGUMENT,
            function.place,
            f"the loss `{function.name}` is not called",
            fix=_called(function.name, "write {}"),
        )
        return None
    errors = len(context.diagnostics)
    bound = bind(context, loss.value, known=info.arguments, positional=info.positional, required=info.required)
    weight = _weight(context, bound)
    per = _per(context, bound)
    kernel = _kernel(context, bound)
    if weight is None or per is None or kernel is None or len(context.diagnostics) > errors:
        return None
    return Channel(
        kernel=kernel,
        weight=weight,
        per=per,
        place=loss.value.place,
        text=loss.text,
        written=bound.names,
    )


def _called(name: str, words: str) -> Suggestion:
    """A loss that is called, with what it needs."""
    required = LOSSES[name].required
    call = f"{name}({', '.join(f'{one}=...' for one in required)})"
    return Suggestion(near=None if required else call, words=words.format(call))


def _unknown_loss(context: Context, value: Call | Name) -> None:
    function = function_of(value)
    if function.name == NO_LOSS:
        context.error(
            LanguageRule.INVALID_VALUE,
            function.place,
            "`none` means that the route has no losses, so it stands alone and without brackets",
            fix="write `LABEL: none`",
        )
        return
    fix = for_loss(context, value) or did_you_mean(function.name, (*LOSSES, NO_LOSS))
    if isinstance(value, Name) and isinstance(fix, Suggestion) and fix.near in LOSSES:
        fix = _called(fix.near, "did you mean `{}`?")
    context.error(LanguageRule.UNKNOWN_NAME, function.place, f"there is no loss `{function.name}`", fix=fix)


def _weight(context: Context, bound: Bound) -> Expr | None:
    node = bound.get("w")
    scheduled = [name for name in SCHEDULE_ARGUMENTS if name in bound]
    if not scheduled:
        return Constant(value=1.0) if node is None else number(context, node, "a weight")
    peak: float | None = 1.0
    if node is not None:
        weight = expression(context, node)
        if weight is None:
            peak = None
        elif isinstance(weight.expr, Constant):
            peak = weight.expr.value
        else:
            is_number = weight.kind is ValueKind.NUMBER
            context.error(
                LanguageRule.WRONG_RANK,
                node.place,
                f"`w` is scheduled by {', '.join(f'{name}=' for name in scheduled)}, so it must be a constant",
                fix="multiply with schedule(...) inside w= instead"
                if is_number
                else "write w=where(p, schedule(...), 0) instead, with this as its p",
            )
            peak = None
    schedule = schedule_from(context, bound, peak, bound.place)
    return None if schedule is None else Scheduled(schedule=schedule)


def _per(context: Context, bound: Bound) -> Per | None:
    node = bound.get("per")
    if node is None:
        return Per(PerKind.SEQUENCE)
    if isinstance(node, Call) and node.function.name == PerKind.CONST.value:
        inner = bind(context, node, known=("n",), positional=("n",), required=("n",))
        value = inner.get("n")
        size = None if value is None else constant(context, value, "the n of const(n)", above=0)
        return None if size is None else Per(PerKind.CONST, size)
    if isinstance(node, Name) and node.name == PerKind.CONST.value:
        context.error(
            LanguageRule.MISSING_ARGUMENT, node.place, "`const` needs its number", fix="write per=const(4096)"
        )
        return None
    said = for_denominator(node)
    if said is not None:
        context.error(LanguageRule.INVALID_VALUE, node.place, f"`{spelled(node)}` is no denominator", fix=said)
        return None
    choices = ("sequence", "token", "selected", "const(n)")
    chosen = word(context, node, choices, "denominator", calls=_CONST)
    return None if chosen is None else Per(PerKind(chosen))


def _kernel(context: Context, bound: Bound) -> Kernel | None:
    match bound.name:
        case name if name in DIVERGENCES:
            return _divergence(context, bound, DivergenceKind(name))
        case "grpo" | "pg":
            return _policy_gradient(context, bound)
        case "cispo":
            advantage = _advantage(context, bound)
            node = bound.get("high")
            high = None if node is None else constant(context, node, "`high`", above=0)
            if advantage is None or high is None:
                return None
            return Cispo(advantage=advantage, high=high)
        case "nll":
            return Nll()
        case "entropy":
            return EntropyBonus()
        case "k3":
            node = bound.get("to")
            if isinstance(node, Number):
                context.error(
                    LanguageRule.INVALID_VALUE,
                    node.place,
                    f"k3 takes the policy it compares with, and `{node.text}` is a number",
                    fix=f"write k3(ref, w={node.text})",
                )
                return None
            to = K3_TARGETS[0] if node is None else word(context, node, K3_TARGETS, "policy k3 compares with")
            return None if to is None else K3(to)
        case _:
            raise AssertionError(f"the vocabulary has a loss {bound.name} that has no kernel")


# ---------------------------------------------------------------------------------------------------------- divergences


def _divergence(context: Context, bound: Bound, kind: DivergenceKind) -> Divergence | None:
    errors = len(context.diagnostics)
    parameter = _parameter(context, bound, kind)
    node = bound.get("teacher")
    teacher: str | None
    if node is None:
        teacher = context.teacher_by_default(bound.place)
    else:
        teacher = _teacher_name(context, node)
    top_k = _top_k(context, bound)
    temperature = _optional(context, bound, "temperature")
    pclip = _optional(context, bound, "pclip")
    if teacher is None or len(context.diagnostics) > errors:
        return None
    return Divergence(
        kind=kind, teacher=teacher, parameter=parameter, top_k=top_k, temperature=temperature, pclip=pclip
    )


def _parameter(context: Context, bound: Bound, kind: DivergenceKind) -> float | None:
    name = PARAMETER_NAMES.get(kind)
    node = None if name is None else bound.get(name)
    if node is None:
        return None
    errors = len(context.diagnostics)
    value = constant(context, node, f"`{name}` of {kind.value}")
    if value is None or 0 < value < 1:
        return value
    if len(context.diagnostics) == errors:
        context.error(
            LanguageRule.INVALID_VALUE,
            node.place,
            f"`{name}` of {kind.value} is {value:g}, but must lie between 0 and 1",
            consequence="at its ends the divergence vanishes or jumps; it never turns into the other direction",
            fix="use fkl or rkl for one direction alone",
        )
    return None


def _teacher_name(context: Context, node: Node) -> str | None:
    if isinstance(node, Name):
        return context.teacher_named(node.name, node.place)
    context.error(LanguageRule.INVALID_VALUE, node.place, "a teacher is given by its name", fix="write teacher=NAME")
    return None


def _optional(context: Context, bound: Bound, name: str) -> float | None:
    node = bound.get(name)
    return None if node is None else constant(context, node, f"`{name}`", above=0)


def _top_k(context: Context, bound: Bound) -> TopK | None:
    node = bound.get("topk")
    if node is None:
        for name in ("of", "tail"):
            if name in bound:
                context.error(
                    LanguageRule.MISSING_ARGUMENT,
                    bound.place_of(name),
                    f"`{name}` describes a truncated support, but there is no `topk`",
                    fix=f"add topk=100, or take `{name}` out",
                )
        return None
    k = count(context, node, "`topk`")
    node = bound.get("of")
    of = "teacher" if node is None else word(context, node, [s.value for s in SupportOf], "side")
    node = bound.get("tail")
    tail = None if node is None else word(context, node, [t.value for t in Tail], "tail")
    if k is None or of is None:
        return None
    return TopK(k=k, of=SupportOf(of), tail=None if tail is None else Tail(tail))


# ------------------------------------------------------------------------------------------------------ policy gradient


def _advantage(context: Context, bound: Bound) -> Expr | None:
    node = bound.get("adv")
    return Signal(name="A", rank=Rank.ROW) if node is None else number(context, node, "an advantage")


# What is written for a bound that there is not.
_NO_BOUND = frozenset({"none", "null", "false", "off", "no", "inf", "infinity"})


def _is_no_bound(context: Context, node: Node) -> bool:
    """Whether `clip` is turned off, which is an error: left out, it would be the default one."""
    if not isinstance(node, Name) or node.name.lower() not in _NO_BOUND or node.name in context.lets:
        return False
    context.error(
        LanguageRule.INVALID_VALUE,
        node.place,
        f"`clip` is a number or a pair (low, high), not `{node.name}`",
        fix="write clip=(1, 1e6), which never acts: no ratio is below 0",
    )
    return True


def _policy_gradient(context: Context, bound: Bound) -> PolicyGradient | None:
    errors = len(context.diagnostics)
    advantage = _advantage(context, bound)
    low: float | None = DEFAULT_CLIP
    high: float | None = DEFAULT_CLIP
    node = bound.get("clip")
    sides = None if node is None or _is_no_bound(context, node) else pair(context, node, "`clip`")
    if sides is not None:
        same = sides[0] is sides[1]
        low = constant(context, sides[0], "the low side of `clip`", above=0, at_most=1, fix=_distances(context, sides))
        high = low if same else constant(context, sides[1], "the high side of `clip`", above=0)
    node = bound.get("dual")
    dual = None if node is None else constant(context, node, "`dual`", above=1)
    tis = _truncation(context, bound)
    node = bound.get("level")
    levels = [level.value for level in RatioLevel]
    level = RatioLevel.TOKEN.value if node is None else word(context, node, levels, "ratio level")
    anchor = _anchor(context, bound)
    if advantage is None or low is None or high is None or level is None or anchor is None:
        return None
    if len(context.diagnostics) > errors:
        return None
    return PolicyGradient(
        advantage=advantage,
        clip_low=low,
        clip_high=high,
        dual=dual,
        level=RatioLevel(level),
        anchor=anchor,
        tis=tis,
    )


def _truncation(context: Context, bound: Bound) -> float | None:
    node = bound.get("tis")
    truth = None if node is None else truth_of(node)
    if node is None or truth is None or spelled(node) in context.lets:
        return _optional(context, bound, "tis")
    context.error(
        LanguageRule.INVALID_VALUE,
        node.place,
        "`tis` is the cap of the importance weight, a number",
        fix="write tis=2, for example" if truth else "take it out: without `tis` there is no such weight",
    )
    return None


def _distances(context: Context, sides: tuple[Node, Node]) -> Callable[[float], str]:
    """What to write for a low side of `clip` that is no distance from 1."""

    def fix(low: float) -> str:
        in_percent = [_in_percent(context, side) for side in sides]
        if low <= 0 or None in in_percent:
            return "write clip=(0.2, 0.28), for example"
        if sides[0] is not sides[1]:
            both = ", ".join(str(side) for side in in_percent)
            return f"`clip` gives distances from 1: clip=({both}) in percent" if low > 2 else _EXAMPLE
        if low > 2:
            return f"write clip={in_percent[0]}, or its two sides as clip=(0.2, 0.28)"
        return f"`clip` gives distances from 1: clip={low - 1:.6g} keeps the ratio at most {low:g}"

    return fix


def _in_percent(context: Context, side: Node) -> str | None:
    """A side of `clip` as it is meant where percent are written without their sign; None where it means nothing."""
    literal = context.through_lets(side)
    if not isinstance(literal, Number):
        return written_as(side)
    if literal.unit is Unit.NONE and literal.value > 2:
        return f"{literal.value:g}%" if literal.value <= 100 else None
    return None if literal.unit is Unit.PERCENT and literal.value > 100 else written_as(side)


def _anchor(context: Context, bound: Bound) -> OldAnchor | MixAnchor | None:
    node = bound.get("anchor")
    match node:
        case None | Name(name="old"):
            return OldAnchor()
        case Call(function=Name(name="mix")):
            names = ("old", "teacher", "share")
            inner = bind(context, node, known=names, positional=names, required=names)
            old, teacher, share = (inner.get(name) for name in names)
            if old is not None:
                word(context, old, ("old",), "first part of mix")
            name = None if teacher is None else _teacher_name(context, teacher)
            value = None if share is None else constant(context, share, "the share of mix", above=0, below=1)
            return None if name is None or value is None else MixAnchor(name, value)
        case _:
            context.error(
                LanguageRule.INVALID_VALUE,
                node.place,
                "`anchor` is `old` or mix(old, TEACHER, share)",
                fix="write anchor=mix(old, teacher, 0.5)",
            )
            return None
