"""Which settings a method is reported with: those that did best in its search, by a rule that is the same for all."""

from __future__ import annotations

import json
from statistics import fmean

from megatron_bridge.study.cells import search_cells
from megatron_bridge.study.records import Record, read_record, record_path
from megatron_bridge.study.settings import Point, Study


def learning(record: Record) -> float:
    """The mean accuracy on the main split over all evaluations but the one before training: fast and far both count."""
    main = record.evaluations[0].split
    return fmean(one.accuracy for one in record.evaluations if one.split == main and one.step > 0)


def searched(study: Study, policy: str, method: str) -> dict[Point, float]:
    """By the settings tried: `learning`, the mean over the search seeds, on the policy whose search decides. Raises
    RunFileError for a run that has no record.
    """
    found: dict[Point, list[float]] = {}
    for cell in search_cells(study, study.searched_on(policy), method):
        found.setdefault(cell.point, []).append(learning(read_record(record_path(study, cell))))
    return {point: fmean(values) for point, values in found.items()}


def chosen_point(study: Study, policy: str, method: str) -> Point:
    """The settings with the highest mean; of equal ones the first. Raises RunFileError for a run without a record."""
    found = searched(study, policy, method)
    if not found:
        return study.file.methods[method].points[0]
    return max(found, key=found.__getitem__)


def settings_text(point: Point) -> str:
    """`optim.lr=0.0001, w0=0.5`."""
    return ", ".join(f"{name.removeprefix('let ')}={json.dumps(value)}" for name, value in point)
