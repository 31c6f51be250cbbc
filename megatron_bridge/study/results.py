"""What a study found, as plain data: every method on every policy with intervals, and against the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from megatron_bridge.study.cells import pairs, report_cells
from megatron_bridge.study.choose import chosen_point, searched, settings_text
from megatron_bridge.study.records import Record, read_record, record_path, records_of
from megatron_bridge.study.settings import Study
from megatron_bridge.study.statistics import Comparison, Interval, Solved, accuracy_interval, compare
from trace_dsl.errors import RunFileError

BASE = "base"  # the policy before training, in tables


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """A method compared with another on a policy, by split. accuracy: after the last step; learning: as below."""

    policy: str
    method: str
    other: str
    accuracy: Mapping[str, Comparison]
    learning: Mapping[str, Comparison]


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodResult:
    """A method on a policy, over its seeds, in their order. accuracy: by split, after the last step; learning: by
    split, the mean accuracy over all evaluations after the first; curve: by split, (step, interval) of each
    evaluation; versus: against the baseline, None for the baseline itself.
    """

    policy: str
    method: str
    settings: str
    records: tuple[Record, ...]
    accuracy: Mapping[str, Interval]
    learning: Mapping[str, Interval]
    curve: Mapping[str, tuple[tuple[int, Interval], ...]]
    versus: Against | None

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(record.seed for record in self.records)

    def accuracy_by_seed(self, split: str) -> tuple[float, ...]:
        return tuple(record.at(split, max(record.steps(split))).accuracy for record in self.records)

    def last(self, name: str) -> float | None:
        """The mean over seeds of a series after the last step."""
        return _mean([record.series[name][-1] for record in self.records])

    def concentration(self) -> float | None:
        """Mean gradient inside spans over the mean outside, over the steps in which some token was distilled (over all
        steps, where none was), and over seeds.
        """
        return _mean([_concentration(record) for record in self.records])


def method_results(study: Study) -> list[MethodResult]:
    """Of all whose reported runs are all there. Raises RunFileError where there are none."""
    found = []
    for policy, method in pairs(study):
        records = _reported(study, policy, method)
        if records is None:
            continue
        splits = _splits(records)
        found.append(
            MethodResult(
                policy=policy,
                method=method,
                settings=settings_text(chosen_point(study, policy, method)),
                records=records,
                accuracy={split: accuracy_interval(_solved(records, split)) for split in splits},
                learning={split: accuracy_interval(_learned(records, split)) for split in splits},
                curve={
                    split: tuple(
                        (step, accuracy_interval(_solved(records, split, step))) for step in records[0].steps(split)
                    )
                    for split in splits
                },
                versus=None if method == study.file.baseline else _against(study, policy, method, study.file.baseline),
            )
        )
    if not found:
        raise RunFileError(f"{study.path}: no method has all its reported runs yet; go on with `trace-dsl study`")
    return found


def comparisons(study: Study) -> list[Against]:
    """Those that the study file asks for, where all runs of both methods are there."""
    found = [
        _against(study, policy, method, other)
        for policy in study.file.policies
        for method, other in study.file.compare
        if {method, other} <= set(study.methods_on(policy))
    ]
    return [against for against in found if against is not None]


def results_json(study: Study, results: Sequence[MethodResult], command: str) -> dict[str, Any]:
    """results.json. Accuracies are shares; intervals are of 95%."""
    records = records_of(study)
    return {
        "study": study.file.name,
        "command": command,
        "baseline": study.file.baseline,
        "runs": len(records),
        "seconds_of_steps": round(sum(record.seconds for record in records)),
        "versions": records[0].versions,
        "settings_from": {policy: study.searched_on(policy) for policy in dict.fromkeys(r.policy for r in results)},
        "methods": [*_bases(results), *map(_method_json, results)],
        "comparisons": [
            {"policy": one.policy, "method": one.method, "other": one.other, **_against_json(one)}
            for one in comparisons(study)
        ],
        "search": [
            {
                "policy": policy,
                "method": method,
                "seeds": study.file.search_seeds,
                "tried": [
                    {"settings": dict(point), "learning": value}
                    for point, value in searched(study, policy, method).items()
                ],
            }
            for policy, method in dict.fromkeys((study.searched_on(r.policy), r.method) for r in results)
        ],
    }


def _bases(results: Sequence[MethodResult]) -> list[dict[str, Any]]:
    """Each policy before training, as the first method's runs on it began."""
    first = {result.policy: result for result in reversed(results)}
    return [
        {
            "method": BASE,
            "policy": policy,
            "problems": result.records[0].evaluations[0].problems,
            "accuracy": {
                split: asdict(accuracy_interval(_solved(result.records, split, step=0))) for split in result.accuracy
            },
            "accuracy_by_seed": [record.evaluations[0].accuracy for record in result.records],
        }
        for policy, result in first.items()
    ]


def _method_json(result: MethodResult) -> dict[str, Any]:
    main = next(iter(result.accuracy))
    return {
        "method": result.method,
        "policy": result.policy,
        "settings": result.records[0].point,
        "seeds": list(result.seeds),
        "accuracy_by_seed": list(result.accuracy_by_seed(main)),
        "accuracy_by_seed_of": {split: list(result.accuracy_by_seed(split)) for split in result.accuracy},
        "accuracy": {split: asdict(interval) for split, interval in result.accuracy.items()},
        "learning": {split: asdict(interval) for split, interval in result.learning.items()},
        "curve": {
            split: [{"step": step, **asdict(interval)} for step, interval in points]
            for split, points in result.curve.items()
        },
        "entropy": result.last("entropy"),
        "mean_tokens": result.last("mean_tokens"),
        "exposure": result.last("exposure"),
        "credit_concentration": result.concentration(),
        "versus_baseline": None if result.versus is None else _against_json(result.versus),
    }


def _against_json(against: Against) -> dict[str, Any]:
    return {
        name: {
            split: {**asdict(one.difference), "p": one.p, "least_p": one.least_p, "told_apart": one.told_apart}
            for split, one in by_split.items()
        }
        for name, by_split in (("accuracy", against.accuracy), ("learning", against.learning))
    }


def _against(study: Study, policy: str, method: str, other: str) -> Against | None:
    """None where a run of one of them is missing."""
    one, two = _reported(study, policy, method), _reported(study, policy, other)
    if one is None or two is None:
        return None
    return Against(
        policy=policy,
        method=method,
        other=other,
        accuracy={split: compare(_solved(one, split), _solved(two, split)) for split in _splits(one)},
        learning={split: compare(_learned(one, split), _learned(two, split)) for split in _splits(one)},
    )


def _reported(study: Study, policy: str, method: str) -> tuple[Record, ...] | None:
    """The records of a method's reported runs; None where one of them, or of its search, is missing."""
    try:
        point = chosen_point(study, policy, method)
    except RunFileError:
        return None
    paths = [record_path(study, cell) for cell in report_cells(study, policy, method, point)]
    return tuple(map(read_record, paths)) if all(path.exists() for path in paths) else None


def _splits(records: Sequence[Record]) -> tuple[str, ...]:
    """In the order of their evaluation: the main one first."""
    return tuple(dict.fromkeys(one.split for one in records[0].evaluations))


def _learned(records: Sequence[Record], split: str) -> Solved:
    """At what share of the evaluations after the first each problem was solved."""
    after = [step for step in records[0].steps(split) if step > 0]
    learned: NDArray[np.float64] = np.mean([_solved(records, split, step) for step in after], axis=0)
    return learned


def _solved(records: Sequence[Record], split: str, step: int | None = None) -> Solved:
    return np.array(
        [record.at(split, max(record.steps(split)) if step is None else step).outcomes for record in records]
    )


def _concentration(record: Record) -> float | None:
    inside, outside = record.series["credit_inside"], record.series["credit_outside"]
    taught = [n for n, share in enumerate(record.series["kl_fraction"]) if share] or list(range(len(inside)))
    means = _mean([inside[n] for n in taught]), _mean([outside[n] for n in taught])
    return means[0] / means[1] if means[0] is not None and means[1] else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fmean(known) if known else None
