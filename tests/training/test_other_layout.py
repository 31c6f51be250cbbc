"""A job that is killed under one layout goes on under another, and ends where the unbroken one does."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.training.jobs import metrics, train
from tests.training.test_faults import kill_tree, start, wait_for_step

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

STEPS = 4
# float32 noise of other orders of summation: losses and gradient norms, relative to the largest of the run
BOUND = 1e-5
LAYOUTS = {
    "dp2-distributed": ("layout.tp=1", "layout.dp=2", "optim.distributed=true"),
    "pp2-vpp2": ("layout.tp=1", "layout.pp=2", "layout.vpp=2"),
}


def _with_a_fourth_layer(directory: Path) -> Path:
    """The demo's policy with a layer more, which adds nothing before it is trained."""
    demo = Path("specs/demo/policy")
    shutil.copytree(demo, directory)
    weights = load_file(demo / "model.safetensors")
    for name in [name for name in weights if name.startswith("model.layers.2.")]:
        silent = name.endswith(("o_proj.weight", "down_proj.weight"))
        copy = weights[name].clone()
        weights[name.replace("layers.2.", "layers.3.")] = copy.zero_() if silent else copy
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((demo / "config.json").read_text())
    config |= {"num_hidden_layers": 4, "layer_types": [*config["layer_types"], config["layer_types"][-1]]}
    (directory / "config.json").write_text(json.dumps(config))
    return directory


def test_tp2_goes_on_under_other_layouts(tmp_path: Path) -> None:
    policy = _with_a_fourth_layer(tmp_path / "policy")
    shared = (f"steps={STEPS}", "evaluation.problems=8", f"policy={policy}")
    train(tmp_path, "whole", *shared, "layout.tp=2", ranks=2)
    job = start(tmp_path, "killed", *shared, "layout.tp=2", ranks=2)
    wait_for_step(job, 3)
    kill_tree(job)
    assert (tmp_path / "killed" / "checkpoints" / "step_000002").is_dir()
    whole = metrics(tmp_path, "whole")
    for name, layout in LAYOUTS.items():
        shutil.copytree(tmp_path / "killed", tmp_path / name)
        train(tmp_path, name, *shared, *layout, ranks=2, flags=["--resume"])
        found = metrics(tmp_path, name)
        assert [line["step"] for line in found] == list(range(STEPS))
        assert found[:2] == metrics(tmp_path, "killed")[:2]
        for metric in ("loss", "optim/grad_norm", "policy/entropy"):
            scale = max(abs(line[metric]) for line in whole)
            for one, other in zip(whole, found, strict=True):
                assert abs(one[metric] - other[metric]) < BOUND * scale, (name, metric, one["step"])
        assert [line["reward"] for line in found] == [line["reward"] for line in whole]
