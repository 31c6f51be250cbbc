"""A loss or a gradient that is not finite ends a real job before a weight is changed, and its batch can be read."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch

from megatron_bridge.training.microbatch import Share, cut
from megatron_bridge.training.stopped import read_stopped_batch
from tests.training.changed_job import NAN_STEP
from tests.training.jobs import metrics, train

pytestmark = [pytest.mark.distributed, pytest.mark.slow]
EVERY = ("checkpoint.every=1", "layout.tp=1")


@pytest.mark.parametrize(("layout", "ranks"), [("layout.dp=2", 2), ("layout.pp=3", 3)], ids=["dp2", "pp3"])
def test_a_nan_on_one_rank_stops_all_before_the_step(tmp_path: Path, layout: str, ranks: int) -> None:
    """The log-prob is at a rollout that rank 0 does not train on."""
    shared = ("spec=grpo.trace", "steps=4", *EVERY, layout)
    done = train(tmp_path, "run", *shared, ranks=ranks, check=False, change="nan log-prob")
    assert done.returncode != 0
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "training/loop.py" not in done.stderr  # no traceback of a rank
    found = re.match(
        rf"error: step {NAN_STEP} was not taken, no weight was changed: the loss of rest/grpo is nan at 1 of 32 "
        r"rollouts: (\d+) \(prompt (\d+)\); the norm of the gradient is nan, not finite for module\.\S*, .* and \d+ "
        r"more\. Its batch is in \S+, for megatron_bridge.training.stopped.read_stopped_batch\. --resume would repeat",
        errors[0],
    )
    assert found, errors[0]
    chosen = int(found[1])
    assert [line["step"] for line in metrics(tmp_path, "run")] == [0, 1]
    assert "The last checkpoint is" in done.stderr

    (path,) = (tmp_path / "run" / "stopped").iterdir()
    assert path.name == f"step_{NAN_STEP:06d}.pt"
    assert str(path) in errors[0]
    batch = read_stopped_batch(path)
    assert batch.step == NAN_STEP
    assert len(batch.rollouts) == 32
    assert math.isnan(batch.rollouts[chosen].logprobs[0])
    assert batch.rollouts[chosen].group == int(found[2])
    tokens = sum(len(rollout.token_ids) for rollout in batch.rollouts)
    assert batch.lowered.routing.weight_CT.shape == (1, tokens)
    place = sum(len(rollout.token_ids) for rollout in batch.rollouts[:chosen])
    assert batch.found.tokens == ((0, place),)
    micro_batches = cut(batch.rollouts, batch.lowered.routing, micro_batch=8, part=Share(), device=torch.device("cpu"))
    assert sum(len(one.target_T) for one in micro_batches) == tokens

    train(tmp_path, "run", *shared, ranks=ranks, flags=["--resume"])  # without the NaN
    assert [line["step"] for line in metrics(tmp_path, "run")] == [0, 1, 2, 3]
    assert all(math.isfinite(line["loss"]) for line in metrics(tmp_path, "run"))


@pytest.mark.parametrize(
    ("loss", "elements"), [("nll(w=3e38, per=const(1))", True), ("nll(w=1e38)", False)], ids=["gradient", "norm"]
)
def test_a_gradient_that_overflows_under_a_finite_loss_stops_the_run(tmp_path: Path, loss: str, elements: bool) -> None:
    """The gradient's elements, or their squares alone. Known failure: only the loss was looked at, and a step with such
    a gradient made every weight NaN."""
    spec = tmp_path / "huge.trace"
    spec.write_text(f"rest: {loss}\n")
    done = train(tmp_path, "run", f"spec={spec}", "steps=2", "checkpoint.every=1", ranks=2, check=False)
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert error.startswith("error: step 0 was not taken, no weight was changed: the norm of the gradient is ")
    assert "every loss is finite" in error
    assert "lower the weights of the losses" in error
    assert metrics(tmp_path, "run") == []
    assert not list((tmp_path / "run" / "checkpoints").glob("*"))
    batch = read_stopped_batch(tmp_path / "run" / "stopped" / "step_000000.pt")
    assert batch.found.tokens == ()
    assert bool(batch.found.parameters) == elements
    assert not math.isfinite(batch.found.grad_norm)


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    torch.save({"format": 0}, tmp_path / "old.pt")
    with pytest.raises(ValueError, match=r"old\.pt is no stopped batch of format 2"):
        read_stopped_batch(tmp_path / "old.pt")
