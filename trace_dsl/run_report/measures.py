"""Which charts a report has: from metrics and evaluations to curves over steps."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from trace_dsl.run_report.chart import Chart, Curve
from trace_dsl.run_report.read import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One chart of metrics. metrics: name in metrics.jsonl and in the chart; a comparison shows the first alone."""

    title: str
    unit: str
    metrics: tuple[tuple[str, str], ...]
    about: str = ""
    share: bool = False
    from_zero: bool = True
    level: float | None = None


TRAINING = (
    Measure(title="Reward", unit="mean over rollouts", metrics=(("reward", ""),)),
    Measure(title="Correct rollouts", unit="share of those with a verdict", metrics=(("accuracy", ""),), share=True),
    Measure(title="Loss", unit="the objective", metrics=(("loss", ""),)),
    Measure(title="Entropy of the policy", unit="nats a token", metrics=(("policy/entropy", ""),)),
    Measure(
        title="Response length",
        unit="tokens",
        metrics=(
            ("rollout/mean_tokens", "mean"),
            ("rollout/min_tokens", "shortest"),
            ("rollout/max_tokens", "longest"),
        ),
    ),
    Measure(title="Gradient norm", unit="before clipping", metrics=(("optim/grad_norm", ""),)),
    Measure(title="KL weight", unit="largest scheduled weight of a divergence", metrics=(("kl_weight", ""),)),
    Measure(
        title="Tokens with a loss",
        unit="share of response tokens",
        metrics=(("kl_fraction", "on a divergence"), ("routed_fraction", "on any loss")),
        share=True,
    ),
    Measure(
        title="Groups that teach nothing",
        unit="share with equal rewards",
        metrics=(("rollout/equal_reward_groups", ""),),
        share=True,
    ),
    Measure(
        title="Clipped tokens",
        unit="share of tokens with a policy gradient",
        metrics=(("policy/clip_fraction", ""),),
        share=True,
    ),
)
CREDIT = (
    Measure(
        title="Gradient inside and outside spans",
        unit="mean over tokens, at the logits",
        metrics=(("train/credit/inside", "inside spans"), ("train/credit/outside", "outside")),
    ),
    Measure(
        title="Concentration",
        unit="inside / outside; 1: a token's place makes no difference",
        metrics=(("train/credit/concentration", ""),),
        level=1.0,
    ),
)
SECONDS = (
    Measure(title="Waiting for rollouts", unit="seconds a step", metrics=(("perf/sample_seconds", ""),)),
    Measure(title="Training", unit="seconds a step", metrics=(("perf/train_seconds", ""),)),
    Measure(title="Throughput", unit="response tokens a second", metrics=(("perf/tokens_per_second", ""),)),
)
# Of each loss: the last part of the metric's name, the chart's title, units, whether it is a share.
OF_A_LOSS = (
    ("tokens", "Tokens with weight", "tokens a step", False),
    ("weight", "Weight", "w=, mean over its tokens", False),
    ("loss", "Loss", "part of the objective", False),
    ("grad_share", "Share of the gradient", "at the logits", True),
    ("clip_fraction", "Clipped", "share of its tokens", True),
    ("exposure", "Exposure so far", "weights summed over tokens and steps", False),
)
_OF_A_LOSS = re.compile(r"train/route/(.+)/([a-z_]+)")


def charts_of(measures: Sequence[Measure], runs: Sequence[Run], section: str) -> tuple[list[Chart], list[str]]:
    """The charts of those measures that some run wrote, and the titles of the others."""
    charts, absent = [], []
    for measure in measures:
        curves = tuple(_curves(measure, runs))
        if curves:
            charts.append(
                Chart(
                    identifier=f"{section}-{slug(measure.title)}",
                    title=measure.title,
                    unit=measure.unit if len(runs) == 1 or len(measure.metrics) == 1 else _unit_of_first(measure),
                    curves=curves,
                    share=measure.share,
                    from_zero=measure.from_zero,
                    about=_without(runs, curves),
                    marks=runs[0].changes if len(runs) == 1 else (),
                    level=measure.level,
                )
            )
        else:
            absent.append(measure.title)
    return charts, absent


def _unit_of_first(measure: Measure) -> str:
    return f"{measure.unit}, {measure.metrics[0][1]}"


def _curves(measure: Measure, runs: Sequence[Run]) -> Iterator[Curve]:
    if len(runs) == 1:
        for style, (metric, name) in enumerate(measure.metrics):
            yield from metric_curve(runs[0], metric, name if len(measure.metrics) > 1 else "", style)
        return
    for style, run in enumerate(runs):
        yield from metric_curve(run, measure.metrics[0][0], run.name, style)


def metric_curve(run: Run, metric: str, name: str, style: int) -> Iterator[Curve]:
    """The curve of a metric; none where no line of the run has a value of it."""
    found = ((int(line["step"] or 0), line[metric]) for line in run.metrics if metric in line)
    points = tuple((step, None if value is None else float(value)) for step, value in found)
    if any(value is not None for _, value in points):
        yield Curve(name=name, points=points, style=style)


def accuracy_charts(runs: Sequence[Run]) -> list[Chart]:
    """Accuracy on held-out problems: of one run all splits in one chart, of several a chart for each split."""
    splits = tuple(dict.fromkeys(split for run in runs for split in run.splits))
    if not splits:
        return []
    if len(runs) == 1:
        curves = tuple(_accuracy(runs[0], split, split if splits[1:] else "", n) for n, split in enumerate(splits))
        title = "Accuracy on held-out problems"
        return [
            Chart(
                identifier="accuracy", title=title, unit="share solved", curves=curves, share=True,
                marks=runs[0].changes,
            )
        ]  # fmt: skip
    found = []
    for split in splits:
        curves = tuple(_accuracy(run, split, run.name, n) for n, run in enumerate(runs) if split in run.splits)
        found.append(
            Chart(
                identifier=f"accuracy-{slug(split)}", title=f"Accuracy on {split}", unit="share solved", curves=curves,
                share=True, about=_without(runs, curves),
            )
        )  # fmt: skip
    return found


def _accuracy(run: Run, split: str, name: str, style: int) -> Curve:
    points = tuple((one.step, float(one.accuracy)) for one in run.evaluations if one.split == split)
    return Curve(name=name, points=points, style=style)


def losses_of(run: Run) -> tuple[str, ...]:
    """The losses that the metrics speak of, as `trace-dsl plan` names them."""
    found = (_OF_A_LOSS.fullmatch(name) for line in run.metrics for name in line)
    return tuple(dict.fromkeys(match[1] for match in found if match))


def route_charts(run: Run, section: str, whose: str) -> list[Chart]:
    """The charts of a run's losses."""
    losses = losses_of(run)
    charts = []
    for part, title, unit, share in OF_A_LOSS:
        curves = tuple(
            curve
            for style, loss in enumerate(losses)
            for curve in metric_curve(run, f"train/route/{loss}/{part}", loss, style)
        )
        if curves:
            charts.append(
                Chart(
                    identifier=f"{section}-{part.replace('_', '-')}", title=title, unit=unit, curves=curves,
                    share=share, marks=run.changes, whose=whose,
                )
            )  # fmt: skip
    return charts


def _without(runs: Sequence[Run], curves: Sequence[Curve]) -> str:
    """Which runs have nothing to show in a comparison."""
    shown = {curve.name for curve in curves}
    missing = [run.name for run in runs if run.name not in shown]
    return f"No values in {', '.join(missing)}." if len(runs) > 1 and missing else ""


def slug(text: str) -> str:
    """A name for files and links."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
