"""Routes that a run wrote: four groups of step 10 of the demo, as training routed them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from megatron_bridge.annotation import Annotation
from megatron_bridge.training.records import rollout_line
from tests.annotate.test_contexts import rollout
from tests.lowering.cases import facts_of
from trace_dsl.lint import lint_file
from trace_dsl.model import Sees
from trace_dsl.plan import compile_plan
from trace_dsl.preview.preview import Preview, disagreements, preview
from trace_dsl.preview.rollouts import read_rollouts

ROOT = Path(__file__).parents[2]
RECORDED = Path(__file__).parent / "recorded" / "step_000010.jsonl"


def demo(path: Path = RECORDED, spec: str = "trace") -> Preview:
    found = lint_file(ROOT / f"specs/demo/{spec}.trace").spec
    assert found is not None
    return preview(found, compile_plan(found, facts_of(60, 8)), read_rollouts(path))


def test_every_token_has_the_route_that_the_run_wrote() -> None:
    found = demo()
    assert disagreements(found) == []
    assert {route for one in found.file.rollouts for route in one.route or ()} == {0, 1, 2}
    assert found.batch.advantage_R == pytest.approx([one.advantage for one in found.file.rollouts], abs=1e-12)


def test_another_route_is_told(tmp_path: Path) -> None:
    lines = [json.loads(line) for line in RECORDED.read_text().splitlines()]
    lines[3]["route"][0] = 1
    (tmp_path / RECORDED.name).write_text("\n".join(map(json.dumps, lines)))
    assert disagreements(demo(tmp_path / RECORDED.name)) == [3]


def test_without_a_step_nothing_is_compared(tmp_path: Path) -> None:
    (tmp_path / "some.jsonl").write_text(RECORDED.read_text())
    assert disagreements(demo(tmp_path / "some.jsonl")) is None


def test_what_a_run_writes_is_read_in_full(tmp_path: Path) -> None:
    """Contexts as training had them, and responses that the verifier could not judge."""
    plain = rollout(Annotation(diagnosis="sign_error"), sibling="Two and two.")
    withheld = rollout(Annotation(diagnosis="sign_error"), withheld=frozenset({Sees.DIAGNOSIS}))
    unjudged = rollout(Annotation(), verifier_failure="it took too long")
    path = tmp_path / "step_000003.jsonl"
    path.write_text("".join(json.dumps(rollout_line(one)) + "\n" for one in (plain, withheld, unjudged)))
    file = read_rollouts(path)
    assert file.ignored == ()
    for one, written in zip(file.rollouts, (plain, withheld, unjudged), strict=True):
        for sees in (Sees.DIAGNOSIS, Sees.SOLUTION, Sees.SIBLING, Sees.FEEDBACK):
            assert (one.contexts[sees.value] is not None) == written.has(sees)
        assert one.judged == written.judged
    found = demo(path, "grpo")
    assert found.routings[0].route_T() == [0, 0, -1]
