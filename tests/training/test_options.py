"""Specs with the options of the kernels, through real jobs: two updates on each batch, so that in the second one ratios
and importance weights are not 1."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.changed_job import PROXIMAL_SECONDS
from tests.training.jobs import metrics, train

pytestmark = [pytest.mark.distributed, pytest.mark.slow]

OPTIONS = ("steps=2", "minibatches=2", "evaluation.problems=8")
TOP_K = """\
spans error(cap=25%)
teacher = self(sync=2, sees=diagnosis)
error when wrong: jsd(0.5, w=0.5, topk=20, of=student, tail=bucket, temperature=2, anneal=linear) + grpo(w=0.5)
rest when has(diagnosis): grpo(anchor=mix(old, teacher, 0.5))
rest: k3(old, w=0.01) + grpo(tis=2)
"""


def test_top_k_anchor_and_importance(tmp_path: Path) -> None:
    """Ranks change nothing, and the teacher is run for what reads it."""
    (tmp_path / "spec.trace").write_text(TOP_K)
    for ranks in (1, 2):
        train(tmp_path, f"tp{ranks}", f"spec={tmp_path / 'spec.trace'}", *OPTIONS, ranks=ranks)
    one, two = (metrics(tmp_path, f"tp{ranks}") for ranks in (1, 2))
    for first, second in zip(one, two, strict=True):
        assert abs(first["loss"] - second["loss"]) < 1e-5
        assert first["optim/grad_norm"] == pytest.approx(second["optim/grad_norm"], rel=1e-3)
        assert first["teacher_ran"] == 1


def test_sequence_level_ratio(tmp_path: Path) -> None:
    """GSPO with the reward as advantage: minus the mean reward while the ratios are 1; its narrow clip holds after one
    update."""
    (tmp_path / "spec.trace").write_text("advantage = none\nrest: grpo(level=sequence, clip=(3e-4, 4e-4))\n")
    rate = ("optim.lr=1e-2", "optim.min_lr=1e-2", "optim.warmup=0")
    train(tmp_path, "gspo", f"spec={tmp_path / 'spec.trace'}", *OPTIONS, *rate, ranks=2)
    first, second = metrics(tmp_path, "gspo")
    assert first["loss"] == pytest.approx(-first["reward"], rel=1e-5)
    assert first["policy/clip_fraction"] == 0
    assert second["loss"] != pytest.approx(-second["reward"], rel=1e-5)


def test_truncated_importance_that_has_weight_in_some_steps_only(tmp_path: Path) -> None:
    """Before and after its schedule the log-probs that it reads are not measured, and not asked for."""
    (tmp_path / "spec.trace").write_text("rest: grpo(tis=2, w=0.5, start=1, anneal=linear(2)) + grpo()\n")
    train(tmp_path, "tis", f"spec={tmp_path / 'spec.trace'}", "steps=5", "evaluation.problems=8", ranks=1)
    weights = [line["train/route/rest/grpo/weight"] for line in metrics(tmp_path, "tis")]
    assert (weights[0], weights[-1]) == (0.0, 0.0)
    assert weights[1] > 0


def test_the_pass_before_the_updates_is_training_time(tmp_path: Path) -> None:
    """Each of the iteration's steps has its share of it."""
    (tmp_path / "spec.trace").write_text("rest: grpo(tis=2)\n")
    spec = f"spec={tmp_path / 'spec.trace'}"
    train(tmp_path, "timed", spec, "steps=4", *OPTIONS[1:], ranks=1, change="slow proximal pass")
    for line in metrics(tmp_path, "timed"):
        assert PROXIMAL_SECONDS / 2 < line["perf/train_seconds"] < PROXIMAL_SECONDS
        assert line["perf/sample_seconds"] < PROXIMAL_SECONDS / 2
