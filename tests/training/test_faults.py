"""What goes wrong in real jobs: killed processes, a full disk, interrupts, batches without a lesson."""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from megatron_bridge.checkpoint_files import checkpoints, latest_checkpoint, read_meta
from tests.training.changed_job import SLOW_STEP
from tests.training.jobs import command, environment, metrics, train

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


def start(
    output: Path,
    name: str,
    *overrides: str,
    ranks: int = 1,
    restarts: int = 0,
    flags: Sequence[str] = (),
    change: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """Start a job in its own process group; `change` are the variables that `changed_job` reads."""
    module = "megatron_bridge.train" if change is None else "tests.training.changed_job"
    return subprocess.Popen(
        command(output, name, overrides, ranks=ranks, restarts=restarts, flags=flags, module=module),
        env=environment() | (change or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def wait_for_step(job: subprocess.Popen[str], step: int) -> None:
    """Read a job's output until it has reported `step` steps."""
    assert job.stdout is not None
    for line in job.stdout:
        if re.match(rf"step +{step}/", line):
            return
    raise AssertionError("the job ended early")


def kill_tree(job: subprocess.Popen[str]) -> None:
    """SIGKILL the launcher and its ranks, and nothing else."""
    for process in [*psutil.Process(job.pid).children(recursive=True), psutil.Process(job.pid)]:
        process.kill()
    job.wait(timeout=30)


@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_run_resumes_to_the_same_bits(tmp_path: Path, ranks: int) -> None:
    steps = 7
    train(tmp_path, "whole", f"steps={steps}", ranks=ranks)
    job = start(tmp_path, "killed", f"steps={steps}", ranks=ranks)
    wait_for_step(job, random.randint(2, steps - 2))
    time.sleep(random.random())
    kill_tree(job)
    train(tmp_path, "killed", f"steps={steps}", ranks=ranks, flags=["--resume"])
    whole, killed = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "killed"))
    assert all((whole[name] == killed[name]).all() for name in whole)
    for one, other in zip(metrics(tmp_path, "whole"), metrics(tmp_path, "killed"), strict=True):
        assert not [
            name for name in one if name != "time" and not name.startswith("perf/") and one[name] != other[name]
        ]


def test_a_run_killed_while_a_checkpoint_is_written_loses_that_checkpoint_alone(tmp_path: Path) -> None:
    """And one that is asked to stop waits for it. The checkpoint after step 4 takes an hour, and then a while."""
    settings = ("steps=50", "checkpoint.asynchronous=true", "evaluation.problems=8")
    folder = tmp_path / "run" / "checkpoints"
    job = start(tmp_path, "run", *settings, ranks=2, change={"CHANGE": "slow checkpoint", "SECONDS": "3600"})
    wait_for_step(job, SLOW_STEP + 1)  # training went on
    kill_tree(job)
    before = metrics(tmp_path, "run")
    assert [path.name for path in checkpoints(folder)] == ["step_000002"]
    assert (folder / f"step_{SLOW_STEP:06d}.partial").is_dir()
    change = {"CHANGE": "slow checkpoint", "SECONDS": "5"}
    job = start(tmp_path, "run", *settings, ranks=2, flags=["--resume"], change=change)
    wait_for_step(job, SLOW_STEP + 1)
    for rank in psutil.Process(job.pid).children():
        rank.send_signal(signal.SIGTERM)
    rest, _ = job.communicate(timeout=120)
    assert "stopped on request after" in rest
    last = latest_checkpoint(folder)
    assert last is not None
    assert [path.name for path in checkpoints(folder)] == [f"step_{SLOW_STEP:06d}", last.name]
    assert not list(folder.glob("*.partial"))
    again = metrics(tmp_path, "run")
    for one, other in zip(before[: SLOW_STEP + 1], again, strict=False):
        assert not [key for key in one if key != "time" and not key.startswith("perf/") and one[key] != other[key]]


def test_the_checkpoint_with_the_best_evaluation_stays(tmp_path: Path) -> None:
    """An evaluation after each step; only the last step is saved otherwise."""
    shared = ("steps=4", "spec=grpo.trace", "optim.lr=1e-2", "checkpoint.keep=1", "checkpoint.every=4")
    train(tmp_path, "run", *shared, "evaluation.every=1", "checkpoint.best=true", ranks=1)
    board = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    accuracies = [event.value for event in board.Scalars("evaluation/accuracy")][1:]  # not the one before training
    best = 1 + accuracies.index(max(accuracies))
    kept = {path.name: read_meta(path).get("accuracy") for path in checkpoints(tmp_path / "run" / "checkpoints")}
    assert kept[f"step_{best:06d}"] == pytest.approx(max(accuracies))
    assert set(kept) == {f"step_{best:06d}", "step_000004"}
    assert kept["step_000004"] == pytest.approx(accuracies[-1])


def test_interrupt_stops_cleanly_and_names_the_checkpoint(tmp_path: Path) -> None:
    """Ctrl-C in the middle of a step, through `trace-dsl train`."""
    job = subprocess.Popen(
        [
            *(str(Path(os.sys.executable).with_name("trace-dsl")), "train", "specs/demo/run.yaml"),
            *("rollout.prompts=8", "rollout.group_size=4", "micro_batch=8", "evaluation.problems=32", "steps=50"),
            *("checkpoint.every=2", "layout.tp=2", f"output={tmp_path}", "name=stopped"),
        ],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    wait_for_step(job, 3)
    os.killpg(job.pid, signal.SIGINT)
    rest, _ = job.communicate(timeout=60)
    assert job.returncode == 130
    assert "Traceback" not in rest
    assert "stopped on request after" in rest
    named = re.search(r"The last checkpoint is (\S+); go on from it with --resume", rest)
    assert named
    assert Path(named[1]).is_dir()


def test_full_disk_while_saving_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    """No file of the ranks may grow past 100 kB any more: the next checkpoint cannot be written."""
    job = start(tmp_path, "full", "steps=20", "spec=grpo.trace", ranks=2)
    wait_for_step(job, 3)
    for process in psutil.Process(job.pid).children():
        process.rlimit(psutil.RLIMIT_FSIZE, (100_000, 100_000))
    rest, _ = job.communicate(timeout=120)
    assert job.returncode != 0
    assert re.search(r"error: .*step_0000\d\d", rest), rest[-3000:]
    named = re.search(r"The last checkpoint is (\S+); go on from it with --resume", rest)
    assert named
    assert Path(named[1]).is_dir()
    assert not list((tmp_path / "full" / "checkpoints").glob("*.partial"))
    train(tmp_path, "full", "steps=20", "spec=grpo.trace", ranks=2, flags=["--resume"])


def test_resume_says_what_changed_and_does_not_repeat_a_finished_run(tmp_path: Path) -> None:
    train(tmp_path, "run", "steps=2", ranks=1)
    longer = train(tmp_path, "run", "steps=4", ranks=1, flags=["--resume"], check=False)
    assert "steps: 2 -> 4" in longer.stderr
    before = (tmp_path / "run" / "summary.json").read_bytes()
    again = train(tmp_path, "run", "steps=2", ranks=1, flags=["--resume"])
    assert "is finished: 2 steps done" in again.stderr
    assert (tmp_path / "run" / "summary.json").read_bytes() == before
    (tmp_path / "run" / "summary.json").unlink()
    changed = train(tmp_path, "run", "steps=2", "optim.lr=1e-3", ranks=1, flags=["--resume"])
    assert "changed since the run was started: optim.lr: 0.0002 -> 0.001" in changed.stderr


def test_ranks_end_with_their_launcher_and_hold_the_directory_until_then(tmp_path: Path) -> None:
    job = start(tmp_path, "run", "steps=60", ranks=2)
    wait_for_step(job, 2)
    ranks = psutil.Process(job.pid).children()
    assert len(ranks) == 2
    second = train(tmp_path, "run", "steps=60", ranks=1, flags=["--resume"], check=False)
    holder = re.search(r"process (\d+) is training there", second.stderr)
    assert holder
    assert int(holder[1]) in {rank.pid for rank in ranks}
    psutil.Process(job.pid).kill()
    _, alive = psutil.wait_procs(ranks, timeout=60)
    assert not alive


def test_broken_checkpoint_is_named(tmp_path: Path) -> None:
    train(tmp_path, "run", "steps=2", ranks=1)
    (tmp_path / "run" / "summary.json").unlink()
    (tmp_path / "run" / "checkpoints" / "step_000002" / "common.pt").write_bytes(b"")
    broken = train(tmp_path, "run", "steps=2", ranks=1, flags=["--resume"], check=False)
    assert re.search(r"error: cannot load \S+step_000002: .*remove it to go on", broken.stderr)


def test_a_checkpoint_of_an_older_version_is_one_clear_error(tmp_path: Path) -> None:
    """Known failure: KeyError: 'data'."""
    train(tmp_path, "run", "steps=2", ranks=1)
    (tmp_path / "run" / "summary.json").unlink()
    common = tmp_path / "run" / "checkpoints" / "step_000002" / "common.pt"
    state = torch.load(common, weights_only=False)
    del state["extra"]["data"]
    torch.save(state, common)
    refused = train(tmp_path, "run", "steps=2", ranks=1, flags=["--resume"], check=False)
    assert refused.returncode != 0
    assert re.search(r"error: cannot go on from \S+step_000002: it lacks data, .*start a new run", refused.stderr)
    assert "KeyError" not in refused.stderr


def test_unwritable_output_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    refused = train(tmp_path / "file", "run", "steps=2", ranks=1, check=False)
    assert re.search(r"error: output: \S+file/run cannot be written: ", refused.stderr)


def test_existing_run_is_not_overwritten(tmp_path: Path) -> None:
    train(tmp_path, "run", "steps=2", ranks=1)
    before = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    refused = train(tmp_path, "run", "steps=2", ranks=1, check=False)
    assert refused.returncode != 0
    assert "already holds a run" in refused.stderr
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == before
    train(tmp_path, "run", "steps=2", ranks=1, flags=["--overwrite"])
    assert (tmp_path / "run.previous" / "metrics.jsonl").read_bytes() == before


def test_responses_that_are_all_cut_or_all_wrong_train_nothing_and_break_nothing(tmp_path: Path) -> None:
    """At 4 tokens every response is cut: all groups are all wrong, no spans, no KL row on any rank."""
    train(tmp_path, "cut", "steps=2", "rollout.max_response_tokens=4", ranks=2)
    for line in metrics(tmp_path, "cut"):
        assert line["rollout/cut_fraction"] == 1.0
        assert line["reward"] == 0.0
        assert line["rollout/equal_reward_groups"] == 1.0
        assert line["loss"] == 0.0
        assert line["teacher_ran"] == 0
        assert line["optim/grad_norm"] == 0.0


def test_kl_rows_on_one_data_parallel_rank_only(tmp_path: Path) -> None:
    """A gate that only the first group passes: the other rank has no KL row."""
    spec = tmp_path / "one.trace"
    spec.write_text(
        "teacher = self(sync=1, sees=diagnosis)\n"
        "rest when has(diagnosis): rkl(w=where(A == max(A, over=batch), 0.5, 0)) + grpo()\n"
        "rest: grpo()\n"
    )
    shared = (f"spec={spec}", "steps=2", "rollout.prompts=2", "rollout.group_size=4", "micro_batch=4")
    train(tmp_path, "dp2", *shared, "layout.tp=1", "layout.dp=2", ranks=2)
    train(tmp_path, "dp1", *shared, "layout.tp=1", ranks=1)
    for one, two in zip(metrics(tmp_path, "dp1"), metrics(tmp_path, "dp2"), strict=True):
        assert abs(one["loss"] - two["loss"]) < 1e-5


def test_prompt_longer_than_the_context_is_one_clear_error(tmp_path: Path) -> None:
    policy = tmp_path / "policy"
    policy.mkdir()
    for path in Path("specs/demo/policy").iterdir():
        text = path.read_bytes()
        if path.name == "config.json":
            text = re.sub(rb'"max_position_embeddings": \d+', b'"max_position_embeddings": 12', text)
        (policy / path.name).write_bytes(text)
    done = train(tmp_path, "long", f"policy={policy}", "steps=2", "rollout.max_response_tokens=8", ranks=1, check=False)
    assert done.returncode != 0
    assert re.search(r"error: .*prompt.*12", done.stderr)
