"""Processes of a run, with small ones in a server's place: groups are stopped whole, endings are told."""

from __future__ import annotations

import socket
import sys
import time
from pathlib import Path

import psutil
import pytest

from megatron_bridge.rollout.background import Background
from megatron_bridge.rollout.launcher import ManagedProcess, ServerPlan, free_port, given_up, plan_server, port_is_free
from megatron_bridge.rollout.served import _end
from megatron_bridge.rollout.settings import LaunchSettings
from megatron_bridge.rollout.watch import Watch
from megatron_bridge.rollout.weights import address_seen_by


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


def test_a_free_port_is_one_that_a_server_can_listen_on() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert port_is_free(url)
    with socket.create_server(("127.0.0.1", int(url.rpartition(":")[2]))) as listener:
        assert not port_is_free(url)
        assert free_port() != listener.getsockname()[1]
    assert port_is_free(url)


class Told:
    """What a watch needs of a client that nothing is asked of."""

    server_timeout = 1.0
    problem = ""


def test_a_start_after_a_crash_ends_what_the_crash_left(tmp_path: Path) -> None:
    process = shell(tmp_path, "sleep 100 & echo $!; exit 1")
    process.url = f"http://127.0.0.1:{free_port()}"
    watch = Watch(Told(), [process], LaunchSettings(restarts=5))  # type: ignore[arg-type]
    ended(process)
    left = psutil.Process(int(process.log.read_text()))
    assert left.is_running()
    watch._start_again(process)
    _, alive = psutil.wait_procs([left], timeout=30)
    assert not alive or left.status() == psutil.STATUS_ZOMBIE
    assert process.starts == 2
    process.stop()


def test_a_stolen_port_costs_no_restart(tmp_path: Path) -> None:
    process = ended(shell(tmp_path, "exit 1"))
    process.url = f"http://127.0.0.1:{free_port()}"
    client = Told()
    watch = Watch(client, [process], LaunchSettings(restarts=1))  # type: ignore[arg-type]
    with socket.create_server(("127.0.0.1", int(process.url.rpartition(":")[2]))):
        for _ in range(5):
            watch._start_again(process)
    assert (process.starts, watch.restarts, watch.fatal) == (1, 0, None)
    assert client.problem == f"server ended, and another program listens on its port: {process.url}"
    watch._start_again(process)
    assert (process.starts, watch.restarts) == (2, 1)
    process.stop()


def test_a_stop_comes_before_the_thread_that_started_the_processes_ends(tmp_path: Path) -> None:
    """Linux ends them with that thread at once: they must have had SIGTERM and their time by then."""
    script = (
        "import signal, sys, time\nfrom megatron_bridge.with_parent import signal_when_parent_dies\n"
        "signal_when_parent_dies(signal.SIGKILL)\n"
        "def end(*_):\n    time.sleep(1)\n    print('ended in order', flush=True)\n    sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\nprint('up', flush=True)\ntime.sleep(100)\n"
    )
    process = ManagedProcess(name="s", url="http://x", command=(sys.executable, "-c", script), log=tmp_path / "log")
    background = Background("servers")

    async def start() -> None:
        process.start()

    background.run(start())
    deadline = time.monotonic() + 60
    while "up" not in process.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    watch = Watch(Told(), [process], LaunchSettings())  # type: ignore[arg-type]
    background.close(last=_end(None, watch))
    assert not process.running
    assert process.log.read_text() == "up\nended in order\n"


def test_a_process_group_with_servers_elsewhere_has_an_address_that_they_reach() -> None:
    """Seen from a server of this machine it is the loopback, which is another machine's own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 80))  # a network that is nobody's; nothing is sent
        outward = probe.getsockname()[0]
    assert address_seen_by(["http://127.0.0.1:30000"]) == "127.0.0.1"
    assert address_seen_by(["http://127.0.0.1:30000", "http://192.0.2.1:30000"]) == outward
    with pytest.raises(OSError, match=r"not known|failure|resolution"):
        address_seen_by(["http://no.such.host.invalid:1"])


@pytest.mark.parametrize(
    ("arguments", "first_gpus"),
    [([], ["0", "1", "2"]), (["--tp-size", "4"], ["0", "4", "8"]), (["--tp=2", "--base-gpu-id", "5"], ["5", "5", "5"])],
)
def test_each_server_has_gpus_of_its_own_and_the_trainers_precision(
    tmp_path: Path, arguments: list[str], first_gpus: list[str]
) -> None:
    plan = ServerPlan(
        python="python",
        policy=tmp_path,
        max_position=256,
        tokens=1024,
        concurrency=4,
        seed=0,
        cuda=True,
        dtype="bfloat16",
        arguments=arguments,
    )
    for number, gpu in enumerate(first_gpus):
        words = plan_server(plan, number, tmp_path).command
        last = {word: words[place + 1] for place, word in enumerate(words[:-1]) if word.startswith("--")}
        assert last["--base-gpu-id"] == gpu
        assert last["--dtype"] == "bfloat16"
        assert "cpu" not in words
