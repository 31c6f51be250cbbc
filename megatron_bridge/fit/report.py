"""Whether a run fits its devices, and which settings would make it fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from megatron_bridge.fit.duration import H100_PEAK, UTILISATION, StepTime, step_time
from megatron_bridge.fit.estimate import Batch, Device, Part, StageMemory, batch_of, stages
from megatron_bridge.fit.teachers import TeacherLoad, teachers_of
from megatron_bridge.model.shape import ModelShape, layout_problems
from megatron_bridge.rollout.settings import gpus_of_server, memory_share
from megatron_bridge.run_file import RunFile, size_problems
from trace_dsl.plan import Plan
from trace_dsl.plan.measurements import measurements, needs_proximal

GIB = 2**30
PROMPT_TOKENS = 512
RESERVE = 4 * GIB  # of a GPU: CUDA's context, NCCL's buffers, what the allocator cannot use
SGLANG_SHARE = 0.88  # what SGLang takes where it is not told


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """What the run file does not say. memory: bytes of a device, None where there is no limit; peak: operations a
    second of a device."""

    device: Device = "cuda"
    memory: int | None = 80 * GIB
    prompt_tokens: int = PROMPT_TOKENS
    peak: float | None = None
    utilisation: float = UTILISATION


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Settings, as on the command line, and what the fullest rank would hold with them."""

    settings: tuple[str, ...]
    total: int
    fits: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """The estimate of a run. `fits` is True without a limit. changes: what helps, where it does not fit."""

    stages: tuple[StageMemory, ...]
    batch: Batch
    teachers: tuple[TeacherLoad, ...]
    time: StepTime
    assumptions: Assumptions
    notes: tuple[str, ...]
    changes: tuple[Change, ...]

    @property
    def fullest(self) -> StageMemory:
        return max(self.stages, key=lambda stage: stage.total)

    @property
    def fits(self) -> bool:
        return self.assumptions.memory is None or self.fullest.total <= self.assumptions.memory


def fit_run(
    file: RunFile,
    shape: ModelShape,
    plan: Plan,
    assumptions: Assumptions,
    models: Mapping[str, ModelShape] | None = None,
) -> Fit:
    """The estimate of a checked run file. models: the shapes of teachers that are other models, by name."""
    teachers = teachers_of(plan, file, shape, models or {})
    batch = batch_of(file, shape, assumptions.prompt_tokens)
    earlier = int(any(measurements(plan, step) for step in range(file.steps)))
    earlier += int(needs_proximal(plan, range(file.steps)))
    fit = Fit(
        stages=_with_others(file, shape, teachers, assumptions),
        batch=batch,
        teachers=teachers,
        time=step_time(
            shape,
            file,
            batch,
            teachers,
            earlier_passes=earlier,
            peak=assumptions.peak or H100_PEAK[file.precision],
            utilisation=assumptions.utilisation,
        ),
        assumptions=assumptions,
        notes=tuple(_notes(file, assumptions)),
        changes=(),
    )
    return fit if fit.fits else replace(fit, changes=tuple(_changes(file, shape, fit)))


def _with_others(
    file: RunFile, shape: ModelShape, teachers: tuple[TeacherLoad, ...], assumptions: Assumptions
) -> tuple[StageMemory, ...]:
    """The stages' memory, with what servers and the runtime take of a GPU."""
    batch = batch_of(file, shape, assumptions.prompt_tokens)
    found = stages(file, shape, teachers, batch=batch, device=assumptions.device)
    if assumptions.device == "cpu" or assumptions.memory is None:
        return found
    outside = [Part(name="CUDA, NCCL, fragmentation (assumed)", bytes=RESERVE)]
    if file.rollout.engine == "sglang" and not file.rollout.running:
        share = memory_share(file.rollout.started.arguments)
        name = "SGLang (its default, assumed)" if share is None else f"SGLang (--mem-fraction-static {share:g})"
        outside.append(Part(name=name, bytes=int((SGLANG_SHARE if share is None else share) * assumptions.memory)))
    return tuple(replace(stage, outside=tuple(outside)) for stage in found)


def _notes(file: RunFile, assumptions: Assumptions) -> Iterator[str]:
    rollout = file.rollout
    if rollout.engine == "sglang" and rollout.running:
        yield "servers that run already (rollout.url, .urls) are taken to be on other devices"
    elif rollout.engine == "sglang" and assumptions.device == "cuda":
        gpus = rollout.started.servers * gpus_of_server(rollout.started.arguments)
        yield f"SGLang is started on {gpus} GPU{'s' if gpus > 1 else ''} of the first machine, which ranks share"
    if assumptions.device == "cpu" and file.teacher.offload:
        yield "teacher.offload: a run on CPUs refuses it, a teacher's weights are in host memory there already"
    if assumptions.device == "cuda" and file.transformer_impl is None:
        yield "transformer-engine is taken to be installed: with local layers Adam's update holds more"


def _changes(file: RunFile, shape: ModelShape, fit: Fit) -> Iterator[Change]:
    """Each change alone; where none of them is enough, the first ones together that are."""
    alone = [_try(change(file), shape, fit) for change in _CANDIDATES]
    helping = [change for change in alone if change is not None and change.total < fit.fullest.total]
    yield from helping
    if any(change.fits for change in helping):
        return
    together = Change(settings=(), total=fit.fullest.total, fits=False)
    for candidate in _CANDIDATES:
        changed = candidate(file)
        added = _try(changed, shape, fit)
        if added is None or added.total >= together.total:
            continue
        together = replace(added, settings=(*together.settings, *added.settings))
        file = changed[1]
        if together.fits:
            yield together
            return


Changed = tuple[tuple[str, ...], RunFile] | tuple[None, RunFile]


def _try(changed: Changed, shape: ModelShape, fit: Fit) -> Change | None:
    """A change with its total; None where it changes nothing or cannot be."""
    settings, file = changed
    if settings is None or layout_problems(shape, file.layout.layout) or any(size_problems(file)):
        return None
    assumptions = fit.assumptions
    total = max(stage.total for stage in _with_others(file, shape, fit.teachers, assumptions))
    return Change(settings=settings, total=total, fits=assumptions.memory is None or total <= assumptions.memory)


def _set(file: RunFile, **settings: Any) -> Changed:
    """The file with `group__name=value` in place, and those settings as on the command line."""
    written = []
    for name, value in settings.items():
        group, _, leaf = name.rpartition("__")
        written.append(f"{f'{group}.' if group else ''}{leaf}={str(value).lower()}")
        if group:
            inner = getattr(file, group).model_copy(update={leaf: value})
            file = file.model_copy(update={group: inner})
        else:
            file = file.model_copy(update={leaf: value})
    return tuple(written), file


def _sharded_optimizer(file: RunFile) -> Changed:
    if file.optim.distributed or file.layout.dp * file.layout.cp == 1:
        return None, file
    return _set(file, optim__distributed=True)


def _half_precision(file: RunFile) -> Changed:
    return (None, file) if file.precision == "bf16" else _set(file, precision="bf16")


def _sequence_parallel(file: RunFile) -> Changed:
    return (None, file) if file.layout.sp or file.layout.tp == 1 else _set(file, layout__sp=True)


def _offloaded_teachers(file: RunFile) -> Changed:
    return (None, file) if file.teacher.offload else _set(file, teacher__offload=True)


def _written_at_once(file: RunFile) -> Changed:
    return _set(file, checkpoint__asynchronous=False) if file.checkpoint.asynchronous else (None, file)


def _not_interleaved(file: RunFile) -> Changed:
    return (None, file) if file.layout.vpp == 1 else _set(file, layout__vpp=1)


def _fewer_sampled(file: RunFile) -> Changed:
    if file.rollout.engine != "embedded" or file.rollout.max_batch < 8:
        return None, file
    return _set(file, rollout__max_batch=file.rollout.max_batch // 4)


def _one_sequence(file: RunFile) -> Changed:
    if file.pack_tokens is not None:
        return _set(file, pack_tokens=file.pack_tokens // 2)
    return (None, file) if file.micro_batch == 1 else _set(file, micro_batch=1)


def _recomputed(file: RunFile) -> Changed:
    return (None, file) if file.layout.recompute else _set(file, layout__recompute=True)


def _smaller_chunks(file: RunFile) -> Changed:
    return (None, file) if file.chunk_rows is not None else _set(file, chunk_rows=256)


def _more_tensor_parallel(file: RunFile) -> Changed:
    """Twice the tensor parallel ranks, out of the data parallel ones where there are any."""
    layout = file.layout
    if layout.dp % 2 == 0:
        return _set(file, layout__tp=2 * layout.tp, layout__dp=layout.dp // 2)
    return _set(file, layout__tp=2 * layout.tp)


# In the order of what they cost a run; each is a function of the file, and gives None where it has it already.
_CANDIDATES: tuple[Callable[[RunFile], Changed], ...] = (
    _sharded_optimizer,
    _half_precision,
    _sequence_parallel,
    _offloaded_teachers,
    _written_at_once,
    _fewer_sampled,
    _one_sequence,
    _not_interleaved,
    _smaller_chunks,
    _recomputed,
    _more_tensor_parallel,
)
