"""A run with everything that watches it: W&B without a network, torch's profiler, the share of a given peak."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from wandb.proto import wandb_internal_pb2

from megatron_bridge.log_settings import ProfileSettings, WandbSettings, wandb_missing
from megatron_bridge.training.profiling import StepProfiler
from tests.training.jobs import RUN, SMALL, environment, metrics
from trace_dsl.errors import RunFileError

pytestmark = pytest.mark.distributed
STEPS, PROFILED = 4, (1, 3)
BLOCK = 32768  # of the log that W&B writes, LevelDB's format


def job(output: Path, *overrides: str, packages: Path | None = None) -> subprocess.Popen[str]:
    """A run of one process; `packages` is where Python looks for packages first."""
    overrides = (*SMALL, "layout.tp=1", f"steps={STEPS}", f"output={output}", "name=run", *overrides)
    known = {name: value for name, value in environment().items() if not name.startswith("WANDB_")}
    if packages is not None:
        known["PYTHONPATH"] = os.pathsep.join([str(packages), known.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", "megatron_bridge.train", RUN, *overrides],
        env=known,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def finish(running: subprocess.Popen[str]) -> None:
    _, said = running.communicate(timeout=300)
    assert running.returncode == 0, said


def records(path: Path) -> Iterator[Any]:
    """What W&B would send, out of the file that it writes without a network."""
    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (left := BLOCK - at % BLOCK) < 7:
            at += left
            continue
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or its last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


def history(record: Any) -> dict[str, Any]:
    return {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is stopped by a signal, and goes on."""
    output = tmp_path_factory.mktemp("runs")
    watched = (
        "logging={wandb: {project: tests, mode: offline}, peak_tflops: 0.5}",
        f"profile={{steps: {list(PROFILED)}}}",
    )
    running = job(output, *watched)
    assert running.stderr is not None
    assert any(re.match(r"step +2/", line) for line in running.stderr)
    running.send_signal(signal.SIGTERM)
    finish(running)
    assert 2 <= len(metrics(output, "run")) < STEPS
    finish(job(output, *watched, "--resume"))
    return output


def test_wandb_has_the_numbers_of_the_log_under_their_names(output: Path) -> None:
    """In one W&B run, though the process was another after the stop."""
    files = sorted((output / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert len(files) == 2
    found = [record for path in files for record in records(path)]
    runs = {(r.run.run_id, r.run.project, r.run.display_name) for r in found if r.WhichOneof("record_type") == "run"}
    assert runs == {((output / "run" / "wandb_run_id").read_text().strip(), "tests", "run")}
    sent: dict[int, dict[str, Any]] = {}
    for record in found:
        if record.WhichOneof("record_type") == "history":
            row = history(record)
            sent[row["_step"]] = {name: value for name, value in row.items() if not name.startswith("_")}
    lines = metrics(output, "run")
    assert sorted(sent) == list(range(STEPS + 1))  # the last one is the evaluation after the run
    assert set(sent[STEPS]) == {"evaluation/accuracy", "evaluation/mean_tokens"}
    for line in lines:
        step = line.pop("step")
        del line["time"]
        assert sent[step] == {name: value for name, value in line.items() if value is not None}


def test_every_metric_is_documented(output: Path) -> None:
    text = Path("docs/metrics.md").read_text(encoding="utf-8")
    names = {
        re.sub(r"^train/route/.*/", "train/route/<loss>/", name) for line in metrics(output, "run") for name in line
    }
    assert not {name for name in names if f"`{name}`" not in text} - {"step", "time"}


def test_the_trace_shows_the_parts_of_the_profiled_steps(output: Path) -> None:
    traces = sorted((output / "run" / "profile").iterdir())
    # the stop came while the first was on
    assert [path.name for path in traces][-1].endswith(f"_{PROFILED[1]:06d}_rank_0.json.gz")
    for path in traces:
        first, end = map(int, re.match(r"steps_(\d+)_(\d+)_rank_0", path.name).groups())  # type: ignore[union-attr]
        with gzip.open(path, "rt", encoding="utf-8") as file:
            marks = [
                event.get("name") for event in json.load(file)["traceEvents"] if event.get("cat") == "user_annotation"
            ]
        assert marks.count("forward_backward") == marks.count("teacher") == end - first
        assert "rollout" in marks


def test_the_share_of_the_peak(output: Path) -> None:
    for line in metrics(output, "run"):
        assert line["perf/mfu"] == pytest.approx(line["perf/model_tflops"] / 0.5)
        assert line["perf/mfu"] > 0


def test_wandb_is_not_imported_unless_asked_for(tmp_path: Path) -> None:
    (tmp_path / "packages").mkdir()
    (tmp_path / "packages" / "wandb.py").write_text("raise RuntimeError('wandb was imported')\n")
    finish(job(tmp_path, "steps=1", packages=tmp_path / "packages"))
    assert metrics(tmp_path, "run")[0]["perf/mfu"] is None


def test_wandb_without_a_key_or_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    ((setting, message),) = wandb_missing(WandbSettings(project="p"))
    assert setting == "logging.wandb"
    assert "WANDB_API_KEY is not set: export it, or set logging.wandb.mode to offline" in message
    assert not list(wandb_missing(WandbSettings(project="p", mode="offline")))
    assert not list(wandb_missing(None))
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    assert not list(wandb_missing(WandbSettings(project="p")))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ((_, message),) = wandb_missing(WandbSettings(project="p"))
    assert "pip install 'trace-dsl[wandb]'" in message


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_nsys_needs_cuda(tmp_path: Path) -> None:
    with pytest.raises(RunFileError, match=r"profile\.tool: nsys needs a CUDA device"):
        StepProfiler(ProfileSettings(steps=[0, 1], tool="nsys"), tmp_path, rank=0)
