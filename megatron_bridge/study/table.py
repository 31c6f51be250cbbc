"""The results as a Markdown page: a table for each policy, and in words what can and cannot be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from megatron_bridge.study.results import MethodResult
from megatron_bridge.study.statistics import Comparison, Interval

_HEAD = ("method", "settings chosen", "seeds")
_TAIL = ("learning", "entropy", "tokens", "exposure", "concentration")


def tables(results: Sequence[MethodResult], found: dict[str, Any]) -> str:
    """One section a policy. `found`: results.json."""
    sections = []
    for policy in dict.fromkeys(result.policy for result in results):
        of_policy = [result for result in results if result.policy == policy]
        splits = list(of_policy[0].accuracy)
        base = next(one for one in found["methods"] if one["method"] == "base" and one["policy"] == policy)
        head = [*_HEAD, *splits, *(f"{split} − {found['baseline']}" for split in splits), *_TAIL]
        before = ", ".join(f"{split} {100 * base['accuracy'][split]['mean']:.1f}" for split in splits)
        rows = [_row(result, splits) for result in of_policy]
        sections.append(
            "\n".join(
                [
                    f"### {policy}",
                    "",
                    f"Before training: {before}.",
                    "",
                    _line(head),
                    _line(["---"] * len(head)),
                    *map(_line, rows),
                    "",
                    *_verdicts(of_policy, found["baseline"]),
                ]
            )
        )
    return "\n\n".join(sections) + "\n"


def _row(result: MethodResult, splits: Sequence[str]) -> list[str]:
    return [
        f"`{result.method}`",
        result.settings or "as in the spec",
        str(len(result.seeds)),
        *(_percent(result.accuracy[split]) for split in splits),
        *("" if result.versus is None else _difference(result.versus[split]) for split in splits),
        _percent(result.learning),
        _number(result.last("entropy")),
        _number(result.last("mean_tokens")),
        _number(result.last("exposure")),
        _number(result.concentration()),
    ]


def _verdicts(results: Sequence[MethodResult], baseline: str) -> list[str]:
    """For each split: which methods are above the baseline, below it, and which intervals hold zero."""
    lines = []
    for split in results[0].accuracy:
        by_verdict: dict[str, list[str]] = {"above": [], "below": [], "not told apart from": []}
        for result in results:
            if result.versus is not None:
                by_verdict[_verdict(result.versus[split])].append(f"`{result.method}`")
        told = "; ".join(f"{what} `{baseline}`: {', '.join(names) or 'none'}" for what, names in by_verdict.items())
        lines.append(f"- **{split}**, after the last step: {told}.")
    return lines


def _verdict(comparison: Comparison) -> str:
    if not comparison.told_apart:
        return "not told apart from"
    return "above" if comparison.difference.low > 0 else "below"


def _percent(interval: Interval) -> str:
    return f"{100 * interval.mean:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"


def _difference(comparison: Comparison) -> str:
    d = comparison.difference
    return f"{100 * d.mean:+.1f} [{100 * d.low:+.1f}, {100 * d.high:+.1f}], p {comparison.p:.3f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
