"""Random specs on random batches, stated as expectations: what the reading of the documents says must hold, and numbers
that are off must be told.
"""

from __future__ import annotations

import math
import random

import torch

from tests.lowering.cases import LABELS, facts_of, random_batch, spec_of
from tests.lowering.plain import PlainBatch
from tests.lowering.random_specs import random_spec
from tests.lowering.reading import read, signals_to_measure
from tests.lowering.reading_expressions import teacher_can_see
from trace_dsl.errors import LoweringError
from trace_dsl.expect.compare import compare
from trace_dsl.expect.evaluate import evaluate
from trace_dsl.expect.file import Case, Rollout
from trace_dsl.expressions import text_of
from trace_dsl.model import Spec
from trace_dsl.plan import compile_plan
from trace_dsl.plan.plan import loss_names

torch.set_num_threads(1)
STEPS = 30


def rollouts_of(batch: PlainBatch, spec: Spec) -> dict[str, Rollout]:
    """The batch as a file would state it."""
    found = {}
    for row, old_logp in enumerate(batch.old_logp):
        signals: dict[str, list[float]] = {"old_logp": old_logp}
        for signal in signals_to_measure(spec):
            if signal.teacher is not None and not teacher_can_see(spec, batch, signal.teacher, row):
                continue
            values = getattr(batch, signal.name)
            signals[text_of(signal)] = (values if signal.teacher is None else values[signal.teacher])[row]
        tool = [[t, t + 1] for t, by_model in enumerate(batch.from_model[row]) if not by_model]
        found[f"r{row}"] = Rollout(
            tokens=len(old_logp),
            reward=batch.reward[row],
            correct=batch.correct[row],
            prompt=batch.group[row],
            spans={n: [[s.start, s.end] for s in batch.spans if s.row == row and s.label == n] for n in LABELS},
            tool=tool,
            has=[name for name, rows in batch.contexts.items() if rows[row]],
            signals=signals,
        )
    return found


def split(values: list[float], batch: PlainBatch) -> dict[str, list[float]]:
    starts = [0]
    for row in batch.old_logp:
        starts.append(starts[-1] + len(row))
    return {f"r{row}": values[starts[row] : starts[row + 1]] for row in range(len(batch.old_logp))}


def test_what_the_documents_say_is_what_is_found() -> None:
    rng, compared, told = random.Random(5), 0, 0
    while compared < 150:
        spec = spec_of(random_spec(rng))
        batch = random_batch(rng, longest=6, groups=3)
        if set(spec_labels(spec)) < {span.label for span in batch.spans}:
            continue
        step = rng.randrange(STEPS)
        reading = read(spec, facts_of(STEPS), batch, step)
        if reading.fragile or reading.contested or reading.refused:
            continue
        plan = compile_plan(spec, facts_of(STEPS))
        names = loss_names(plan)
        case = Case(
            name="a",
            step=step,
            routes={
                name: "".join("." if r is None else str(int(r) + 1) for r in routes)
                for name, routes in split([r for r in reading.route], batch).items()
            },
            weights={names[pair]: split(values, batch) for pair, values in reading.weight.items()},
            A={f"r{row}": value for row, value in enumerate(reading.advantage_of_row)},
        )
        try:
            found = evaluate(spec, plan, case, rollouts_of(batch, spec))
        except LoweringError as error:
            raise AssertionError(spec.text) from error
        assert compare(case, found, 1e-6) == (), spec.text
        compared += 1
        told += _a_wrong_number_is_told(rng, case, found)
    assert told >= 100


def spec_labels(spec: Spec) -> list[str]:
    return [label.name for label in spec.labels]


def _a_wrong_number_is_told(rng: random.Random, case: Case, found: object) -> bool:
    """Change one weight of a case; whether there was one to change."""
    places = [
        (loss, rollout, t)
        for loss, by_rollout in case.weights.items()
        for rollout, values in by_rollout.items()
        for t, value in enumerate(values)
        if math.isfinite(value)
    ]
    if not places:
        return False
    loss, rollout, t = rng.choice(places)
    weights = {name: dict(by_rollout) for name, by_rollout in case.weights.items()}
    weights[loss][rollout] = [v + 0.001 * max(abs(v), 1) * (i == t) for i, v in enumerate(weights[loss][rollout])]
    (mismatch,) = compare(case.model_copy(update={"weights": weights}), found, 1e-6)
    assert (mismatch.what, mismatch.loss, mismatch.rollout, mismatch.tokens) == ("weights", loss, rollout, (t, t))
    return True
