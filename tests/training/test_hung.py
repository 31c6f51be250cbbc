"""Ranks that hang and live: what is told of them, and what they leave."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure

from megatron_bridge.launch import culprit, told
from megatron_bridge.rank_log import Phase, RankLog
from megatron_bridge.run_directory import RunDirectory

WAITED = "RuntimeError: [unbound_buffer.cc:78] Timed out waiting 60000ms for recv operation to complete"
BROKEN = "RuntimeError: [pair.cc:547] Connection closed by peer [127.0.0.1]:4711"


def failure(rank: int, exitcode: int, message: str = "", *, timestamp: int = 0) -> ProcessFailure:
    ended = ProcessFailure(local_rank=rank, pid=100 + rank, exitcode=exitcode, error_file="<N/A>")
    if message:
        ended.error_file, ended.message = "error.json", f"{message}\nthe traceback is in a log"
    ended.timestamp = timestamp
    return ended


@pytest.mark.parametrize(
    ("failures", "expected"),
    [
        ([failure(0, 1, BROKEN), failure(1, -signal.SIGKILL, timestamp=30)], 1),
        ([failure(0, 1, WAITED), failure(1, -signal.SIGKILL, timestamp=30)], 0),
        ([failure(0, 1, WAITED), failure(1, 1, "RankGone: no sign of life", timestamp=2)], 1),
        ([failure(0, 1, BROKEN, timestamp=2), failure(1, 1, "ValueError: x", timestamp=1)], 1),
        ([failure(0, -signal.SIGTERM, timestamp=2), failure(1, 1, "ValueError: x", timestamp=1)], 1),
    ],
    ids=["killed", "waited in vain", "missed", "failed first", "stopped by the launcher"],
)
def test_who_made_the_others_fail(failures: list[ProcessFailure], expected: int) -> None:
    assert culprit({ended.local_rank: ended for ended in failures})[0] == expected


def test_a_collective_that_timed_out_names_who_waited_and_who_hung(tmp_path: Path) -> None:
    """Known failure: the rank that hung was said to have been killed by SIGKILL, which was the launcher."""
    for rank, phase in enumerate((Phase.TRAIN, Phase.SAVE)):
        log = RankLog(tmp_path, rank)
        log.enter(phase, 7)
        log.open()
    directory = RunDirectory(path=tmp_path, resume_from=None)
    text = told(directory, {0: failure(0, 1, WAITED), 1: failure(1, -signal.SIGKILL, timestamp=30)})
    assert text.startswith(
        f"rank 0 waited in vain for another one in train after 7 steps, rank 1 hung in save after 7 steps: {WAITED}; "
        f"where each rank stood is in {tmp_path}/logs. The other ranks were stopped. "
    )
    killed = told(directory, {0: failure(0, 1, BROKEN), 1: failure(1, -signal.SIGKILL, timestamp=30)})
    assert killed.startswith("rank 1 was killed by SIGKILL in save after 7 steps; its log is ")


HANGS = """
import os, sys, time
from pathlib import Path
from megatron_bridge.rank_log import RankLog
from megatron_bridge.training.interrupt import Interrupt

interrupt = Interrupt()
RankLog(Path(sys.argv[1]), 0).open()

def waits_in_vain():
    print("waiting", flush=True)
    while not interrupt._signal:
        time.sleep(0.05)

waits_in_vain()
print("noted", interrupt._signal)
"""


def test_where_a_rank_stood_when_it_was_told_to_stop(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", HANGS, str(tmp_path)]
    job = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert job.stdout is not None
    assert job.stdout.readline() == "waiting\n"
    job.send_signal(signal.SIGTERM)
    rest, _ = job.communicate(timeout=60)
    assert rest == f"noted {int(signal.SIGTERM)}\n"
    assert "in waits_in_vain" in (tmp_path / "logs" / "rank_0.log").read_text()


THREADS = """
import os, signal, sys, threading
from pathlib import Path
from megatron_bridge.rank_log import RankLog
from megatron_bridge.training.interrupt import Interrupt

interrupt = Interrupt()
RankLog(Path(sys.argv[1]), 0).open()

def frames_come_and_go():
    while True:
        eval("(lambda again, depth: depth and again(again, depth - 1))")(
            lambda again, depth: depth and again(again, depth - 1), 30
        )

for _ in range(2):
    threading.Thread(target=frames_come_and_go, daemon=True).start()
print("running", flush=True)
for _ in iter(sys.stdin.readline, "end\\n"):
    pass
print("noted", interrupt._signal, flush=True)
os._exit(0)
"""


def test_telling_where_it_stood_does_not_crash_a_rank_whose_other_threads_run(tmp_path: Path) -> None:
    """Known failure: about one signal in a hundred read a frame of another thread that was gone: SIGSEGV."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", THREADS, str(tmp_path)]
    job = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert job.stdout is not None
    assert job.stdout.readline() == "running\n"
    for _ in range(1000):
        job.send_signal(signal.SIGTERM)
        time.sleep(0.002)
    rest, _ = job.communicate("end\n", timeout=60)
    assert job.returncode == 0
    assert rest == f"noted {int(signal.SIGTERM)}\n"
