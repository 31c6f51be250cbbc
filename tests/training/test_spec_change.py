"""A run whose spec or length changed: what is refused, and how it goes on when that is accepted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from megatron_bridge.prepare import prepare_run
from megatron_bridge.run_directory import find_run_directory, meta_of, prepare_run_directory
from megatron_bridge.spec_change import read_changes
from tests.training.jobs import metrics, summary, train
from trace_dsl.errors import RunFileError

RUN = Path("specs/demo/run.yaml")
TRACE = Path("specs/demo/trace.trace")


def stopped(output: Path, *overrides: str, step: int = 4) -> Path:
    """The directory of a run that has come to `step`, with a checkpoint that says of itself what a real one does."""
    loaded, plan, _ = prepare_run(RUN, [f"output={output}", *overrides])
    directory = find_run_directory(loaded, plan, resume=False, overwrite=False)
    prepare_run_directory(directory, loaded, plan)
    checkpoint = directory.checkpoints / f"step_{step:06d}"
    checkpoint.mkdir(parents=True)
    meta = {**meta_of(loaded, plan), "step": step, "models": ["policy", "teacher_teacher"]}
    (checkpoint / "meta.json").write_text(json.dumps(meta))
    return directory.path


def found(output: Path, *overrides: str, accept: bool = True):
    loaded, plan, _ = prepare_run(RUN, [f"output={output}", *overrides])
    return find_run_directory(loaded, plan, resume=True, overwrite=False, accept_spec_change=accept), loaded, plan


def test_the_refusal_has_the_difference_and_the_fix(tmp_path: Path) -> None:
    stopped(tmp_path)
    changed = tmp_path / "changed.trace"
    changed.write_text(TRACE.read_text().replace("linear(30)", "linear(40)").replace("cap=25%)\n", "cap=30%)\n"))
    with pytest.raises(RunFileError) as refused:
        found(tmp_path, f"spec={changed}", accept=False)
    said = str(refused.value).splitlines()
    assert said[0].startswith(f"{tmp_path}/demo/checkpoints/step_000004 was trained under plan ")
    assert said[1:3] == ["  span `error`", "    cap=25% -> cap=30%"]
    assert "      differs at steps 11-49 of 0-59" in said
    assert said[-1].endswith("or go on under the new one from step 4 with --resume --accept-spec-change")


def test_another_length_says_what_moves_with_the_end(tmp_path: Path) -> None:
    spec = tmp_path / "ends.trace"
    spec.write_text("rest when kl > 0.1: nll(w=0.5, anneal=cos) + grpo(w=kl)\nrest: grpo()\n")
    spec.write_text("let kl = schedule(1, warmup=10%, anneal=linear)\n" + spec.read_text())
    stopped(tmp_path, f"spec={spec}", "optim.decay=cosine", "steps=60")
    change = found(tmp_path, f"spec={spec}", "optim.decay=cosine", "steps=80")[0].change
    assert change is not None
    assert change.lines[:2] == ("run", "  steps: 60 -> 80")
    kl = "schedule(1, warmup=10%, anneal=linear)"
    assert f"  predicate: {kl} > 0.1 over 60 steps -> {kl} > 0.1 over 80 steps" in change.lines
    assert any(line.startswith("  weight of nll: ") for line in change.lines)
    assert "    differs at steps 1-59 of 0-59" in change.lines
    assert change.lines[-2:] == ("optim.decay=cosine", "  ends after step: 60 -> 80")


def test_a_length_that_nothing_is_relative_to(tmp_path: Path) -> None:
    stopped(tmp_path, "steps=60")
    change = found(tmp_path, "steps=80")[0].change
    assert change is not None
    assert change.lines == ("run", "  steps: 60 -> 80")
    assert change.kept == {"teacher"}


def test_a_run_does_not_end_before_its_checkpoint(tmp_path: Path) -> None:
    stopped(tmp_path, "spec=grpo.trace", step=40)
    with pytest.raises(RunFileError, match=r"steps: \S+step_000040 is at step 40, after the run's last, 20; set it to"):
        found(tmp_path, "steps=20", "spec=grpo.trace")


def test_what_the_change_replaces_is_kept(tmp_path: Path) -> None:
    run = stopped(tmp_path)
    before = {name: (run / name).read_text() for name in ("spec.trace", "plan.json", "run.yaml")}
    (run / "model").mkdir()
    (run / "summary.json").write_text("{}")
    for _ in range(2):  # the second start was killed before it saved
        prepare_run_directory(*found(tmp_path, "spec=grpo.trace"))
    kept = run / "earlier" / "step_000004"
    assert {name: (kept / name).read_text() for name in before} == before
    assert (kept / "model").is_dir()
    assert not (run / "summary.json").exists()
    assert (run / "spec.trace").read_text() == (TRACE.parent / "grpo.trace").read_text()
    (change,) = read_changes(run)
    assert change["step"] == 4
    assert change["earlier"] == "earlier/step_000004"
    assert change["changes"][0] == "span `key`"
    # the change of mind before anything was saved
    prepare_run_directory(*found(tmp_path, "spec=all_token.trace"))
    assert (run / "earlier" / "step_000004.2" / "spec.trace").read_text() == (TRACE.parent / "grpo.trace").read_text()
    assert len(read_changes(run)) == 2


@pytest.mark.parametrize(
    ("update", "kept", "begun"),
    [
        ("sync=20", True, ""),
        ("ema=0.1", False, "teacher `teacher` starts from the policy after 4 steps"),
        ("frozen", False, "teacher `teacher` starts from the policy that the run began with"),
    ],
)
def test_a_teacher_of_another_kind_starts_anew(tmp_path: Path, update: str, kept: bool, begun: str) -> None:
    stopped(tmp_path)
    changed = tmp_path / "changed.trace"
    changed.write_text(TRACE.read_text().replace("sync=10", update))
    change = found(tmp_path, f"spec={changed}")[0].change
    assert change is not None
    assert (change.kept == {"teacher"}) is kept
    assert change.begun == ((begun,) if begun else ())


@pytest.mark.distributed
@pytest.mark.slow
def test_a_run_goes_on_longer_and_under_another_spec(tmp_path: Path) -> None:
    """From grpo, which has no teacher, to one that has; with a learning rate of the new run file."""
    train(tmp_path, "run", "steps=2", "spec=grpo.trace", ranks=1)
    refused = train(tmp_path, "run", "steps=4", ranks=1, flags=["--resume"], check=False)
    assert "    steps: 2 -> 4" in refused.stderr
    assert "--accept-spec-change" in refused.stderr
    flags = ["--resume", "--accept-spec-change"]
    done = train(tmp_path, "run", "steps=4", "optim.lr=1e-3", ranks=1, flags=flags)
    assert "under another objective from here on:\n  run\n    steps: 2 -> 4" in done.stderr
    assert [line["step"] for line in metrics(tmp_path, "run")] == [0, 1, 2, 3]
    assert [line["optim/lr"] for line in metrics(tmp_path, "run")] == [2e-4, 2e-4, 1e-3, 1e-3]
    assert [line["teacher_ran"] for line in metrics(tmp_path, "run")] == [0, 0, 1, 1]
    (change,) = read_changes(tmp_path / "run")
    assert summary(tmp_path, "run")["spec_changes"] == [{k: change[k] for k in ("step", "old_plan", "new_plan")}]
    assert (tmp_path / "run" / "earlier" / "step_000002" / "model" / "model.safetensors").is_file()
