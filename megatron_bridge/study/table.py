"""The results as a Markdown page: a table for each policy, and in words what can and cannot be told apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from megatron_bridge.study.results import Against, MethodResult
from megatron_bridge.study.statistics import Comparison, Interval

_HEAD = ("method", "settings chosen", "seeds")
_TAIL = ("entropy", "tokens", "exposure", "concentration")


def tables(results: Sequence[MethodResult], compared: Sequence[Against], found: dict[str, Any]) -> str:
    """One section a policy. compared: further pairs; found: results.json."""
    sections = [f"# All numbers of the study {found['study']}\n\nWritten by `{found['command']}`."]
    for policy in dict.fromkeys(result.policy for result in results):
        of_policy = [result for result in results if result.policy == policy]
        splits = list(of_policy[0].accuracy)
        base = next(one for one in found["methods"] if one["method"] == "base" and one["policy"] == policy)
        before = ", ".join(f"{split} {100 * base['accuracy'][split]['mean']:.1f}" for split in splits)
        chosen = found["settings_from"][policy]
        taken = "" if chosen == policy else f" Settings are those that were chosen on `{chosen}`."
        pairs = [one for one in compared if one.policy == policy]
        sections.append(
            "\n".join(
                [
                    f"## {policy}",
                    "",
                    f"Before training: {before}.{taken}",
                    "",
                    *_table(
                        [*_HEAD, *splits, *(f"learning, {split}" for split in splits), *_TAIL],
                        [_row(result, splits) for result in of_policy],
                    ),
                    "",
                    *_to_baseline([r.versus for r in of_policy if r.versus is not None], splits, found["baseline"]),
                    *(_asked(pairs, splits) if pairs else ()),
                ]
            )
        )
    return "\n\n".join(sections) + "\n"


def _both(splits: Sequence[str]) -> list[str]:
    return [*splits, *(f"learning, {split}" for split in splits)]


def _row(result: MethodResult, splits: Sequence[str]) -> list[str]:
    return [
        f"`{result.method}`",
        result.settings or "as in the spec",
        str(len(result.seeds)),
        *(_percent(result.accuracy[split]) for split in splits),
        *(_percent(result.learning[split]) for split in splits),
        _number(result.last("entropy")),
        _number(result.last("mean_tokens")),
        _number(result.last("exposure")),
        _number(result.concentration()),
    ]


def _differences(against: Against) -> list[str]:
    return [_difference(one) for one in (*against.accuracy.values(), *against.learning.values())]


def _asked(pairs: Sequence[Against], splits: Sequence[str]) -> list[str]:
    rows = [[f"`{one.method}` − `{one.other}`", *_differences(one)] for one in pairs]
    return ["", "Other pairs:", "", *_table(["difference", *_both(splits)], rows)]


def _to_baseline(versus: Sequence[Against], splits: Sequence[str], baseline: str) -> list[str]:
    """The differences, and in words which are above the baseline, which below it, and whose intervals hold zero."""
    if not versus:
        return []
    rows = [[f"`{one.method}`", *_differences(one)] for one in versus]
    lines = [f"The difference to `{baseline}` on the same seeds and problems:", ""]
    lines += [*_table(["method", *_both(splits)], rows), ""]
    told = [(split, ", after the last step", [(one.method, one.accuracy[split]) for one in versus]) for split in splits]
    told += [(split, ", learning", [(one.method, one.learning[split]) for one in versus]) for split in splits]
    for split, what, methods in told:
        by_verdict: dict[str, list[str]] = {"above": [], "below": [], "not told apart from": []}
        for method, comparison in methods:
            by_verdict[_verdict(comparison)].append(f"`{method}`")
        text = "; ".join(
            f"{verdict} `{baseline}`: {', '.join(names) or 'none'}" for verdict, names in by_verdict.items()
        )
        lines.append(f"- **{split}**{what}: {text}.")
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


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [_line(head), _line(["---"] * len(head)), *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
