"""Statements that declare something: spans, teachers, the advantage, rollout sources."""

from __future__ import annotations

from typing import assert_never

from trace_dsl.model import (
    DEFAULT_TEACHER,
    AdvantageEstimator,
    Ema,
    EstimatorKind,
    Frozen,
    ModelTeacher,
    RolloutSource,
    Sees,
    SelfTeacher,
    SpanLabel,
    Sync,
    Teacher,
)
from trace_dsl.resolve.arguments import Bound, bind, function_of
from trace_dsl.resolve.elsewhere import for_estimator, truth_of
from trace_dsl.resolve.expressions import predicate
from trace_dsl.resolve.findings import Context
from trace_dsl.resolve.literals import constant, count, share, text, word
from trace_dsl.rules import LanguageRule
from trace_dsl.syntax.tree import (
    AdvantageStatement,
    Argument,
    Call,
    Callable,
    Name,
    Number,
    RolloutsStatement,
    SpansStatement,
    TeacherStatement,
    Unit,
)
from trace_dsl.terms import Expr, Rank
from trace_dsl.vocabulary import (
    ARGUMENT_WORDS,
    ESTIMATORS,
    RANK_WORDS,
    ROLLOUT_ARGUMENTS,
    SEES,
    TEACHER_ARGUMENTS,
    Suggestion,
    did_you_mean,
)

_WAYS = ("sync", "ema", "frozen")
_EMA = "write a small share, such as ema=0.01; `frozen` keeps the first weights, sync=1 copies the student's"


def span_labels(context: Context, statement: SpansStatement) -> tuple[SpanLabel, ...]:
    """The labels of a `spans` statement; a label whose cap is wrong stays, without a cap."""
    labels = []
    for item in statement.labels:
        name = function_of(item)
        bound = bind(context, item, known=("cap",))
        node = bound.get("cap")
        cap = None if node is None else share(context, node, f"the cap of `{name.name}`")
        literal = None if node is None else context.through_lets(node)
        percent = isinstance(literal, Number) and literal.unit is Unit.PERCENT
        labels.append(SpanLabel(name=name.name, cap=cap, place=item.place, cap_in_percent=percent))
    return tuple(labels)


def teacher(context: Context, statement: TeacherStatement) -> Teacher | None:
    """A teacher: this model in another state, or another model."""
    name = DEFAULT_TEACHER if statement.name is None else statement.name.name
    kind = _kind(context, statement.value, tuple(TEACHER_ARGUMENTS), "teacher")
    if kind is None:
        return None
    errors = len(context.diagnostics)
    source: SelfTeacher | ModelTeacher | None
    if kind == "model":
        bound = bind(
            context,
            statement.value,
            known=TEACHER_ARGUMENTS["model"],
            positional=("path",),
            required=("path",),
        )
        node = bound.get("path")
        path = None if node is None else text(context, node, "the model of a teacher")
        source = None if path is None else ModelTeacher(path)
    else:
        value = _with_frozen_named(context, statement.value)
        bound = bind(context, value, known=TEACHER_ARGUMENTS["self"])
        # Where an argument is misspelt, it is probably the one that says how the teacher follows.
        misspelt = len(context.diagnostics) > errors and not any(way in bound for way in _WAYS)
        source = None if misspelt else _self_teacher(context, bound)
    sees = _sees(context, bound)
    if source is None or sees is None or len(context.diagnostics) > errors:
        return None
    return Teacher(name=name, source=source, sees=sees, place=statement.place, written=bound.names)


# What elsewhere is the policy, and the policy as it was at the start of the run.
_STUDENT = frozenset({"student", "policy", "actor", "assistant", "this"})
_START = frozenset({"ref", "reference", "ref_model", "ref_policy", "base", "sft"})


def _kind(context: Context, value: Callable, known: tuple[str, ...], what: str) -> str | None:
    function = function_of(value)
    if function.name in known:
        return function.name
    context.error(
        LanguageRule.UNKNOWN_NAME,
        function.place,
        f"`{function.name}` is no {what}; allowed: {', '.join(known)}",
        fix=_kind_meant(value, known),
    )
    return None


def _kind_meant(value: Callable, known: tuple[str, ...]) -> str | Suggestion:
    name = function_of(value).name
    if "self" in known and name in _START:
        return "write self(frozen), the policy at its start"
    if "self" in known and name in _STUDENT:
        return "write self(sync=10), for example: the model that is trained, as it was some steps ago"
    said = for_estimator(name) if "group" in known else None
    if said is not None:
        return said
    meant = did_you_mean(name, known)
    if isinstance(value, Call) or meant.near is None or meant.near in ESTIMATORS:
        return meant
    return f"did you mean `{meant.near}(...)`?"


def _with_frozen_named(context: Context, value: Callable) -> Callable:
    """`self(frozen)` as `self(frozen=frozen)`, so that it binds like the other ways to update.

    `frozen=VALUE` is an error and binds like `frozen`, or not at all beside another way, so that it is the only one.
    """
    if isinstance(value, Name):
        return value
    other = next((a.name.name for a in value.arguments if a.name is not None and a.name.name in _WAYS[:2]), None)
    arguments = []
    for argument in value.arguments:
        bare = argument.name is None and isinstance(argument.value, Name) and argument.value.name == "frozen"
        word_of = argument.value if bare else argument.name
        if not isinstance(word_of, Name) or word_of.name != "frozen":
            arguments.append(argument)
            continue
        if not bare:
            thaws = truth_of(argument.value) is False
            way = "write how it follows: sync=10 or ema=0.01" if thaws else "write `frozen` without a value"
            context.error(
                LanguageRule.INVALID_VALUE,
                argument.place,
                "`frozen` stands alone and takes no value",
                fix=way if other is None else f"take it out: `{other}` says how it follows",
            )
            if other is not None:
                continue
        arguments.append(Argument(name=word_of, value=word_of, place=argument.place))
    return Call(function=value.function, arguments=tuple(arguments), place=value.place)


def _self_teacher(context: Context, bound: Bound) -> SelfTeacher | None:
    ways = [name for name in _WAYS if name in bound]
    if len(ways) != 1:
        rule = LanguageRule.INVALID_VALUE if ways else LanguageRule.MISSING_ARGUMENT
        found = f"{' and '.join(ways)} are both given" if ways else "none is given"
        context.error(
            rule,
            bound.place,
            f"a self teacher follows the student in one way: sync=N, ema=RATE or frozen; {found}",
            fix="write self(sync=10, ...), for example",
        )
        return None
    node = bound.get(ways[0])
    assert node is not None
    match ways[0]:
        case "sync":
            every = count(context, node, "`sync`, in steps,", fix="write `frozen` to keep the first weights, or sync=1")
            return None if every is None else SelfTeacher(Sync(every))
        case "ema":
            rate = constant(context, node, "`ema`", above=0, at_most=1, fix=_EMA)
            return None if rate is None else SelfTeacher(Ema(rate))
        case _:
            return SelfTeacher(Frozen())


def _sees(context: Context, bound: Bound) -> Sees | None:
    node = bound.get("sees")
    if node is None:
        return Sees.NOTHING
    seen = word(context, node, SEES, "thing a teacher can see", argument="sees")
    return None if seen is None else Sees(seen)


def advantage(context: Context, statement: AdvantageStatement) -> AdvantageEstimator | None:
    """How A comes from rewards."""
    kind_word = _kind(context, statement.value, tuple(ESTIMATORS), "advantage estimator")
    if kind_word is None:
        return None
    errors = len(context.diagnostics)
    bound = bind(context, statement.value, known=ESTIMATORS[kind_word])
    node = bound.get("center")
    if node is not None:
        word(context, node, ARGUMENT_WORDS["center"], "center of a group")
    node = bound.get("scale")
    scale = "std" if node is None else word(context, node, ARGUMENT_WORDS["scale"], "scale of a group")
    if len(context.diagnostics) > errors:
        return None
    kind = EstimatorKind(kind_word)
    match kind:
        case EstimatorKind.GROUP:
            by_std = scale == "std"
        case EstimatorKind.LEAVE_ONE_OUT | EstimatorKind.NONE:
            by_std = False
        case _:
            assert_never(kind)
    return AdvantageEstimator(kind=kind, scale_by_std=by_std, place=statement.place, written=bound.names)


def rollout_source(context: Context, statement: RolloutsStatement) -> RolloutSource | None:
    """Extra rollouts: sampled under a privileged prompt, or read from a file."""
    kind = _kind(context, statement.value, tuple(ROLLOUT_ARGUMENTS), "source of rollouts")
    if kind is None:
        return None
    errors = len(context.diagnostics)
    name = statement.name.name
    if kind == "cached":
        bound = bind(
            context,
            statement.value,
            known=ROLLOUT_ARGUMENTS["cached"],
            positional=("file",),
            required=("file",),
        )
        node = bound.get("file")
        file = None if node is None else text(context, node, "the file of cached rollouts")
        if file is None:
            return None
        return RolloutSource(name=name, cached=file, place=statement.place, written=bound.names)
    bound = bind(context, statement.value, known=ROLLOUT_ARGUMENTS["policy"])
    sees = _sees(context, bound)
    node = bound.get("n")
    n = 1 if node is None else count(context, node, "`n`")
    when = _when_to_roll(context, bound)
    if sees is None or n is None or len(context.diagnostics) > errors:
        return None
    return RolloutSource(name=name, sees=sees, when=when, n=n, place=statement.place, written=bound.names)


def _when_to_roll(context: Context, bound: Bound) -> Expr | None:
    node = bound.get("when")
    if node is None:
        return None
    when = predicate(context, node, "`when`")
    if when is not None and when.rank > Rank.GROUP:
        context.error(
            LanguageRule.WRONG_RANK,
            node.place,
            f"extra rollouts are asked for prompt by prompt, but this is {RANK_WORDS[when.rank]}",
            fix="use all_wrong, all_correct or mixed, or a mean over=group",
        )
    return when
