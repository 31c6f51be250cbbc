"""The hooks of pre-commit and the examples of docs/ci.md: what they run is run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
HOOKS = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
CI = (ROOT / "docs/ci.md").read_text(encoding="utf-8")
EDITORS = (ROOT / "docs/editors.md").read_text(encoding="utf-8")
UGLY = "rest: grpo()\nkey :nll()\n"


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the specs of the examples and the command on its path."""
    (tmp_path / "specs").symlink_to(ROOT / "specs")
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin/trace-dsl"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m trace_dsl "$@"\n', encoding="utf-8")
    command.chmod(0o755)
    return tmp_path


def run(project: Path, command: str) -> subprocess.CompletedProcess[str]:
    path = f"{project / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path}
    return subprocess.run(
        ["bash", "-c", command], cwd=project, env=environment, capture_output=True, text=True, timeout=120
    )


# ----------------------------------------------------------------------------------------------------------- pre-commit


def test_the_manifest_is_one_that_pre_commit_reads() -> None:
    """https://pre-commit.com/#creating-new-hooks: these keys must be there; an entry is started with file names."""
    assert [hook["id"] for hook in HOOKS] == ["trace-dsl-lint", "trace-dsl-fmt"]
    for hook in HOOKS:
        assert set(hook) == {"id", "name", "description", "entry", "language", "files"}
        assert all(isinstance(value, str) for value in hook.values())
        assert hook["language"] == "python"
        assert re.search(hook["files"], "specs/a.trace")
        assert not re.search(hook["files"], "specs/a.traced")


def test_the_command_of_the_hooks_is_installed() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert {hook["entry"].split()[0] for hook in HOOKS} <= set(scripts)


def test_the_hooks_do_what_they_say(project: Path) -> None:
    (project / "a.trace").write_text(UGLY, encoding="utf-8")
    entries = {hook["id"]: hook["entry"] for hook in HOOKS}
    linted = run(project, f"{entries['trace-dsl-lint']} a.trace specs/trace_8b.trace")
    assert linted.returncode == 1
    assert "error[shadowed-route]" in linted.stdout
    assert run(project, f"{entries['trace-dsl-lint']} specs/trace_8b.trace").returncode == 0
    assert run(project, f"{entries['trace-dsl-fmt']} a.trace").returncode == 0
    assert (project / "a.trace").read_text(encoding="utf-8") == "rest: grpo()\nkey:  nll()\n"


def test_the_example_for_pre_commit_names_hooks_and_options_that_exist(project: Path) -> None:
    (example,) = (block for block in blocks(CI, "yaml") if block.startswith("repos:"))
    (repository,) = yaml.safe_load(example)["repos"]
    entries = {hook["id"]: hook["entry"] for hook in HOOKS}
    for hook in repository["hooks"]:
        command = [entries[hook["id"]], *hook.get("args", [])]
        assert run(project, f"{' '.join(command)} specs/demo/trace.trace").returncode == 0


# ------------------------------------------------------------------------------------------------------------ workflows


def workflow(name: str) -> dict[str, Any]:
    (found,) = (one for one in map(yaml.safe_load, blocks(CI, "yaml")) if one.get("name") == name)
    return found  # type: ignore[no-any-return]  # yaml has no types


def commands(name: str) -> list[str]:
    steps = workflow(name)["jobs"]["lint"]["steps"]
    return [step["run"] for step in steps if step.get("run", "").startswith("trace-dsl")]


def test_the_steps_of_the_annotating_workflow_pass_here_and_fail_on_errors(project: Path) -> None:
    for command in commands("specs"):
        assert run(project, command).returncode == 0, command
    (project / "specs").unlink()
    (project / "specs").mkdir()
    (project / "specs/a.trace").write_text(UGLY, encoding="utf-8")
    lint, fmt = (run(project, command) for command in commands("specs"))
    assert (lint.returncode, fmt.returncode) == (1, 1)
    assert lint.stdout.startswith(
        "::error file=specs/a.trace,line=2,endLine=2,title=shadowed-route,col=1,endColumn=11::"
    )
    assert "+key:  nll()" in fmt.stdout


def test_the_file_that_is_uploaded_is_the_one_that_is_written(project: Path) -> None:
    (command,) = commands("code scanning of specs")
    assert run(project, command).returncode == 0
    steps = workflow("code scanning of specs")["jobs"]["lint"]["steps"]
    log = json.loads((project / steps[-1]["with"]["sarif_file"]).read_text(encoding="utf-8"))
    assert log["version"] == "2.1.0"
    assert steps[-1]["if"] == "${{ !cancelled() }}"  # also after errors


# -------------------------------------------------------------------------------------------------------------- editors


def test_the_set_up_of_helix_starts_the_server() -> None:
    (block,) = blocks(EDITORS, "toml")
    settings = tomllib.loads(block)
    server = settings["language-server"]["trace-dsl"]
    assert [server["command"], *server["args"]] == ["trace-dsl", "lsp"]
    assert settings["language"][0]["language-servers"] == ["trace-dsl"]


def test_every_example_gives_settings_that_the_server_has() -> None:
    from trace_dsl.lsp.settings import read_settings

    (block,) = blocks(EDITORS, "toml")
    assert read_settings(tomllib.loads(block)["language-server"]["trace-dsl"]["config"]).problems == ()
    for language in ("lua", "elisp"):
        (example,) = blocks(EDITORS, language)
        assert '"trace-dsl"' in example
        assert '"lsp"' in example
        assert "runFile" in example
        assert example.count("(") == example.count(")")
        assert example.count("{") == example.count("}")
