"""From a run file's settings to the peak memory of each pipeline stage's ranks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from megatron_bridge.chunk_rows import default_chunk_rows
from megatron_bridge.fit.memory import (
    Build,
    Places,
    activation_bytes,
    backward_bytes,
    layer_bytes,
    loss_bytes,
    optimizer_step_bytes,
    passes_in_flight,
    sampling_bytes,
    states,
)
from megatron_bridge.fit.parameters import Widths, parameters_of
from megatron_bridge.fit.saving import SavingBytes, saving_bytes
from megatron_bridge.fit.teachers import TeacherBytes, TeacherLoad, teacher_bytes
from megatron_bridge.model.shape import ModelShape
from megatron_bridge.run_file import RunFile

Device = Literal["cuda", "cpu"]
WIDTHS = {"fp32": 4, "bf16": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What every rank goes through in a step, at most: sequences are taken to be as long as they may be.

    tokens: of a micro-batch; micro_batches: of a data-parallel rank in a step; length: of a sequence, padded; response:
    tokens of it that are predicted.
    """

    tokens: int
    micro_batches: int
    length: int
    response: int
    packed: bool

    @property
    def predicted(self) -> int:
        """Response tokens of a micro-batch."""
        return -(-self.tokens * self.response // self.length)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One line of the table."""

    name: str
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StageMemory:
    """The ranks of one pipeline stage. `held` is there all the time; `teaching`, `training`, `update`, `sampling` and
    `saving` are what the phases of a run need beside it, at most one at a time; `outside` is what other processes take,
    `host` what of a rank is in host memory instead."""

    stage: int
    parameters: int
    held: tuple[Part, ...]
    teaching: tuple[Part, ...]
    training: tuple[Part, ...]
    update: tuple[Part, ...]
    sampling: tuple[Part, ...]
    saving: tuple[Part, ...] = ()
    host: tuple[Part, ...] = ()
    outside: tuple[Part, ...] = ()

    @property
    def phases(self) -> dict[str, tuple[Part, ...]]:
        return {
            "teaching": self.teaching,
            "training": self.training,
            "update": self.update,
            "sampling": self.sampling,
            "saving": self.saving,
        }

    @property
    def peak_phase(self) -> str:
        return max(self.phases, key=lambda name: total(self.phases[name]))

    @property
    def peak(self) -> int:
        """Of the training process."""
        return total(self.held) + total(self.phases[self.peak_phase])

    @property
    def total(self) -> int:
        """Of everything on the device."""
        return self.peak + total(self.outside)


def total(parts: Sequence[Part]) -> int:
    return sum(part.bytes for part in parts)


def batch_of(file: RunFile, shape: ModelShape, prompt_tokens: int) -> Batch:
    """The longest sequences that the run can have, cut into micro-batches."""
    response = file.rollout.max_response_tokens
    multiple = file.layout.layout.sequence_multiple
    length = -(-min(prompt_tokens + response, shape.max_position) // multiple) * multiple
    rows = file.rollout.prompts * file.rollout.group_size // (file.minibatches * file.layout.dp)
    fewest = file.layout.layout.fewest_micro_batches
    if file.pack_tokens is None:
        tokens = min(file.micro_batch, rows) * length
    else:  # shorter ones fill a pack to its end
        tokens = min(max(file.pack_tokens // multiple * multiple, length), -(-rows // fewest) * length)
    return Batch(
        tokens=tokens,
        micro_batches=max(-(-rows * length // tokens), fewest),
        length=length,
        response=min(response, length),
        packed=file.pack_tokens is not None,
    )


def stages(
    file: RunFile, shape: ModelShape, teachers: Sequence[TeacherLoad], *, batch: Batch, device: Device
) -> tuple[StageMemory, ...]:
    """The memory of each pipeline stage's ranks, without what other processes take."""
    return tuple(_stage(file, shape, teachers, batch, device, stage) for stage in range(file.layout.pp))


def _stage(
    file: RunFile, shape: ModelShape, teachers: Sequence[TeacherLoad], batch: Batch, device: Device, stage: int
) -> StageMemory:
    layout, width = file.layout, WIDTHS[file.precision]
    last = stage == layout.pp - 1
    widths, parameters = Widths.of(shape, layout.tp), parameters_of(shape, layout.layout, stage)
    build = Build(
        width=width, fused_norms=device == "cuda", sharded=layout.sp, recompute=layout.recompute, tp=layout.tp
    )
    places = Places(
        tokens=batch.tokens // layout.cp,
        length=batch.length // layout.cp,
        predicted=-(-batch.predicted // layout.cp),
        cp=layout.cp,
        packed=batch.packed,
    )
    sharing = layout.dp * layout.cp if file.optim.distributed else 1
    weights, gradients, optimizer = states(parameters.total, width=width, ranks=sharing)
    of_teachers = teacher_bytes(teachers, layout.layout, stage, places, build, batch.micro_batches)
    shown = _teachers(of_teachers, offload=file.teacher.offload and device == "cuda", device=device)
    responses = file.rollout.prompts * file.rollout.group_size
    layer = layer_bytes(widths, places, build, qk_norm=shape.family.qk_norm)
    in_flight = passes_in_flight(layout.layout, stage, batch.micro_batches)
    # of the model's end there is never more than one: its backward pass follows at once
    others, newest = (
        activation_bytes(parameters.layers // layout.vpp, layer, widths, places, build, last=end)
        for end in (False, last)
    )
    of_what = "micro-batches" if layout.vpp == 1 else f"passes of {parameters.layers // layout.vpp} layers"
    backward = backward_bytes(layer, widths, places, build)
    beside = [Part(name="backward pass", bytes=backward)]
    if last:
        rows = file.chunk_rows or default_chunk_rows(places.predicted, widths.vocabulary, device)
        loss = loss_bytes(widths, places, width=width, chunk_rows=rows, teachers=len(teachers), widened=device == "cpu")
        kept = (loss.matrix if parameters.tied else 0) + loss.rows
        if loss.peak > backward + kept:
            beside = [Part(name=f"loss ({min(rows, places.predicted)} rows of logits at a time)", bytes=loss.peak)]
        else:
            beside.append(Part(name="gradients of the output layer", bytes=kept))
    sampling: tuple[Part, ...] = ()
    if file.rollout.engine == "embedded":
        sampled = sampling_bytes(
            widths,
            parameters.layers,
            rows=min(file.rollout.max_batch, responses // (layout.dp * layout.cp)),
            context=batch.length,
            vocabulary=shape.vocab_size,
            width=width,
            last=last,
        )
        sampling = (Part(name="keys and values, and the draw", bytes=sampled),)
    saving = _saving(saving_bytes(file, parameters, teachers, stage=stage, width=width), device)
    foreach = device == "cuda" and file.transformer_impl == "local"
    return StageMemory(
        stage=stage,
        parameters=parameters.total,
        held=(
            Part(name="weights", bytes=weights),
            Part(name="gradients", bytes=gradients),
            Part(name="optimizer", bytes=optimizer),
            *shown.held,
            *saving.held,
        ),
        teaching=shown.teaching,
        training=(
            *shown.training,
            Part(
                name="activations" + (f" of {in_flight} {of_what}" if in_flight > 1 else ""),
                bytes=(in_flight - 1) * others + newest,
            ),
            *beside,
        ),
        update=(
            Part(
                name="Adam's update",
                bytes=optimizer_step_bytes(parameters, ranks=sharing, foreach=foreach),
            ),
        ),
        sampling=sampling,
        saving=saving.saving,
        host=(*shown.host, *saving.host),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Added:
    """What teachers, or checkpoints, add to the fields of `StageMemory`."""

    held: tuple[Part, ...] = ()
    teaching: tuple[Part, ...] = ()
    training: tuple[Part, ...] = ()
    saving: tuple[Part, ...] = ()
    host: tuple[Part, ...] = ()


def _saving(found: SavingBytes, device: Device) -> _Added:
    gathered = Part(name="optimizer's state, gathered for a checkpoint", bytes=found.gathered)
    copied = Part(name="copy of what a checkpoint is written from", bytes=found.copied)
    if device == "cpu":
        return _Added(held=(copied,) if copied.bytes else (), saving=(gathered,) if gathered.bytes else ())
    exchanged = Part(name="exchange of the optimizer's state", bytes=found.exchanged)
    return _Added(
        saving=(exchanged,) if exchanged.bytes else (),
        host=tuple(part for part in (gathered, copied) if part.bytes),
    )


def _teachers(found: TeacherBytes, *, offload: bool, device: Device) -> _Added:
    if not found.weights:
        return _Added()
    weights, forward = Part(name="teachers' weights", bytes=found.weights), Part(name="their pass", bytes=found.forward)
    rows = Part(name="teachers' hidden rows", bytes=found.rows)
    if device == "cpu":  # the device's memory is the host's
        kept = (rows,) if rows.bytes else ()
        return _Added(held=(weights,), teaching=(forward, *kept), training=kept)
    brought = Part(name="teachers' weights, one at a time", bytes=found.brought)
    at_once = Part(name="teachers' hidden rows of a micro-batch", bytes=found.rows_at_once)
    outputs = Part(name="teachers' output weights", bytes=found.outputs)
    return _Added(
        held=() if offload else (weights,),
        teaching=(brought, forward) if offload else (forward,),
        training=tuple(part for part in ((outputs,) if offload else ()) + (at_once,) if part.bytes),
        host=tuple(part for part in ((weights,) if offload else ()) + (rows,) if part.bytes),
    )
