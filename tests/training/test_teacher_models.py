"""Other models as teachers, in whole jobs and in what is checked before them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from megatron_bridge.prepare import prepare_run
from tests.bridge.tiny import make_model
from tests.training.jobs import RUN, metrics, train
from trace_dsl.errors import RunFileError, SpecError

POLICY = Path("specs/demo/policy")
SPEC = Path("specs/demo/trace.trace").read_text()


def spec_with(folder: Path, statement: str) -> str:
    """The demo's objective with another teacher, as an override."""
    assert SPEC.count("self(sync=10, sees=diagnosis)") == 1
    (folder / "spec.trace").write_text(SPEC.replace("self(sync=10, sees=diagnosis)", statement))
    return f"spec={folder / 'spec.trace'}"


def other_model(folder: Path, **change: object) -> Path:
    """A small model with the demo's vocabulary and tokenizer."""
    make_model(folder / "other", tied=False, **{"vocab": 128, "layers": 1, "max_position": 256, **change})  # type: ignore[arg-type]
    shutil.copy(POLICY / "tokenizer.json", folder / "other" / "tokenizer.json")
    return folder / "other"


@pytest.mark.distributed
@pytest.mark.slow
def test_a_job_learns_from_it_and_resumes(tmp_path: Path) -> None:
    """The same losses on one rank and on two; a checkpoint carries no copy of a model that never changes."""
    other_model(tmp_path)
    spec = spec_with(tmp_path, 'model("other", sees=diagnosis)')
    train(tmp_path, "one", spec, "steps=3", ranks=1)
    train(tmp_path, "two", spec, "steps=3", ranks=2)
    one, two = metrics(tmp_path, "one"), metrics(tmp_path, "two")
    assert all(line["teacher_ran"] == 1 and line["kl_fraction"] > 0 for line in one)
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-5, abs=1e-7)
    kept = [path.name for path in (tmp_path / "one" / "checkpoints" / "step_000002").iterdir()]
    assert not [name for name in kept if "teacher" in name]
    shutil.rmtree(tmp_path / "one" / "checkpoints" / "step_000003")
    (tmp_path / "one" / "summary.json").unlink()
    train(tmp_path, "one", spec, "steps=3", ranks=1, flags=["--resume"])
    assert [line["loss"] for line in metrics(tmp_path, "one")] == [line["loss"] for line in one]


def problem(folder: Path, statement: str) -> str:
    with pytest.raises((RunFileError, SpecError)) as raised:
        prepare_run(Path(RUN), [spec_with(folder, statement)])
    return str(raised.value)


def test_what_does_not_fit_the_policy_is_told_before_any_process_starts(tmp_path: Path) -> None:
    found = problem(tmp_path, 'model("nowhere", sees=diagnosis)')
    assert f"spec.trace:5: the teacher `teacher`: no folder '{tmp_path / 'nowhere'}'" in found
    other = other_model(tmp_path)
    prepare_run(Path(RUN), [spec_with(tmp_path, f'model("{other}", sees=diagnosis)')])  # as it is it fits
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    first, second, *_ = tokenizer["model"]["vocab"]
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert f"its tokenizer gives {first!r} another number than the policy's" in problem(
        tmp_path, 'model("other", sees=diagnosis)'
    )
    other_model(tmp_path, max_position=128)
    assert "its context of 128 tokens" in problem(tmp_path, 'model("other", sees=diagnosis)')
    other_model(tmp_path, kv_heads=1)
    assert "1 key/value heads (num_key_value_heads) cannot be split over tp 2" in problem(
        tmp_path, 'model("other", sees=diagnosis)'
    )
    other_model(tmp_path, vocab=129)
    assert "has a vocabulary of 129 tokens, the policy 128" in problem(tmp_path, 'model("other", sees=diagnosis)')
    (other / "model.safetensors").unlink()
    other_model(tmp_path)
    (other / "model.safetensors").unlink()
    assert "holds no *.safetensors weights" in problem(tmp_path, 'model("other", sees=diagnosis)')


def test_fit_counts_its_weights(tmp_path: Path) -> None:
    """Those of its own shape, on every rank, and not those of a copy of the policy."""
    from megatron_bridge.fit.report import Assumptions, fit_run
    from megatron_bridge.teacher_models import teacher_shapes

    assumptions = Assumptions(device="cpu", memory=None)
    other = other_model(tmp_path)
    loaded, plan, _ = prepare_run(Path(RUN), [spec_with(tmp_path, f'model("{other}", sees=diagnosis)'), "layout.tp=1"])
    found = fit_run(loaded.file, loaded.shape, plan, assumptions, teacher_shapes(plan, loaded.spec_path))
    (held,) = [part.bytes for part in found.stages[0].held if part.name == "teachers' weights"]
    weights = load_file(other / "model.safetensors").values()
    assert held == 4 * sum(tensor.numel() for tensor in weights)
