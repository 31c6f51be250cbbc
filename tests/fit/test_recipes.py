"""The run files under specs/recipes: each lints, divides and fits, and training says what is missing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from megatron_bridge.fit.parameters import parameters_of
from megatron_bridge.model.shape import Layout, read_shape
from megatron_bridge.rollout.settings import gpus_of_server
from megatron_bridge.run_file import load_run
from trace_dsl.cli.main import app

FOLDER = Path("specs/recipes")
RECIPES = sorted(FOLDER.glob("*.yaml"))
# As published: parameters with embeddings, in billions.
MODELS = {"qwen3-1.7b": 1.72, "qwen3-8b": 8.19, "qwen3-32b": 32.76}


def test_there_are_recipes_for_1_8_and_64_gpus() -> None:
    assert {load_run(path, to_train=False).file.layout.layout.world for path in RECIPES} == {1, 8, 64}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_lints_without_a_finding(path: Path) -> None:
    result = CliRunner().invoke(app, ["lint", str(FOLDER / "../trace_8b.trace"), "--run", str(path)])
    assert (result.exit_code, result.stdout.strip()) == (0, "1 spec checked, nothing found")


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_its_name_says_its_layout(path: Path) -> None:
    run = load_run(path, to_train=False)
    file, layout = run.file, run.file.layout
    assert file.name == path.stem
    model, nodes, gpus = re.match(r"trace-(qwen3-[\d.]+b)-(\d+)n(\d+)g", path.stem).groups()
    assert run.policy_path.name == model
    assert layout.layout.world == int(nodes) * int(gpus)
    named = "".join(f"-{name}{size}" for name in ("tp", "pp", "cp") if (size := getattr(layout, name)) > 1)
    assert path.stem.endswith(f"{nodes}n{gpus}g{named}")
    assert layout.tp * layout.cp <= int(gpus), "what talks in every layer stays inside a node"
    if not file.rollout.running:  # every GPU of the node serves
        assert file.rollout.started.servers * gpus_of_server(file.rollout.started.arguments) == int(gpus)
    text = path.read_text(encoding="utf-8")
    assert f"trace-dsl fit {path}" in text
    assert f"hf download Qwen/Qwen3-{model[6:].upper()} --local-dir {FOLDER}/models/{model}" in text


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_it_fits_an_h100(path: Path) -> None:
    result = CliRunner().invoke(app, ["fit", str(path)])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("name", MODELS)
def test_the_configurations_are_those_of_the_models(name: str) -> None:
    shape = read_shape(FOLDER / "models" / name)
    assert round(parameters_of(shape, Layout(), 0).total / 1e9, 2) == MODELS[name]
    assert (shape.vocab_size, shape.rope_base, shape.norm_eps, shape.max_position) == (151936, 1e6, 1e-6, 40960)


def test_training_says_how_to_get_the_weights() -> None:
    path = FOLDER / "trace-qwen3-1.7b-1n1g.yaml"
    done = subprocess.run([sys.executable, "-m", "trace_dsl", "train", str(path)], capture_output=True, text=True)
    assert done.returncode == 2
    wanted = "(hf download Qwen/Qwen3-1.7B --local-dir specs/recipes/models/qwen3-1.7b), or name a directory"
    assert wanted in done.stderr
    assert "Traceback" not in done.stderr


def test_the_slurm_script_starts_torchrun_on_every_node(tmp_path: Path) -> None:
    for name, body in (("srun", 'printf "%s\\n" "$@"'), ("scontrol", "printf 'node-7\\nnode-8\\n'")):
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    job = {"SLURM_JOB_NODELIST": "node-[7-8]", "SLURM_JOB_NUM_NODES": "2", "SLURM_JOB_ID": "42"}
    done = subprocess.run(
        ["bash", str(FOLDER / "launch" / "slurm.sh"), "run.yaml", "a b=c", "--resume"],
        env=os.environ | job | {"PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    words = done.stdout.splitlines()
    assert words[:2] == ["--kill-on-bad-exit=1", "torchrun"]
    assert words[-5:] == ["-m", "megatron_bridge.train", "run.yaml", "a b=c", "--resume"]
    given = dict(zip(words[2:-5:2], words[3:-5:2], strict=True))
    assert given["--nnodes"] == "2"
    assert given["--nproc-per-node"] == "8"
    assert given["--rdzv-endpoint"] == "node-7:29500"


def test_the_kubernetes_job_has_the_ranks_of_its_run() -> None:
    job = yaml.safe_load((FOLDER / "launch" / "pytorchjob.yaml").read_text(encoding="utf-8"))["spec"]
    kinds = job["pytorchReplicaSpecs"].values()
    (container,) = job["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]["containers"]
    file = load_run(Path(container["args"][0]), to_train=False).file
    assert sum(kind["replicas"] for kind in kinds) * int(job["nprocPerNode"]) == file.layout.layout.world
    assert container["resources"]["limits"]["nvidia.com/gpu"] == int(job["nprocPerNode"])
