"""Floating-point operations of a training step on one rank, and the seconds they take at a stated utilisation."""

from __future__ import annotations

from dataclasses import dataclass

from megatron_bridge.fit.estimate import Batch
from megatron_bridge.fit.parameters import Widths, parameters_of
from megatron_bridge.fit.teachers import TeacherLoad
from megatron_bridge.model.shape import ModelShape
from megatron_bridge.run_file import RunFile

# Dense, without sparsity, as NVIDIA's data sheet of the H100 SXM gives them; float32 without TF32, which is torch's
# default.
H100_PEAK = {"bf16": 989e12, "fp32": 67e12}
UTILISATION = 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """One optimizer step of the slowest pipeline stage, without rollouts. operations: of one rank; bubble: by how much
    waiting for other stages makes the step longer."""

    operations: float
    bubble: float
    peak: float
    utilisation: float

    @property
    def seconds(self) -> float:
        return self.operations * self.bubble / (self.peak * self.utilisation)


def forward_operations(shape: ModelShape, file: RunFile, batch: Batch) -> float:
    """Of one micro-batch through the layers of a stage: 2 a parameter and token, and 2 s A a token for causal
    attention over s places (products with keys and values, half of them masked)."""
    layout = file.layout
    w, parameters = Widths.of(shape, layout.tp), parameters_of(shape, layout.layout, 0)
    tokens = batch.tokens / layout.cp
    return parameters.layers * tokens * (2.0 * parameters.layer + 2.0 * batch.length * w.attention)


def step_time(
    shape: ModelShape,
    file: RunFile,
    batch: Batch,
    teachers: tuple[TeacherLoad, ...],
    *,
    earlier_passes: int,
    peak: float,
    utilisation: float,
) -> StepTime:
    """A training pass is three forward passes, four with recompute; every teacher one, and `earlier_passes` of the
    policy itself. The loss is 6 N H v for N rows of logits, and 2 N H v more for each teacher and earlier pass, at the
    share of the tokens that it reads."""
    layout = file.layout
    w = Widths.of(shape, layout.tp)
    forward = forward_operations(shape, file, batch)
    passes = (4 if layout.recompute else 3) + earlier_passes
    of_teachers = sum(forward_operations(teacher.shape, file, batch) for teacher in teachers)
    rows = batch.predicted / layout.cp
    hidden = (6.0 + 2.0 * earlier_passes) * w.hidden + sum(2.0 * t.share * t.shape.hidden_size for t in teachers)
    return StepTime(
        operations=batch.micro_batches * (passes * forward + of_teachers + rows * hidden * w.vocabulary),
        bubble=1 + (layout.pp - 1) / (layout.vpp * batch.micro_batches),
        peak=peak,
        utilisation=utilisation,
    )
