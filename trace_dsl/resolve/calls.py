"""Calls that are values: functions, reductions with a scope, scans, has(x), gap(teacher), schedule(...)."""

from __future__ import annotations

from trace_dsl.expressions import apply_function
from trace_dsl.model import DEFAULT_TEACHER
from trace_dsl.resolve.arguments import Bound, bind
from trace_dsl.resolve.elsewhere import for_function
from trace_dsl.resolve.expressions import number, predicate, signal
from trace_dsl.resolve.findings import Context, Typed
from trace_dsl.resolve.literals import constant, count, percent, schedule_from, word
from trace_dsl.rules import LanguageRule
from trace_dsl.syntax.tree import Call, Name
from trace_dsl.terms import Apply, Constant, Expr, Function, Rank, Reduce, Reduction, Scan, Scanned, Scheduled, Scope
from trace_dsl.vocabulary import (
    FUNCTION_ARITY,
    FUNCTIONS,
    HAS,
    LOSSES,
    RANK_WORDS,
    SCHEDULE_ARGUMENTS,
    SCOPE_RANK,
    SIGNALS,
    ValueKind,
    did_you_mean,
)

_FUNCTIONS = {function.value: function for function in Function}
_REDUCTIONS = {reduction.value: reduction for reduction in Reduction}
_SCANS = {scan.value: scan for scan in Scan}
_USAGE = {
    Function.CLIP: "clip(x, low, high)",
    Function.MIN: "min(a, b); the least of a scope is -max(-x, over=row)",
    Function.MAX: "max(a, b), or max(x, over=row)",
    Function.WHERE: "where(p, a, b)",
}


def resolve_call(context: Context, call: Call) -> Typed | None:
    """The value of a call; None, with an error recorded, when it has none."""
    name = call.function.name
    has_scope = any(argument.name is not None and argument.name.name == "over" for argument in call.arguments)
    if name in _REDUCTIONS and (has_scope or name not in _FUNCTIONS):
        return _reduction(context, call, _REDUCTIONS[name])
    if name in _FUNCTIONS:
        return _function(context, call, _FUNCTIONS[name])
    if name in _SCANS:
        return _scan(context, call, _SCANS[name])
    if name == "schedule":
        return _schedule(context, call)
    if name == "has":
        return _has(context, call)
    info = SIGNALS.get(name)
    if info is not None and info.of_teacher:
        bound = bind(context, call, known=("teacher",), positional=("teacher",), required=("teacher",))
        node = bound.get("teacher")
        if not isinstance(node, Name):
            teachers = [teacher for teacher in context.teachers if teacher != DEFAULT_TEACHER]
            fix = f"write {name}({teachers[0]})" if teachers else f"write `{name}` alone for the only teacher"
            return _refuse(context, call, f"`{name}` takes the name of a teacher, as in {name}(big)", fix)
        teacher = context.teacher_named(node.name, node.place)
        return None if teacher is None else signal(context, info, call.place, teacher)
    if info is not None or name in context.lets:
        return _refuse(context, call, f"`{name}` is a value and takes no arguments", f"write `{name}` alone")
    if name in LOSSES:
        return _refuse(
            context,
            call,
            f"`{name}` is a loss: losses stand after the `:` of a route",
            "add it to the losses of a route with `+`, or write a signal such as gap or entropy here",
        )
    context.error(
        LanguageRule.UNKNOWN_NAME,
        call.function.place,
        f"there is no function `{name}`",
        fix=for_function(name) or did_you_mean(name, FUNCTIONS),
    )
    return None


def _refuse(context: Context, call: Call, message: str, fix: str) -> Typed | None:
    """Record that a call is no value, and give none."""
    context.error(LanguageRule.WRONG_RANK, call.place, message, fix=fix)
    return None


def _function(context: Context, call: Call, function: Function) -> Typed | None:
    low, high = FUNCTION_ARITY[function]
    given = len(call.arguments)
    if given < low or (high is not None and given > high) or any(a.name for a in call.arguments):
        wanted = f"{low}" if high == low else f"{low} or more"
        hint = " or `over=` with a scope" if function is Function.MAX and given == 1 else ""
        rule = LanguageRule.MISSING_ARGUMENT if given < low else LanguageRule.UNKNOWN_ARGUMENT
        context.error(
            rule,
            call.place,
            f"`{function.value}` takes {wanted} unnamed argument{'s' if wanted != '1' else ''}{hint}",
            fix=f"write {_USAGE.get(function, f'{function.value}(x)')}",
        )
        return None
    nodes = [argument.value for argument in call.arguments]
    args: list[Expr | None] = []
    if function is Function.WHERE:
        args.append(predicate(context, nodes.pop(0), "the first argument of `where`"))
    args.extend(number(context, node, f"an argument of `{function.value}`") for node in nodes)
    known = tuple(arg for arg in args if arg is not None)
    if len(known) < len(args):
        return None
    values = tuple(arg.value for arg in known if isinstance(arg, Constant))
    if len(values) == len(known):
        try:
            value = apply_function(function, values)
        except ValueError as error:
            context.error(
                LanguageRule.INVALID_VALUE, call.place, str(error), fix="give it a value for which it has one"
            )
            return None
        return Typed(expr=Constant(value=value), kind=ValueKind.NUMBER)
    rank = max(arg.rank for arg in known)
    return Typed(expr=Apply(function=function, args=known, rank=rank), kind=ValueKind.NUMBER)


# ----------------------------------------------------------------------------------------------------------- reductions


def _reduction(context: Context, call: Call, reduction: Reduction) -> Typed | None:
    names: tuple[str, ...] = ("x",)
    if reduction is Reduction.RANDOM:
        names = ("share",)
    elif reduction in (Reduction.QUANTILE, Reduction.TOP):
        names = ("x", "share")
    bound = bind(context, call, known=(*names, "over"), positional=names, required=(*names, "over"))
    over = bound.get("over")
    scope_word = None if over is None else word(context, over, [s.value for s in Scope], "scope")
    amount: float | None = None
    complete = scope_word is not None
    if "share" in names:
        node = bound.get("share")
        what = f"the share of `{reduction.value}`"
        if node is not None and reduction is Reduction.QUANTILE:
            amount = constant(context, node, what, at_least=0, at_most=1, fix=percent)
        elif node is not None:
            amount = constant(context, node, what, above=0, at_most=1, fix=percent)
        complete = complete and amount is not None
    value: Expr | None = None
    if "x" in names:
        node = bound.get("x")
        value = None if node is None else number(context, node, f"what `{reduction.value}` reads")
        complete = complete and value is not None
    if not complete or scope_word is None:
        return None
    return _reduced(context, bound, reduction, value, Scope(scope_word), amount)


def _reduced(
    context: Context, bound: Bound, reduction: Reduction, value: Expr | None, over: Scope, amount: float | None
) -> Typed | None:
    rank = Rank.TOKEN if value is None else value.rank
    if rank <= SCOPE_RANK[over]:
        context.error(
            LanguageRule.WRONG_RANK,
            bound.place,
            f"`{reduction.value}` over a {over.value} has nothing to run over: its value is {RANK_WORDS[rank]}",
            fix="take the value itself, or a wider scope",
        )
        return None
    per_element = reduction in (Reduction.SOFTMAX, Reduction.TOP, Reduction.RANDOM)
    is_predicate = reduction in (Reduction.TOP, Reduction.RANDOM)
    expr = Reduce(
        reduction=reduction,
        value=value,
        over=over,
        rank=rank if per_element else SCOPE_RANK[over],
        amount=amount,
    )
    return Typed(expr=expr, kind=ValueKind.PREDICATE if is_predicate else ValueKind.NUMBER)


# ---------------------------------------------------------------------------------------------------------------- scans


# What a scan reads, with what else it takes.
_OF_A_TOKEN = {
    Scan.CUMCOUNT: "gap < 0",
    Scan.UNTIL: "gap < 0",
    Scan.WINDOW_MIN: "gap, 8",
    Scan.WINDOW_MEAN: "gap, 8",
    Scan.REWARD_TO_GO: "gap, 0.9",
}


def _scan(context: Context, call: Call, scan: Scan) -> Typed | None:
    if scan is Scan.LATCH:
        return _latch(context, call)
    takes_predicate = scan in (Scan.CUMCOUNT, Scan.UNTIL)
    first = "p" if takes_predicate else "x"
    second: tuple[str, ...] = ()
    if scan in (Scan.WINDOW_MIN, Scan.WINDOW_MEAN):
        second = ("n",)
    elif scan is Scan.REWARD_TO_GO:
        second = ("gamma",)
    names = (first, *second)
    bound = bind(context, call, known=names, positional=names, required=names)
    node = bound.get(first)
    what = f"what `{scan.value}` reads"
    read = predicate if takes_predicate else number
    value = None if node is None else read(context, node, what)
    amount: float | None = None
    node = bound.get(second[0]) if second else None
    if node is not None:
        if scan is Scan.REWARD_TO_GO:
            amount = constant(context, node, "`gamma`", at_least=0, at_most=1)
        else:
            window = count(context, node, "the window")
            amount = None if window is None else float(window)
    if value is None or (second and amount is None):
        return None
    if value.rank < Rank.TOKEN:
        return _refuse(
            context,
            call,
            f"`{scan.value}` runs along a response, but what it reads is {RANK_WORDS[value.rank]}",
            f"read what has one value a token, as in {scan.value}({_OF_A_TOKEN[scan]})",
        )
    kind = ValueKind.PREDICATE if scan is Scan.UNTIL else ValueKind.NUMBER
    return Typed(expr=Scanned(scan=scan, args=(value,), rank=Rank.TOKEN, amount=amount), kind=kind)


def _latch(context: Context, call: Call) -> Typed | None:
    names = ("on", "off")
    bound = bind(context, call, known=names, positional=names, required=names)
    nodes = [bound.get(name) for name in names]
    values = [None if node is None else predicate(context, node, "what `latch` reads") for node in nodes]
    on, off = values
    if on is None or off is None:
        return None
    if max(on.rank, off.rank) > Rank.STEP:
        return _refuse(
            context,
            call,
            "`latch` keeps one state across steps, so it reads what has one value a step, such as a mean over=batch",
            "compare one value a step, as in mean(reward, over=batch) > 0.5",
        )
    return Typed(expr=Scanned(scan=Scan.LATCH, args=(on, off), rank=Rank.STEP), kind=ValueKind.PREDICATE)


# ------------------------------------------------------------------------------------------------- schedules and has(x)


def _schedule(context: Context, call: Call) -> Typed | None:
    bound = bind(context, call, known=("w", *SCHEDULE_ARGUMENTS), positional=("w",), required=("w",))
    node = bound.get("w")
    weight = None if node is None else constant(context, node, "the weight of a schedule")
    schedule = schedule_from(context, bound, weight, call.place)
    if schedule is None:
        return None
    return Typed(expr=Scheduled(schedule=schedule), kind=ValueKind.NUMBER)


def _has(context: Context, call: Call) -> Typed | None:
    bound = bind(context, call, known=("what",), positional=("what",), required=("what",))
    node = bound.get("what")
    name = None if node is None else word(context, node, HAS, "context that `has` knows")
    return None if name is None else signal(context, HAS[name], call.place)
