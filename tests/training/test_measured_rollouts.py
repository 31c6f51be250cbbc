"""What a run measured stands beside its rollouts: a preview knows routes and weights that hang on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.lowering.cases import facts_of
from tests.training.jobs import train
from trace_dsl.lint import lint_file
from trace_dsl.plan import compile_plan
from trace_dsl.preview.batch import signals_left_out
from trace_dsl.preview.preview import Preview, disagreements, preview, weight_at
from trace_dsl.preview.rollouts import read_rollouts

SPEC = """\
teacher = self(sync=10, sees=diagnosis)
let kl  = schedule(0.5, anneal=linear(3))

rest when wrong and gap < 0: rkl(w=kl*sigmoid(gap))
rest when entropy > 0.02:    grpo(w=ratio)
rest:                        grpo(w=0.5)
"""


def previewed(folder: Path, spec: Path, step: int) -> Preview:
    found = lint_file(spec).spec
    assert found is not None
    return preview(found, compile_plan(found, facts_of(4, 4)), read_rollouts(folder / f"step_{step:06d}.jsonl"))


@pytest.mark.distributed
def test_a_preview_of_a_run_knows_what_the_run_measured(tmp_path: Path) -> None:
    spec = tmp_path / "gap.trace"
    spec.write_text(SPEC)
    small = ("rollout.prompts=4", "evaluation.problems=1", "steps=4", "save_rollouts_every=1", "checkpoint.every=0")
    train(tmp_path, "run", f"spec={spec}", *small)
    for step in range(4):
        found = previewed(tmp_path / "run" / "rollouts", spec, step)
        assert disagreements(found) == []
        routing = found.routings[found.routing_of_stop[step]]
        assert None not in routing.route_T()
        assert {0, 1, 2} == set(routing.route_T())
        weights = [weight_at(found, loss, step, token) for loss in found.losses for token in range(found.batch.tokens)]
        assert None not in weights
    other = previewed(tmp_path / "run" / "rollouts", Path("specs/demo/grpo.trace"), 0)
    assert signals_left_out(other.file.rollouts, other.spec) == ("teacher_logp(teacher)",)
