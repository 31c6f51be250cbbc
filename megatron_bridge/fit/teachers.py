"""The teachers of a run, and the bytes of them on one rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from megatron_bridge.fit.memory import FLOAT, Build, Places, layer_bytes
from megatron_bridge.fit.parameters import Widths, parameters_of
from megatron_bridge.model.shape import Layout, ModelShape
from megatron_bridge.run_file import RunFile
from trace_dsl.model import Ema, ModelTeacher, SelfTeacher
from trace_dsl.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherLoad:
    """A teacher that ranks hold. `what`: how its weights come about; shape: the policy's, or that of another model;
    average: in float32, beside its weights; share: the most of a response's tokens at which it is read, as the caps of
    the spans say.
    """

    name: str
    what: str
    shape: ModelShape
    average: bool
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherBytes:
    """Of all teachers, on a rank of one stage.

    weights, rows: wherever they are; brought: offloaded weights on the device while teachers read, one at a time;
    outputs: those of the output layers, which stay until the step's micro-batches are through; forward: what a pass
    holds; rows_at_once: hidden rows of one micro-batch.
    """

    weights: int
    brought: int
    outputs: int
    forward: int
    rows: int
    rows_at_once: int


def teachers_of(
    plan: Plan, file: RunFile, shape: ModelShape, models: Mapping[str, ModelShape]
) -> tuple[TeacherLoad, ...]:
    """The teachers that some step runs: copies of the policy, whose shape is `shape`, and other models, by name."""
    found = []
    for planned in plan.teachers:
        source, name = planned.teacher.source, planned.teacher.name
        if planned.last_step < 0:
            continue
        found.append(
            TeacherLoad(
                name=name,
                what=type(source.update).__name__.lower() if isinstance(source, SelfTeacher) else "model",
                shape=shape if isinstance(source, SelfTeacher) else models[name],
                average=_is_average(source) and file.precision == "bf16",
                share=_share(plan, name),
            )
        )
    return tuple(found)


def _is_average(source: SelfTeacher | ModelTeacher) -> bool:
    return isinstance(source, SelfTeacher) and isinstance(source.update, Ema)


def _share(plan: Plan, teacher: str) -> float:
    """The largest share of a response's tokens at which a teacher is read."""
    caps = {label.name: 1.0 if label.cap is None else label.cap for label in plan.labels}
    labels: set[str] = set()
    for gathered in plan.gathered:
        if gathered.need.payload.teacher == teacher:
            labels |= {label for r, _ in gathered.losses for label in plan.routes[r].route.labels}
            if gathered.need.everywhere or not gathered.losses:
                return 1.0
    return min(1.0, sum(caps.get(label, 1.0) for label in labels))


def teacher_bytes(
    teachers: Sequence[TeacherLoad], layout: Layout, stage: int, places: Places, build: Build, micro_batches: int
) -> TeacherBytes:
    """`places` are those of a micro-batch, of which a step has `micro_batches`."""
    last = stage == layout.pp - 1
    weights, outputs, forward, width = [], [], [], build.width
    for teacher in teachers:
        held, widths = parameters_of(teacher.shape, layout, stage), Widths.of(teacher.shape, layout.tp)
        weights.append((held.total * width, held.total * FLOAT if teacher.average else 0))
        outputs.append(widths.vocabulary * widths.hidden * width if last else 0)
        layer = layer_bytes(widths, places, build, qk_norm=teacher.shape.family.qk_norm)
        forward.append(layer + 2 * width * places.tokens * widths.hidden)
    taught = [int(places.predicted * t.share) * t.shape.hidden_size * width for t in teachers] if last else []
    return TeacherBytes(
        weights=sum(run + average for run, average in weights),
        brought=max((run + sum(outputs) - out for (run, _), out in zip(weights, outputs, strict=True)), default=0),
        outputs=sum(outputs),
        forward=max(forward, default=0),
        rows=micro_batches * sum(taught),
        rows_at_once=sum(taught),
    )
