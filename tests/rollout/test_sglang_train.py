"""Whole jobs whose rollouts come from SGLang."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.training.jobs import command, environment, metrics, summary, train

pytestmark = [pytest.mark.sglang, pytest.mark.distributed, pytest.mark.slow]


def test_samples_of_the_next_step_are_drawn_while_this_one_trains(server, tmp_path):
    """At most one iteration stale, and every token still has the log-prob it was drawn with."""
    overrides = ("rollout.engine=sglang", f"rollout.url={server.url}", "rollout.staleness=1", "steps=4")
    train(tmp_path, "ahead", *overrides, "rollout.sync=distributed", ranks=2)
    lines = metrics(tmp_path, "ahead")
    assert [line["rollout/staleness"] for line in lines] == [0, 1, 1, 1]
    assert lines[0]["rollout/logp_mismatch_max"] < 1e-4
    for line in lines:
        assert line["rollout/probe_gap"] < 1e-4
        assert line["rollout/stale_answers"] == line["rollout/retries"] == 0
        assert line["perf/rollout_tokens_per_second"] > 0
        assert line["perf/rollouts_per_second"] > 0
    assert summary(tmp_path, "ahead")["rollout_engine"] == "sglang"


def test_a_resumed_run_trains_on_what_was_drawn_ahead(server, tmp_path):
    """Known failure: samples of the iterations ahead were drawn again, with newer weights than those they had."""
    overrides = ("rollout.engine=sglang", f"rollout.url={server.url}", "rollout.staleness=1", "steps=4")
    overrides = (*overrides, "save_rollouts_every=1")
    train(tmp_path, "ahead", *overrides, ranks=2)
    run = tmp_path / "ahead"
    before = drawn(run, 2)
    shutil.rmtree(run / "checkpoints" / "step_000004")
    (run / "summary.json").unlink()
    train(tmp_path, "ahead", *overrides, ranks=2, flags=["--resume"])
    assert [line["rollout/staleness"] for line in metrics(tmp_path, "ahead")] == [0, 1, 1, 1]
    kept = 0
    for old, new in zip(before, drawn(run, 2), strict=True):
        assert old["prompt"] == new["prompt"]
        count = sum(version < 2 for version in new["weight_versions"])
        assert new["token_ids"][:count] == old["token_ids"][:count]
        assert new["weight_versions"][:count] == old["weight_versions"][:count]
        kept += count
    assert kept > 0


def drawn(run: Path, step: int) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "rollouts" / f"step_{step:06d}.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("sync", ["tensor", "distributed"])
def test_a_pipeline_sends_all_its_stages(server, tmp_path, sync):
    """The server holds the weights of all three after every step: it draws with the trainer's log-probs."""
    overrides = ("rollout.engine=sglang", f"rollout.url={server.url}", f"rollout.sync={sync}", "steps=3")
    train(tmp_path, "pipeline", *overrides, "layout.tp=1", "layout.pp=3", ranks=3)
    lines = metrics(tmp_path, "pipeline")
    assert [line["step"] for line in lines] == [0, 1, 2]
    for line in lines:
        assert line["rollout/logp_mismatch_max"] < 1e-4
        assert line["rollout/probe_gap"] < 1e-4


def command_line(process: psutil.Process) -> list[str]:
    """The arguments of a server's process, nothing for others and for one that has ended."""
    try:
        found = process.cmdline()
    except psutil.Error:
        return []
    return found if any("sglang_process.py" in argument for argument in found) else []


def group_of(process: psutil.Process) -> int | None:
    try:
        return os.getpgid(process.pid)
    except OSError:
        return None


def test_a_run_starts_its_server_and_outlives_it(tmp_path: Path):
    """kill -9 of the server in the middle of training: it is started again and given the weights of now."""
    job = subprocess.Popen(
        command(tmp_path, "own", ("rollout.engine=sglang", "steps=4", "rollout.retries=20"), ranks=1),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert job.stdout is not None
    text = ""
    for line in job.stdout:
        text += line
        if re.match(r"step +1/", line):
            break
    assert "step" in text, text
    servers = [p for p in psutil.Process(job.pid).children(recursive=True) if "sglang_process.py" in str(p.cmdline())]
    assert servers
    (rank,) = {p.cmdline()[p.cmdline().index("server") + 1] for p in servers}
    assert int(rank) in {p.pid for p in psutil.Process(job.pid).children(recursive=True)}
    groups = {os.getpgid(p.pid) for p in servers}
    for process in [*servers, *servers[0].children(recursive=True)]:
        process.send_signal(signal.SIGKILL)
    rest, _ = job.communicate(timeout=400)
    assert job.returncode == 0, text + rest
    lines = metrics(tmp_path, "own")
    assert [line["step"] for line in lines] == [0, 1, 2, 3]
    assert sum(line["rollout/server_restarts"] for line in lines) == 1
    assert all(line["rollout/logp_mismatch_max"] < 1e-4 for line in lines)
    log = tmp_path / "own" / "servers" / "server-0.log"
    assert log.read_text().count("The server is fired up") == 2
    # a server's command line names the rank that started it, and its children are of its group
    left = [p for p in psutil.process_iter() if rank in command_line(p) or group_of(p) in groups]
    assert not [p for p in left if p.status() != psutil.STATUS_ZOMBIE]
