"""A small study with real runs: stopped, gone on with, changed; every run is recorded once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from megatron_bridge.study.cells import prepare_cell, report_cells
from megatron_bridge.study.processes import start_run
from megatron_bridge.study.records import take_record
from megatron_bridge.study.settings import load_study
from tests.study.made import ROOT, write_study

pytestmark = pytest.mark.distributed
SPECS = ROOT / "specs" / "study"


def command(study: Path, *flags: str) -> list[str]:
    return [sys.executable, "-m", "trace_dsl", "study", str(study), "--work", str(study.parent / "work"), *flags]


def run(study: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(study, *flags), cwd=ROOT, capture_output=True, text=True, check=False)


def short_study(folder: Path, **changed: object) -> Path:
    """Two methods with one setting and one seed each; runs of two steps. `changed`: of the run file."""
    settings = yaml.safe_load((SPECS / "run.yaml").read_text())
    settings |= {
        "steps": 2,
        "micro_batch": 16,
        "spec": str(SPECS / "grpo.trace"),
        "policy": str(ROOT / "specs" / "demo" / "policy"),
    }
    settings["rollout"] |= {"prompts": 4, "group_size": 4}
    settings["evaluation"] |= {"problems": 16, "every": 1}
    settings |= changed
    (folder / "run.yaml").write_text(yaml.safe_dump(settings))
    return write_study(
        folder,
        run="run.yaml",
        policies={"weak": {"policy": str(ROOT / "specs" / "demo" / "policy"), "seeds": [1]}},
        methods={
            "grpo": {"spec": str(SPECS / "grpo.trace")},
            "random-mask": {"spec": str(SPECS / "trace_both.trace"), "set": {"task": "ledger-random"}},
        },
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return short_study(tmp_path_factory.mktemp("study"))


def records(study: Path) -> dict[str, float]:
    """By method, when the record of its run was written."""
    return {path.parts[-3]: path.stat().st_mtime for path in study.parent.glob("results/records/*/*/*/*.json")}


def test_no_run_is_begun_when_there_is_no_time(study: Path) -> None:
    ended = run(study, "--minutes", "0")
    assert (ended.returncode, records(study)) == (130, {})
    assert "the same command goes on" in ended.stderr


def test_a_stop_ends_what_is_under_way_and_the_same_command_goes_on(study: Path) -> None:
    process = subprocess.Popen(command(study), cwd=ROOT, stderr=subprocess.PIPE, text=True)
    log = study.parent / "work" / "weak.grpo.report.seed1.log"
    deadline = time.monotonic() + 120
    while not (log.exists() and "step    1/2" in log.read_text()) and not records(study):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=120)
    assert process.returncode == 130, told
    assert set(records(study)) <= {"grpo"}

    ended = run(study)
    assert ended.returncode == 0, ended.stderr
    assert set(records(study)) == {"grpo", "random-mask"}
    assert "weak report 2/2  weak/random-mask seed 1: eval " in ended.stderr
    assert not [path for path in (study.parent / "work").iterdir() if path.name != "specs" and path.suffix != ".lock"]

    found = json.loads((study.parent / "results" / "results.json").read_text())
    assert [one["method"] for one in found["methods"]] == ["base", "grpo", "random-mask"]
    assert found["methods"][1]["exposure"] == 0
    assert found["methods"][2]["exposure"] > 0
    for method in found["methods"][1:]:
        assert [point["step"] for point in method["curve"]["ood"]] == [0, 1, 2]
        assert method["curve"]["eval"][0]["mean"] == found["methods"][0]["accuracy"]["eval"]["mean"]


def test_what_is_recorded_is_not_made_again(study: Path) -> None:
    before = records(study)
    ended = run(study)
    assert ended.returncode == 0, ended.stderr
    assert records(study) == before
    assert "seed 1" not in ended.stderr


def test_a_record_of_another_study_is_refused_and_named(study: Path) -> None:
    run_file = study.parent / "run.yaml"
    before = run_file.read_text()
    run_file.write_text(before.replace("2e-4", "3e-4"))
    ended = run(study)
    run_file.write_text(before)
    assert ended.returncode == 2
    assert "changed since these runs were made" in ended.stderr
    assert "weak/grpo/report/seed1.json" in ended.stderr.replace(os.sep, "/")


def test_a_run_that_fails_ends_the_study_with_its_log(study: Path) -> None:
    (study.parent / "results" / "records" / "weak" / "grpo" / "report" / "seed1.json").unlink()
    work = study.parent / "work"
    (work / "weak.grpo.report.seed1").write_text("no directory")
    ended = run(study)
    assert ended.returncode == 1
    assert "error: weak/grpo seed 1: exit code 2, see " in ended.stderr
    assert (work / "weak.grpo.report.seed1.log").is_file()


def test_a_run_of_several_processes(tmp_path: Path) -> None:
    study = load_study(short_study(tmp_path, layout={"tp": 2}, steps=1))
    prepared = prepare_cell(study, report_cells(study, "weak", "grpo", ())[0], tmp_path / "work")
    assert not prepared.forked
    log = tmp_path / "log"
    arguments = [str(study.run_file), *prepared.overrides]
    assert start_run(arguments, log, forked=prepared.forked).wait() == 0, log.read_text()
    assert len(list((prepared.directory / "logs").glob("rank_*.log"))) == 2
    assert take_record(prepared, prepared.directory).steps("ood") == (0, 1)
