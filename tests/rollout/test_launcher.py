"""Processes of a run, with small ones in a server's place: groups are stopped whole, endings are told."""

from __future__ import annotations

import time
from pathlib import Path

import psutil
import pytest

from megatron_bridge.rollout.launcher import ManagedProcess, free_port, given_up


def shell(folder: Path, script: str, *, name: str = "server", only_one: bool = False) -> ManagedProcess:
    return ManagedProcess(
        name=name, url="http://x", command=("sh", "-c", script), log=folder / f"{name}.log", only_one=only_one
    )


def ended(process: ManagedProcess) -> ManagedProcess:
    process.start()
    assert process.process is not None
    process.process.wait(timeout=30)
    return process


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "])
def test_a_stop_ends_the_whole_group(tmp_path: Path, trap: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("megatron_bridge.rollout.launcher._STOP_SECONDS", 0.5)
    process = shell(tmp_path, f"{trap}sleep 100 & echo started; wait; sleep 100")
    process.start()
    assert process.process is not None
    deadline = time.monotonic() + 30
    while "started" not in process.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    family = [psutil.Process(process.process.pid), *psutil.Process(process.process.pid).children(recursive=True)]
    assert len(family) == 2
    process.stop()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    process.stop()  # again: nothing is left to stop


def test_torchruns_variables_do_not_reach_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that finds TORCHELASTIC_USE_AGENT_STORE waits for torchrun's store for ever."""
    for name in ("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "MASTER_ADDR", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("HF_HOME", "kept")
    text = ended(shell(tmp_path, "env")).log.read_text()
    assert "secret" not in text
    assert "HF_HOME=kept" in text
    assert "OMP_NUM_THREADS=1" in text


def test_an_ending_shows_the_code_and_the_last_lines(tmp_path: Path) -> None:
    text = ended(shell(tmp_path, "seq 100; echo no such model; exit 3")).ending()
    assert text.startswith(f"server ended with exit code 3; the end of {tmp_path}/server.log:\n")
    assert text.endswith("  100\n  no such model")
    assert "  80\n" not in text


def test_a_run_gives_up_when_no_server_or_no_router_may_be_started_again(tmp_path: Path) -> None:
    dead, other = ended(shell(tmp_path, "exit 1")), ended(shell(tmp_path, "exit 1", name="other"))
    assert given_up([dead, other], restarts=1) is None  # each may be started once more
    router = ended(shell(tmp_path, "exit 1", name="router", only_one=True))
    other.command = ("sleep", "100")
    other.start()
    try:
        assert given_up([dead, other], restarts=0) is None  # the other goes on
        assert "router ended 1 times (rollout.launch.restarts is 0)" in str(given_up([router, other], restarts=0))
    finally:
        other.stop()
    assert "server ended 1 times" in str(given_up([dead, other], restarts=0))


def test_free_ports_differ() -> None:
    assert len({free_port() for _ in range(5)}) > 1
