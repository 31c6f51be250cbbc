"""Real SGLang servers with the demo policy: one for all tests here, a second one and a router for those that ask."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import torch

from megatron_bridge.device import megatron_runtime
from megatron_bridge.model.gpt import build_model
from megatron_bridge.model.hf import load_hf
from megatron_bridge.model.shape import Layout, read_shape
from megatron_bridge.parallel import start_parallel, stop_parallel
from megatron_bridge.rollout.launcher import ManagedProcess, ServerPlan, plan_router, plan_server
from tests.rollout.rig import POLICY

PYTHON = ".venv-sglang/bin/python"
PLAN = ServerPlan(
    python=PYTHON,
    policy=POLICY.resolve(),
    max_position=256,
    tokens=64 * 256,
    concurrency=64,
    seed=0,
    cuda=torch.cuda.is_available(),
    dtype="float32",
    arguments=[],
)


def start(process: ManagedProcess) -> None:
    """Start a process and wait until it generates."""
    process.start()
    deadline = time.monotonic() + 600
    while True:
        assert process.running, process.ending()
        assert time.monotonic() < deadline, process.ending()
        try:
            if httpx.get(f"{process.url}/health", timeout=30, trust_env=False).status_code == 200:
                break
        except httpx.HTTPError:
            time.sleep(0.5)


def running(process: ManagedProcess) -> Iterator[ManagedProcess]:
    """A process that ends with the fixture."""
    try:
        start(process)
        yield process
    finally:
        process.stop()


@pytest.fixture(scope="package")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("servers")


@pytest.fixture(scope="package")
def server(logs: Path) -> Iterator[ManagedProcess]:
    assert Path(PYTHON).is_file(), "SGLang is not installed: run `make sglang`"
    yield from running(plan_server(PLAN, 0, logs))


@pytest.fixture(scope="package")
def started_second(logs: Path) -> Iterator[ManagedProcess]:
    yield from running(plan_server(PLAN, 1, logs))


@pytest.fixture
def second(started_second: ManagedProcess) -> ManagedProcess:
    """It runs, also where a test before has killed it."""
    if not started_second.running:
        start(started_second)
    return started_second


@pytest.fixture
def router(logs: Path, server: ManagedProcess, second: ManagedProcess) -> Iterator[ManagedProcess]:
    yield from running(plan_router(PYTHON, [server.url, second.url], logs))


@pytest.fixture(scope="module")
def model() -> Iterator[torch.nn.ModuleList]:
    """The demo policy in this process, a world of one."""
    start_parallel(Layout(), seed=0)
    try:
        with megatron_runtime():
            built = build_model(read_shape(POLICY), Layout())
            load_hf(built, POLICY)
            yield built
    finally:
        stop_parallel()
