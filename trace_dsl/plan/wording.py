"""Parts of a spec as a person would write them: routes, kernels argument by argument, teachers, estimators."""

from __future__ import annotations

from typing import assert_never

from trace_dsl.expressions import number_text, text_of
from trace_dsl.model import (
    K3,
    PLAIN_ROWS,
    AdvantageEstimator,
    Channel,
    Cispo,
    Divergence,
    Ema,
    EntropyBonus,
    EstimatorKind,
    Frozen,
    Kernel,
    MixAnchor,
    ModelTeacher,
    Nll,
    OldAnchor,
    Per,
    PolicyGradient,
    RolloutSource,
    Route,
    Sees,
    SelfTeacher,
    SpanLabel,
    Sync,
    Teacher,
    TopK,
)
from trace_dsl.reference import LOSS_ARGUMENTS
from trace_dsl.terms import Signal
from trace_dsl.vocabulary import PARAMETER_NAMES

NOT_GIVEN = "none"


def route_name(route: Route) -> str:
    """Selector and predicate: `key | error when correct`."""
    parts = [] if route.rows == PLAIN_ROWS else [f"rows == {route.rows}"]
    parts += [] if route.when is None else [text_of(route.when)]
    return " | ".join(route.labels) + (f" when {' and '.join(parts)}" if parts else "")


def predicate_text(route: Route) -> str:
    """The predicate of a route; "always" without one."""
    return "always" if route.when is None else text_of(route.when)


def losses_text(route: Route) -> str:
    """The losses of a route on one line."""
    return " + ".join(loss_text(channel) for channel in route.channels) or NOT_GIVEN


def loss_text(channel: Channel) -> str:
    """A loss as it can be written, without what it has by default."""
    arguments = {
        "w": text_of(channel.weight),
        **kernel_arguments(channel.kernel),
        "per": per_text(channel.per),
    }
    shown = [
        f"{name}={value}" for name, value in arguments.items() if value not in (NOT_GIVEN, LOSS_ARGUMENTS[name].default)
    ]
    return f"{kernel_name(channel.kernel)}({', '.join(shown)})"


def per_text(per: Per) -> str:
    """A denominator as it is written."""
    return per.kind.value if per.constant is None else f"{per.kind.value}({number_text(per.constant)})"


def kernel_name(kernel: Kernel) -> str:
    """The name a loss is called by; `pg` of A is `grpo`."""
    match kernel:
        case Divergence(kind=kind):
            return kind.value
        case PolicyGradient(advantage=advantage):
            return "grpo" if isinstance(advantage, Signal) and advantage.name == "A" else "pg"
        case Cispo():
            return "cispo"
        case Nll():
            return "nll"
        case EntropyBonus():
            return "entropy"
        case K3():
            return "k3"
        case _:
            assert_never(kernel)


def kernel_arguments(kernel: Kernel) -> dict[str, str]:
    """What a kernel is given, by argument, beside weight and denominator; "none" for what is not given."""
    match kernel:
        case Divergence():
            top_k = kernel.top_k
            parameter = PARAMETER_NAMES.get(kernel.kind)
            return {
                **({} if parameter is None else {parameter: _number(kernel.parameter)}),
                "teacher": kernel.teacher,
                "topk": NOT_GIVEN if top_k is None else str(top_k.k),
                "of": (TopK(k=1) if top_k is None else top_k).of.value,
                "tail": NOT_GIVEN if top_k is None or top_k.tail is None else top_k.tail.value,
                "temperature": _number(kernel.temperature),
                "pclip": _number(kernel.pclip),
            }
        case PolicyGradient():
            return {
                "adv": text_of(kernel.advantage),
                "clip": f"({number_text(kernel.clip_low)}, {number_text(kernel.clip_high)})",
                "dual": _number(kernel.dual),
                "level": kernel.level.value,
                "anchor": _anchor(kernel.anchor),
                "tis": _number(kernel.tis),
            }
        case Cispo():
            return {"adv": text_of(kernel.advantage), "high": number_text(kernel.high)}
        case K3():
            return {"to": kernel.to}
        case Nll() | EntropyBonus():
            return {}
        case _:
            assert_never(kernel)


def _number(value: float | None) -> str:
    return NOT_GIVEN if value is None else number_text(value)


def _anchor(anchor: OldAnchor | MixAnchor) -> str:
    match anchor:
        case OldAnchor():
            return "old"
        case MixAnchor(teacher=teacher, share=share):
            return f"mix(old, {teacher}, {number_text(share)})"
        case _:
            assert_never(anchor)


def teacher_text(teacher: Teacher) -> str:
    """The right side of a teacher statement."""
    match teacher.source:
        case SelfTeacher(update=Sync(every)):
            return f"self(sync={every}, sees={teacher.sees.value})"
        case SelfTeacher(update=Ema(rate)):
            return f"self(ema={number_text(rate)}, sees={teacher.sees.value})"
        case SelfTeacher(update=Frozen()):
            return f"self(frozen, sees={teacher.sees.value})"
        case ModelTeacher(path):
            return f'model("{path}", sees={teacher.sees.value})'
        case _:
            raise AssertionError(f"a teacher has a source {teacher.source} without words")


def estimator_text(estimator: AdvantageEstimator) -> str:
    """The right side of an advantage statement."""
    match estimator.kind:
        case EstimatorKind.GROUP:
            return f"group(scale={'std' if estimator.scale_by_std else 'none'})"
        case EstimatorKind.LEAVE_ONE_OUT | EstimatorKind.NONE:
            return str(estimator.kind.value)
        case _:
            assert_never(estimator.kind)


def rollouts_text(source: RolloutSource) -> str:
    """The right side of a rollouts statement."""
    if source.cached is not None:
        return f'cached("{source.cached}")'
    parts = [] if source.sees is Sees.NOTHING else [f"sees={source.sees.value}"]
    parts += [] if source.when is None else [f"when={text_of(source.when)}"]
    return f"policy({', '.join([*parts, f'n={source.n}'])})"


def cap_text(label: SpanLabel) -> str:
    """The cap of a label."""
    return "no cap" if label.cap is None else f"cap={label.cap * 100:g}%"
