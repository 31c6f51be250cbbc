"""Foreign functions in processes: each call ends in time, whatever the function does."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from megatron_bridge.annotation import Problem
from megatron_bridge.tasks.data_task import DataTask
from megatron_bridge.tasks.settings import TaskSettings
from megatron_bridge.workers import Failure, WorkerError, WorkerPool

FUNCTIONS = """
import os, sys, time, threading, signal

def grade(what, n=0):
    print("noise on the output", flush=True)
    os.write(1, b"more noise\\n")
    sys.stdin.read()
    match what:
        case "double": return 2 * n
        case "sleep": time.sleep(60)
        case "spin":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True: pass
        case "raise": raise ValueError("no\\n such thing")
        case "exit": sys.exit(3)
        case "die": os._exit(7)
        case "segfault": os.kill(os.getpid(), signal.SIGSEGV)
        case "interrupt": raise KeyboardInterrupt
        case "recurse": return grade(what, n)
        case "memory": return len(bytearray(1 << 42))
        case "set": return {1, 2}
        case "long": return "x" * (2 << 20)
        case "child":
            child = os.fork()
            if child:
                with open(n, "w") as file:
                    file.write(str(child))
            time.sleep(60)
        case "environment": return dict(os.environ)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("functions")
    (place / "functions.py").write_text(FUNCTIONS)
    (place / "broken.py").write_text("import os\nos.does_not_exist\n")
    (place / "exits.py").write_text("import sys\nsys.exit(0)\n")
    (place / "dies.py").write_text("import os\nos._exit(5)\n")
    return place


@pytest.fixture
def pool(folder: Path) -> Iterator[WorkerPool]:
    made = WorkerPool(target(folder), count=2, timeout=60.0)
    yield made
    made.close()


def target(folder: Path, function: str = "functions:grade") -> dict[str, Any]:
    return {"kind": "python", "function": function, "folder": str(folder)}


def test_values_come_in_order_from_processes_that_live_on(pool: WorkerPool) -> None:
    calls = [{"what": "double", "n": n} for n in range(50)]
    assert [found.value for found in pool.map(calls)] == [2 * n for n in range(50)]
    first = {worker.process.pid for worker in pool._workers}
    pool.map(calls)
    assert {worker.process.pid for worker in pool._workers} == first
    assert pool.map([]) == []


@pytest.mark.parametrize(
    ("what", "failure", "reason"),
    [
        ("raise", Failure.RAISED, "ValueError: no such thing"),
        ("exit", Failure.RAISED, "SystemExit: 3"),
        ("interrupt", Failure.RAISED, "KeyboardInterrupt: "),
        ("recurse", Failure.RAISED, "RecursionError: maximum recursion depth exceeded"),
        ("memory", Failure.RAISED, "MemoryError: "),
        ("set", Failure.RAISED, "TypeError: Object of type set is not JSON serializable"),
        ("die", Failure.DIED, "ended with code 7"),
        ("segfault", Failure.DIED, "ended with code -11"),
        ("long", Failure.TOO_LONG, "over 1048576 bytes"),
    ],
)
def test_a_call_that_goes_wrong_costs_itself_alone(pool: WorkerPool, what: str, failure: Failure, reason: str) -> None:
    calls = [{"what": "double", "n": 1}, {"what": what}, {"what": "double", "n": 2}, {"what": "double", "n": 3}]
    found = pool.map(calls)
    assert [one.value for one in found] == [2, None, 4, 6]
    assert found[1].failure is failure
    assert found[1].reason.startswith(reason)


@pytest.mark.parametrize("what", ["sleep", "spin"])
def test_a_call_that_hangs_is_ended(folder: Path, what: str) -> None:
    pool = WorkerPool(target(folder), count=1, timeout=1.0)
    (hung,) = pool.map([{"what": what}])
    assert (hung.failure, hung.reason) == (Failure.TIMED_OUT, "over 1 s")
    pool.close()


def test_what_a_call_started_ends_with_it(folder: Path, tmp_path: Path) -> None:
    pool = WorkerPool(target(folder), count=1, timeout=5.0)
    (hung,) = pool.map([{"what": "child", "n": str(tmp_path / "pid")}])
    assert hung.failure is Failure.TIMED_OUT
    child = int((tmp_path / "pid").read_text())
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(child)
        _, alive = psutil.wait_procs([process], timeout=30)
        assert not alive or process.status() == psutil.STATUS_ZOMBIE
    pool.close()


def test_a_worker_is_not_given_what_is_hidden(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "secret")
    monkeypatch.setenv("ANOTHER", "shown")
    pool = WorkerPool(target(folder), count=1, hidden=("A_KEY",))
    (found,) = pool.map([{"what": "environment"}])
    pool.close()
    assert "A_KEY" not in found.value
    assert found.value["ANOTHER"] == "shown"


def test_a_verifier_is_not_given_the_annotators_key(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_KEY", "secret")
    (folder / "peek.py").write_text(
        "import os\ndef grade(response, row):\n    return float('A_KEY' not in os.environ)\n"
    )
    settings = {
        "data": {"kind": "reasoning_gym", "dataset": "leg_counting"},
        "prompt": {"template": "{question}"},
        "verifier": {"kind": "python", "function": "peek:grade", "folder": str(folder)},
        "annotator": {"kind": "openai", "base_url": "http://127.0.0.1:9", "model": "m", "api_key_env": "A_KEY"},
    }
    task = DataTask(TaskSettings.model_validate(settings), folder=folder, cache=folder)
    (grade,) = task.grade([(Problem(prompt="p", data={}), "r")])
    task.close()
    assert (grade.reward, grade.failure) == (1.0, None)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("functions:missing", r"functions:missing: ImportError: .*functions.py has no function 'missing'"),
        ("nowhere:grade", "nowhere:grade: ModuleNotFoundError: No module named 'nowhere'"),
        ("broken:grade", "broken:grade: AttributeError: .*does_not_exist"),
        ("exits:grade", "exits:grade: SystemExit: 0"),
        ("dies:grade", "dies:grade ended with code 5 before it could be called"),
    ],
)
def test_a_function_that_cannot_be_called_is_told_at_the_start(folder: Path, function: str, message: str) -> None:
    for use in (WorkerPool.start, lambda pool: pool.map([{"what": "double"}])):
        pool = WorkerPool(target(folder, function))
        with pytest.raises(WorkerError, match=message):
            use(pool)
        pool.close()


def test_closing_ends_the_processes(folder: Path) -> None:
    pool = WorkerPool(target(folder))
    pool.start()
    pids = [worker.process.pid for worker in pool._workers]
    pool.close()
    assert pids
    assert not any(os.path.exists(f"/proc/{pid}") for pid in pids)


def test_a_worker_that_died_between_calls_is_replaced(pool: WorkerPool) -> None:
    pool.map([{"what": "double", "n": 1}])
    for worker in pool._workers:
        worker.process.kill()
        worker.process.wait()
    assert [found.value for found in pool.map([{"what": "double", "n": n} for n in range(4)])] == [0, 2, 4, 6]
