"""Jobs on the task of docs/data.md: annotated by a server or by the policy, resumed, stopped."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.annotate.server import serving
from tests.pages import ROOT, blocks, newcomer

pytestmark = pytest.mark.distributed
KEY = "sk-canary-0123456789"
SERVER = "task.annotator={kind: openai, base_url: '%s', model: '%s', api_key_env: TEST_KEY%s}"
SMALL = ("rollout.prompts=4", "evaluation.problems=4", "checkpoint.every=2", "steps=4", "save_rollouts_every=1")


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as base:
        yield base


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the page."""
    place = newcomer(tmp_path_factory.mktemp("own"))
    page = blocks((ROOT / "docs" / "data.md").read_text(encoding="utf-8"))
    for block in page:
        if block.title is not None:
            (place / block.title).write_text(block.text, encoding="utf-8")
    (made,) = (block.text for block in page if block.kind == "python" and block.title is None)
    subprocess.run([sys.executable, "-c", made], cwd=place, check=True)
    return place


def train(folder: Path, name: str, *overrides: str, flags: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TEST_KEY": KEY, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "trace_dsl", "train", "sums.yaml", f"name={name}", *SMALL, *overrides, *flags]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def metrics(folder: Path, name: str) -> list[dict[str, Any]]:
    lines = (folder / "runs" / name / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if not re.match("perf|time|annotator", k)} for line in lines]


def asked(url: str) -> dict[str, int]:
    """How many requests the server had, by model."""
    with urllib.request.urlopen(url) as reply:
        return json.load(reply)["seen"]


def rollouts(folder: Path, name: str, step: int) -> list[dict[str, Any]]:
    return [json.loads(x) for x in (folder / f"runs/{name}/rollouts/step_{step:06d}.jsonl").read_text().splitlines()]


def test_a_server_annotates_and_a_run_goes_on_exactly(folder: Path, url: str) -> None:
    """Going on from step 2 gives the problems and numbers of the unbroken run, and with another number of prompts an
    iteration the problem that is next. The key is nowhere.
    """
    server = SERVER % (url, "good:job", "")
    done = train(folder, "whole", server)
    assert done.returncode == 0, done.stderr[-3000:]
    run = folder / "runs" / "whole"
    shown = [rollouts(folder, "whole", step) for step in range(4)]
    texts = {(r["prompt"], r["response"]) for step in shown for r in step if r["response"].strip()}
    assert asked(url)["good:job"] == len(texts)
    for r in (r for step in shown for r in step if r["response"].strip()):
        assert r["diagnosis"] == ("insight" if r["reward"] >= 1 else "sign_error")
        (span,) = r["spans"]
        assert (span["start"], span["end"]) == (0, len(r["response"].split("\n")[0]))
    written = [path for path in folder.rglob("*") if path.is_file() and ".venv" not in path.parts]
    assert len(written) > 20
    assert not any(KEY.encode() in path.read_bytes() for path in written)
    assert KEY not in done.stdout + done.stderr

    whole, prompts = metrics(folder, "whole"), [r["prompt"] for r in shown[2]]
    shutil.rmtree(run / "checkpoints" / "step_000004")
    (run / "checkpoints" / "latest").write_text("step_000002\n")
    shutil.copytree(run, folder / "runs" / "more")
    done = train(folder, "whole", server, flags=("--resume",))
    assert done.returncode == 0, done.stderr[-3000:]
    assert metrics(folder, "whole") == whole

    done = train(folder, "more", server, "seed=1", "task.data.shuffle=false", flags=("--resume",))
    assert done.returncode == 1
    assert "error: task.data.shuffle, seed: not what the checkpoint was trained on; going on would skip" in done.stderr
    assert "Traceback" not in done.stderr

    done = train(folder, "more", server, "rollout.prompts=2", flags=("--resume",))
    assert done.returncode == 0, done.stderr[-3000:]
    assert [r["prompt"] for r in rollouts(folder, "more", 2)] == prompts[:8]


def test_garbage_stops_the_run_and_one_rank_of_two_asks(folder: Path, url: str) -> None:
    done = train(folder, "garbage", SERVER % (url, "garbage", ", retries: 0, concurrency: 1"), "layout.tp=2")
    assert done.returncode == 1
    assert "responses, over task.annotator.max_failures = 0.5: " in done.stderr
    assert "Traceback" not in done.stderr
    # more than half of the distinct responses failed, then no more were asked about
    assert 0 < asked(url)["garbage"] <= 16 // 2 + 1


def test_a_key_that_is_not_set_is_told_before_a_process_starts(folder: Path, url: str) -> None:
    server = (SERVER % (url, "good", "")).replace("TEST_KEY", "NO_SUCH_KEY")
    done = train(folder, "keyless", server)
    assert done.returncode == 2
    assert done.stderr == "error: task.annotator.api_key_env: the environment variable NO_SUCH_KEY is not set\n"


def test_the_policy_annotates_itself(folder: Path) -> None:
    """The demo's policy cannot: the question alone fills its context, which costs the spans and nothing else."""
    done = train(folder, "self", "task.annotator={kind: self, max_tokens: 16, max_failures: 0.0}", "steps=2")
    assert done.returncode == 0, done.stderr[-3000:]
    last = json.loads((folder / "runs/self/metrics.jsonl").read_text().splitlines()[-1])
    assert last["annotator/too_long"] == 16
    assert last["annotator/failed_fraction"] == last["rollout/annotated_fraction"] == 0.0
