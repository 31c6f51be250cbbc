"""The metrics of every loss of a spec: what it trained in a step, and how much of the gradient it made.

A loss is named as `trace-dsl plan` names it: `key/fkl`, `rest/grpo`, with #2 from the second use on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from megatron_bridge.training.step_sums import LossSums
from trace_dsl.lowering import Lowered
from trace_dsl.model import Cispo, Kernel, PolicyGradient
from trace_dsl.plan import Plan
from trace_dsl.plan.measurements import loss_weights
from trace_dsl.plan.plan import loss_names
from trace_dsl.schedules import Progress

Metrics = dict[str, float | int | None]


def with_exposure(exposure: Mapping[str, float], plan: Plan, lowered: Lowered) -> dict[str, float]:
    """The sums over steps of weight x tokens by the name of the loss, with those of one more step."""
    names = loss_names(plan)
    found = dict(exposure)
    for one in lowered.losses:
        name = names[one.route, one.loss]
        found[name] = found.get(name, 0.0) + one.weight_sum
    return found


def route_metrics(
    plan: Plan, lowered: Lowered, sums: Sequence[LossSums], at: Progress, exposure: Mapping[str, float]
) -> Metrics:
    """`train/route/<loss>/...` of a step; `exposure` is the one after it. docs/metrics.md says what each means."""
    names, scheduled = loss_names(plan), loss_weights(plan, at)
    gradient = sum(one.gradient for one in sums)
    metrics: Metrics = {}
    for found, one in zip(lowered.losses, sums, strict=True):
        name = names[found.route, found.loss]
        mean_weight = found.weight_sum / found.tokens if found.tokens else None
        known = scheduled[found.route][found.loss]
        kernel = plan.routes[found.route].losses[found.loss].channel.kernel
        values: Metrics = {
            "loss": one.loss,
            "tokens": found.tokens,
            "weight": mean_weight if known is None else known,
            "denominator": found.tokens / found.inverse_denominator_sum if found.tokens else None,
            "clip_fraction": _clip_fraction(kernel, one.clipped, found.tokens),
            "grad_share": one.gradient / gradient if gradient else None,
            "exposure": exposure[name],
        }
        metrics |= {f"train/route/{name}/{what}": value for what, value in values.items()}
    return metrics


def _clip_fraction(kernel: Kernel, clipped: int, tokens: int) -> float | None:
    if not isinstance(kernel, PolicyGradient | Cispo) or not tokens:
        return None
    return clipped / tokens
