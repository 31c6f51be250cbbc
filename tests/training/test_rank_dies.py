"""Ranks that are killed or stopped in real jobs: one error that can be read, or a start from the last checkpoint."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from megatron_bridge.rank_log import Doing, Phase, read_doing
from megatron_bridge.training.heartbeat import Sign, Watch
from tests.training.jobs import RUN, SMALL, environment, metrics
from tests.training.test_faults import start, wait_for_step

LAUNCHER = str(Path(sys.executable).with_name("trace-dsl"))


def launched(output: Path, *overrides: str) -> subprocess.Popen[str]:
    """A job of two ranks under `trace-dsl train`."""
    return subprocess.Popen(
        [LAUNCHER, "train", RUN, f"output={output}", "name=run", *SMALL, "layout.tp=2", "steps=10", *overrides],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def signal_rank(output: Path, rank: int, number: int) -> int:
    doing = read_doing(output / "run", rank)
    assert doing is not None
    psutil.Process(doing.pid).send_signal(number)
    return doing.pid


@pytest.mark.distributed
@pytest.mark.slow
def test_a_killed_rank_is_one_error_at_the_end(tmp_path: Path) -> None:
    job = launched(tmp_path)
    wait_for_step(job, 3)
    signal_rank(tmp_path, 1, signal.SIGKILL)
    rest, _ = job.communicate(timeout=120)
    assert job.returncode == 1
    last = rest.splitlines()[-1]
    assert last.startswith("error: rank 1 was killed by SIGKILL in ")
    assert f"its log is {tmp_path}/run/logs/rank_1.log. The other ranks were stopped. The last checkpoint is" in last
    assert rest.count("error: ") == 1
    assert "Traceback" not in rest
    log = (tmp_path / "run" / "logs" / "rank_0.log").read_text()
    assert "failed in " in log or "Traceback" not in log  # it may be stopped before its collective fails


@pytest.mark.distributed
@pytest.mark.slow
def test_a_stopped_rank_ends_the_job_and_is_named(tmp_path: Path) -> None:
    job = launched(tmp_path, "heartbeat_timeout=4")
    wait_for_step(job, 2)
    pid = signal_rank(tmp_path, 1, signal.SIGSTOP)
    rest, _ = job.communicate(timeout=120)
    assert job.returncode == 1
    last = rest.splitlines()[-1]
    assert last.startswith(
        f"error: no sign of life for 4 s (heartbeat_timeout) from rank 1 (process {pid}), last in "
    ), rest
    assert "rank 0 waited for it in " in last
    assert "The other ranks were stopped. " in last
    assert "RankGone: no sign of life" in (tmp_path / "run" / "logs" / "rank_0.log").read_text()
    assert not psutil.pid_exists(pid)


@pytest.mark.distributed
@pytest.mark.slow
def test_torchrun_starts_ranks_again_and_the_run_goes_on_by_itself(tmp_path: Path) -> None:
    """Killed before there is a checkpoint, and after."""
    job = start(tmp_path, "run", "steps=4", ranks=2, restarts=2)
    wait_for_step(job, 1)
    signal_rank(tmp_path, 0, signal.SIGKILL)
    wait_for_step(job, 3)
    signal_rank(tmp_path, 1, signal.SIGKILL)
    rest, _ = job.communicate(timeout=200)
    assert job.returncode == 0, rest
    assert f"going on from {tmp_path}/run/checkpoints/step_000002, 2 steps done" in rest
    assert [line["step"] for line in metrics(tmp_path, "run")] == [0, 1, 2, 3]
    assert (tmp_path / "run" / "summary.json").is_file()
    assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == ["run"]  # nothing moved aside


def sign(number: int, *, left: bool = False) -> Sign:
    return Sign(number=number, doing=Doing(phase=Phase.TRAIN, step=3, pid=1), launcher="0", left=left)


def test_a_rank_is_gone_after_so_many_looks_without_a_new_sign() -> None:
    watch = Watch(2)
    assert [watch.look({1: sign(0)}) for _ in range(4)] == [[], [], [], [1]]
    assert watch.look({1: sign(1)}) == []  # it was only slow


def test_a_rank_that_has_left_is_not_missed() -> None:
    watch = Watch(1)
    assert [watch.look({1: sign(5, left=True), 2: sign(0)}) for _ in range(3)] == [[], [], [2]]


def test_a_sign_survives_the_store() -> None:
    assert Sign.from_json(sign(7).to_json().encode()) == sign(7)
