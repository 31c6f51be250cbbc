"""SGLang servers as processes of this run: started on free ports of the loopback, restarted, and stopped with it.

Each is a process group of its own (Ctrl-C in a terminal does not reach it), writes to a log of its own, and dies with
the process that started it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from megatron_bridge.rollout.engine import RolloutError
from megatron_bridge.rollout.settings import gpus_of_server

_MAIN = Path(__file__).with_name("sglang_process.py")
_HOST = "127.0.0.1"
KEY_VARIABLE = "TRACE_DSL_SERVER_KEY"  # read by sglang_process.py
_STOP_SECONDS = 20.0
_TAIL_LINES = 15
# SGLang refuses inputs a few tokens short of its context (6 in 0.5.20): room for them, so that the model's is whole.
_SPARE_CONTEXT = 16
# What torchrun tells its ranks; a server that read it would wait for them.
_TRAINERS = ("RANK", "WORLD_SIZE", "LOCAL_", "GROUP_", "ROLE_", "MASTER_", "TORCHELASTIC_")
_CPU_ARGUMENTS = (
    *("--device", "cpu", "--attention-backend", "torch_native", "--sampling-backend", "pytorch"),
    *("--disable-cuda-graph", "--disable-overlap-schedule"),
    "--sleep-on-idle",  # else an idle server keeps a core busy, which training on the same machine wants
)


@dataclass(slots=True, kw_only=True)
class ManagedProcess:
    """One server or router: how it is started, and the process that runs. `only_one`: nothing works without it; `key`:
    what it asks of who calls it.
    """

    name: str
    url: str
    command: tuple[str, ...]
    log: Path
    only_one: bool = False
    key: str | None = None
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    starts: int = 0

    def start(self) -> None:
        """Start it. The thread that calls this must live as long as the process is to."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith(_TRAINERS)}
        environment |= {"OMP_NUM_THREADS": "1", "SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN": "1"}
        if self.key is not None:
            environment[KEY_VARIABLE] = self.key  # a command line is there for everybody to read
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.started_at = time.monotonic()
        self.starts += 1

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL to the whole group: a hung process hears nothing else."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def stop(self) -> None:
        """SIGTERM, time to end what it started in its own order, then SIGKILL to what is left of the group."""
        if self.process is None:
            return
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(timeout=_STOP_SECONDS)
        self.kill()

    def ending(self) -> str:
        """How it ended and its last lines, for a message."""
        code = None if self.process is None else self.process.poll()
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-_TAIL_LINES:]
        how = "does not answer" if code is None else f"ended with exit code {code}"
        return f"{self.name} {how}; the end of {self.log}:\n" + "\n".join(f"  {line}" for line in lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerPlan:
    """What every server of a run has in common. `tokens` bounds its cache where there is no GPU whose memory would;
    `dtype` is that of the trainer's weights, as SGLang names it.
    """

    python: str
    policy: Path
    max_position: int
    tokens: int
    concurrency: int
    seed: int
    cuda: bool
    dtype: str
    arguments: Sequence[str]
    key: str | None = None


def plan_server(plan: ServerPlan, number: int, logs: Path) -> ManagedProcess:
    """Server `number` of a run, not yet started; its port is free now and kept over restarts."""
    port = free_port()
    where = ("--base-gpu-id", str(number * gpus_of_server(plan.arguments))) if plan.cuda else ()
    cpu = () if plan.cuda else (*_CPU_ARGUMENTS, "--max-total-tokens", str(plan.tokens))
    command = (
        *(plan.python, str(_MAIN), "server", str(os.getpid())),
        *("--model-path", str(plan.policy), "--host", _HOST, "--port", str(port)),
        *("--dtype", plan.dtype, "--skip-tokenizer-init", "--skip-server-warmup"),
        *("--context-length", str(plan.max_position + _SPARE_CONTEXT)),
        *("--max-running-requests", str(plan.concurrency), "--random-seed", str(plan.seed + number)),
        *cpu,
        *where,  # each server on GPUs of its own
        *plan.arguments,  # the last of two settings counts
    )
    return ManagedProcess(
        name=f"SGLang server {number}",
        url=f"http://{_HOST}:{port}",
        command=command,
        log=logs / f"server-{number}.log",
        key=plan.key,
    )


def plan_router(python: str, urls: Sequence[str], logs: Path, key: str | None = None) -> ManagedProcess:
    """sglang-router in front of `urls`; it repeats no request of its own accord, the client does."""
    port = free_port()
    command = (
        *(python, str(_MAIN), "router", str(os.getpid())),
        *("--worker-urls", *urls, "--host", _HOST, "--port", str(port)),
        *("--prometheus-port", str(free_port()), "--disable-retries"),
        *("--health-check-interval-secs", "5", "--health-failure-threshold", "1", "--health-success-threshold", "1"),
    )
    return ManagedProcess(
        name="sglang-router",
        url=f"http://{_HOST}:{port}",
        command=command,
        log=logs / "router.log",
        only_one=True,
        key=key,
    )


def free_port() -> int:
    """A port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
        return int(probe.getsockname()[1])


def port_is_free(url: str) -> bool:
    """Whether nobody listens at a URL of this machine."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        try:
            probe.bind((_HOST, urlsplit(url).port or 0))
        except OSError:
            return False
    return True


def given_up(processes: Sequence[ManagedProcess], restarts: int) -> RolloutError | None:
    """The error of a run that lost all its servers, or its router, more often than it may; None while it goes on."""
    lost = [process for process in processes if not process.running and process.starts > restarts]
    servers = [process for process in processes if not process.only_one]
    if not any(process.only_one for process in lost) and len(lost) < len(servers):
        return None
    return RolloutError(
        f"{lost[0].name} ended {restarts + 1} times (rollout.launch.restarts is {restarts}) and no other can take its "
        f"place.\n{lost[0].ending()}"
    )
