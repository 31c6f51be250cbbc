"""Routes that a run wrote: four groups of step 10 of the demo, as training routed them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.lowering.cases import facts_of
from trace_dsl.lint import lint_file
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
