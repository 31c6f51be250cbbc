"""Which checkpoints there are, told from their names and what they say of themselves."""

import json

import megatron_bridge.checkpoint as checkpoint
from megatron_bridge.checkpoint_files import (
    best_checkpoint,
    checkpoint_name,
    checkpoints,
    latest_checkpoint,
    note_accuracy,
)


def test_the_best_is_kept_beside_the_newest(tmp_path):
    for step, accuracy in ((2, 0.5), (4, 0.75), (6, 0.75), (8, None), (10, 0.25)):
        path = tmp_path / checkpoint_name(step)
        path.mkdir()
        (path / "meta.json").write_text(json.dumps({"step": step}))
        if accuracy is not None:
            note_accuracy(path, accuracy)
    assert best_checkpoint(tmp_path).name == "step_000004"
    checkpoint._prune(tmp_path, tmp_path / checkpoint_name(10), 2, {best_checkpoint(tmp_path)})
    assert [path.name for path in checkpoints(tmp_path)] == ["step_000004", "step_000008", "step_000010"]
    assert best_checkpoint(tmp_path / "nothing") is None


def test_partial_directories_are_ignored(tmp_path):
    assert latest_checkpoint(tmp_path / "nothing") is None
    for name in ("step_000001", "step_000003.partial", "step_000009.replaced", "step_x"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "meta.json").write_text("{}")
    (tmp_path / "step_000004").mkdir()  # no meta.json
    assert latest_checkpoint(tmp_path).name == "step_000001"
    (tmp_path / "latest").write_text("step_000003.partial\n")
    assert latest_checkpoint(tmp_path).name == "step_000001"


def test_names_sort_by_step(tmp_path):
    for step in (999999, 1000000, 40):
        (tmp_path / checkpoint_name(step)).mkdir()
        (tmp_path / checkpoint_name(step) / "meta.json").write_text("{}")
    assert [path.name for path in checkpoints(tmp_path)] == ["step_000040", "step_999999", "step_1000000"]
