"""The command: one run, several, one that is under way, previews, pictures, and what it refuses."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.run_report.cases import SPEC, line, make_run, write_lines
from trace_dsl.cli.main import app


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "runs" / "a")
    return tmp_path


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["report", *words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.stdout, result.stderr


def test_a_run_as_a_page(folder: Path) -> None:
    assert run("runs/a") == (0, "report.html: 1 run, 4 steps; open it in a browser\n", "")
    page = (folder / "report.html").read_text(encoding="utf-8")
    for said in (
        "Finished: all 4 steps.",
        "50.0% →",
        "75.0%",
        "key when correct",
        "Lowest advantages",
        "2 newly solved",
    ):
        assert said in page
    assert "trace-dsl preview runs/a/spec.trace --rollouts runs/a/rollouts/step_000000.jsonl" in page
    assert "<b>3</b>" not in page, "responses are text"
    assert not re.search(r"(src|href)=.?https?:", page), "the page is whole"
    assert not list(folder.glob("*.partial"))


def test_without_torch(folder: Path) -> None:
    program = (
        "import sys\nfrom trace_dsl.cli.main import app\n"
        "try:\n    app(sys.argv[1:])\nexcept SystemExit as end:\n    assert not end.code\n"
        "heavy = {'torch', 'numpy', 'megatron', 'transformers', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program, "report", "runs/a", "--previews"], check=True, capture_output=True)


def test_a_run_that_is_under_way(folder: Path) -> None:
    make_run(folder / "runs" / "b", done=2)
    make_run(folder / "runs" / "c", done=0)
    (folder / "runs" / "c" / "evaluations.jsonl").unlink()
    assert run("runs/b")[0] == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Not finished: 2 of 4 steps are done" in page
    assert "There is one evaluation so far" in page
    assert run("runs/c")[0] == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "No step is done yet" in page
    assert "There is no evaluation yet" in page
    assert "there is no train/route/… in it" in page


def test_an_older_runs_absent_metrics_are_told(folder: Path) -> None:
    lines = [{name: value for name, value in line(n).items() if "/" not in name} for n in range(4)]
    write_lines(folder / "runs" / "a" / "metrics.jsonl", lines)
    assert run("runs/a")[0] == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "Not in metrics.jsonl, or without a value: Entropy of the policy, Response length" in page
    assert "metrics.jsonl has no seconds of its steps." in page


def test_a_comparison_says_what_differs(folder: Path) -> None:
    make_run(folder / "runs" / "b", lr=5e-4, spec=SPEC.replace("nll(w=kl", "nll(w=2*kl"))
    assert run("runs/a", "runs/b")[1] == "report.html: 2 runs, 8 steps; open it in a browser\n"
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert '<tr><th scope="row">optim.lr</th><td>1e-05</td><td>0.0005</td></tr>' in page
    assert "a → b: what changes" in page
    assert "weight of nll: " in page
    assert page.count("Tokens with weight") >= 2
    make_run(folder / "runs" / "c")
    assert run("runs/a", "runs/c")[0] == 0
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "All settings are the same." in page
    assert "a → c: the same spec" in page


def test_runs_of_one_name_are_told_apart(folder: Path) -> None:
    make_run(folder / "other" / "a")
    assert run("runs/a", "other/a")[0] == 0
    assert "runs/a, other/a" in (folder / "report.html").read_text(encoding="utf-8")


def test_previews_stand_beside_the_page(folder: Path) -> None:
    (folder / "out").mkdir()
    code, out, _ = run("runs/a", "--previews", "--html", "out/a.html")
    assert code == 0
    assert "out/preview-a-0.html: 2 rollouts" in out
    assert (folder / "out" / "preview-a-0.html").is_file()
    assert 'href="preview-a-0.html"' in (folder / "out" / "a.html").read_text(encoding="utf-8")


def test_pictures_for_papers(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    code, out, _ = run("runs/a", "--png", "png", "--svg", "svg")
    assert code == 0
    assert (folder / "png" / "accuracy.png").read_bytes().startswith(b"\x89PNG")
    assert "<svg" in (folder / "svg" / "training-reward.svg").read_text(encoding="utf-8")
    assert len(list((folder / "png").iterdir())) == len(list((folder / "svg").iterdir())) > 10
    assert "png: " in out


def test_without_matplotlib(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "matplotlib" else found(name, *a))
    monkeypatch.delitem(sys.modules, "matplotlib", raising=False)
    code, _, error = run("runs/a", "--png", "png")
    assert code == 2
    assert "pip install 'trace-dsl[study]'" in error
    assert not (folder / "report.html").exists()


def test_what_cannot_be_read_or_written(folder: Path) -> None:
    assert run("gone")[0] == 2
    code, _, error = run("runs/a", "--html", "nowhere/report.html")
    assert code == 2
    assert "nowhere/report.html cannot be written: no such file or directory" in error
    (folder / "runs" / "a" / "spec.trace").write_text("rest: grop()\n", encoding="utf-8")
    assert run("runs/a", "--previews")[0] == 1
    assert run("runs/a")[0] == 0
    assert "this version finds errors in its spec.trace" in (folder / "report.html").read_text(encoding="utf-8")


def test_the_time_of_a_run_is_the_sum_of_its_phases(folder: Path) -> None:
    """A summary's seconds leave evaluations out, so they are not what the page takes apart."""
    run("runs/a")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "<dt>Time</dt><dd>15 s</dd>" in page
    assert 'aria-label="Shares of 15 s: ' in page


def test_what_a_teacher_sees_is_said(folder: Path) -> None:
    spec = "teacher = self(sync=10, sees=diagnosis)\nrest: fkl(w=schedule(0.5, anneal=linear(2)))\n"
    make_run(folder / "runs" / "taught", spec=spec)
    run("runs/taught")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert "copied every 10 steps, sees diagnosis; last run at step 1</p>" in page


def test_signs_are_explained_where_they_stand(folder: Path) -> None:
    """What is behind ± is said; lines for a change of the objective are spoken of where there was one."""
    run("runs/a")
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert re.search(r"\+25\.0 ± \d+\.\d points \(standard error\) on 4 problems", page)
    assert "Dashed upright lines" not in page
    (folder / "runs" / "a" / "changes.jsonl").write_text('{"step": 2}\n')
    run("runs/a")
    assert "Dashed upright lines" in (folder / "report.html").read_text(encoding="utf-8")
