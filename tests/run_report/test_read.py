"""What is no run, or no line of one, is refused by name; what a run has not come to yet is not."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.run_report.cases import evaluation, line, make_run, rollout, write_lines
from trace_dsl.errors import RunFileError
from trace_dsl.run_report.outcome import outcomes, state
from trace_dsl.run_report.read import read_runs
from trace_dsl.run_report.times import slowest, times
from trace_dsl.run_report.words import chosen_settings, defaults
from trace_dsl.run_report.worst import kept_steps, worst


def refused(path: Path) -> str:
    with pytest.raises(RunFileError) as caught:
        kept_steps(read_runs([path])[0])
    return str(caught.value)


def test_what_is_no_run_directory(tmp_path: Path) -> None:
    assert "is no directory: name that of a run" in refused(tmp_path / "gone")
    assert "is no run directory: it has no run.yaml" in refused(tmp_path)
    path = make_run(tmp_path / "a")
    with pytest.raises(RunFileError, match="is given twice"):
        read_runs([path, tmp_path / "b" / ".." / "a"])


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("metrics.jsonl", '{"step": 0}\n{"step": 1, "los\n', "line 2 is not JSON"),
        ("metrics.jsonl", '{"step": 0, "loss": "low"}\n', "line 1: loss is 'low', not a number or null"),
        ("metrics.jsonl", '{"step": 1}\n{"step": 1}\n', "line 2: step 1 stands behind step 1"),
        ("metrics.jsonl", "[]\n", "line 1 has no step"),
        ("evaluations.jsonl", '{"step": 0, "split": "eval"}\n', "line 1: problems is None"),
        ("summary.json", "[]", "is not the summary of a run: it holds no object"),
        ("summary.json", '{"seconds": "many"}', "seconds is 'many', not a number"),
        ("plan.json", "{", "is not the plan of a run"),
        ("run.yaml", "name: a\n", "steps: None is no number of steps"),
        ("rollouts/step_000000.jsonl", '{"prompt": "p"}\n', "line 1 is no rollout that a run wrote"),
        ("logs/rank_0.now", "{}\n", "is not what a rank wrote"),
    ],
)
def test_a_damaged_file_is_named_with_its_line(tmp_path: Path, name: str, text: str, said: str) -> None:
    path = make_run(tmp_path / "a")
    (path / name).parent.mkdir(exist_ok=True)
    (path / name).write_text(text, encoding="utf-8")
    told = refused(path)
    assert name in told
    assert said in told


def test_a_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a", done=2)
    with (path / "metrics.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('{"step": 2, "los')
    (run,) = read_runs([path])
    assert run.done_steps == 2
    assert state(run).startswith("Not finished: 2 of 4 steps are done, the last at 2001-09-09 01:46 UTC.")


def test_how_far_a_run_went(tmp_path: Path) -> None:
    whole, begun = read_runs([make_run(tmp_path / "a"), make_run(tmp_path / "b", done=0)])
    assert state(whole) == "Finished: all 4 steps."
    assert state(begun).startswith("No step is done yet.")


def test_accuracy_before_and_after_with_its_error(tmp_path: Path) -> None:
    (run,) = read_runs([make_run(tmp_path / "a")])
    (one,) = outcomes(run)
    assert (one.first, one.last, one.gained, one.lost) == (0.5, 0.75, 2, 1)
    differences = [1, 1, 0, -1]  # "0011" to "1110"
    mean = sum(differences) / 4
    assert one.error == pytest.approx((sum((d - mean) ** 2 for d in differences) / 4 / 4) ** 0.5)


def test_a_run_older_than_its_evaluations_has_its_summary(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a")
    (path / "evaluations.jsonl").unlink()
    (one,) = outcomes(read_runs([path])[0])
    assert (one.first, one.last, one.problems) == (0.5, 0.75, 4)


def test_time_adds_up_and_the_slowest_step_leads(tmp_path: Path) -> None:
    (run,) = read_runs([make_run(tmp_path / "a")])
    found = times(run)
    assert found is not None
    assert {part.name: part.seconds for part in found.parts} == pytest.approx(
        {"drawing responses": 6.0, "other waiting": 2.0, "training": 5.0, "evaluation": 2.0}
    )
    assert found.total == pytest.approx(15.0)
    assert [one.step for one in slowest(run)][:2] == [2, 0]


def test_phases_beside_each_other_are_not_taken_apart(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a")
    write_lines(path / "metrics.jsonl", [line(n, **{"perf/verify_seconds": 9.0}) for n in range(4)])
    found = times(read_runs([path])[0])
    assert found is not None
    assert found.overlapping == ("waiting for rollouts",)
    assert found.total == pytest.approx(15.0)


def test_the_worst_rollouts_lead_one_of_each_prompt(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a")
    lines = [
        rollout(group=1, advantage=-1.0),
        rollout(group=2, advantage=-2.0),
        rollout(group=2, advantage=-3.0),
        rollout(group=3, advantage=2.0, reward=1.0),
        rollout(group=4, advantage=0.0, reward=1.0, annotation_missing="late"),
        rollout(group=5, advantage=0.0, reward=1.0, verifier_failure="it took too long"),
    ]
    write_lines(path / "rollouts" / "step_000000.jsonl", lines)
    found = worst(kept_steps(read_runs([path])[0]))
    assert [one.line for one in found] == [3, 1, 5, 6]
    assert (found[2].missing, found[3].failure) == ("late", "it took too long")


def test_settings_that_are_not_the_defaults(tmp_path: Path) -> None:
    (run,) = read_runs([make_run(tmp_path / "a", lr=3e-4)])
    rows = {name: (value, default) for name, value, default in chosen_settings(run)}
    assert rows["optim.lr"] == ("0.0003", json.dumps(defaults()["optim.lr"]))
    assert rows["steps"] == ("4", "")
    assert not any(re.match("optim.beta", name) for name in rows)


def test_evaluations_of_several_splits(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a")
    lines = [evaluation(n, solved, split) for n, solved in ((0, "01"), (4, "11")) for split in ("eval", "ood")]
    write_lines(path / "evaluations.jsonl", lines)
    assert [(one.split, one.last) for one in outcomes(read_runs([path])[0])] == [("eval", 1.0), ("ood", 1.0)]
