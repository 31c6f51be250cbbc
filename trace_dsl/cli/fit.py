"""`trace-dsl fit`: whether a run fits the memory of its devices, and how long its steps take."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from trace_dsl.cli.exits import ExitCode, refusing
from trace_dsl.cli.formats import OutputFormat, print_json
from trace_dsl.cli.terminal import console, print_row, print_wrapped
from trace_dsl.errors import RunFileError

if TYPE_CHECKING:
    from megatron_bridge.fit.estimate import StageMemory
    from megatron_bridge.fit.report import Assumptions, Fit

GIB = 2**30


class DeviceKind(StrEnum):
    CUDA = "cuda"
    CPU = "cpu"


def fit(
    run_file: Annotated[Path, typer.Argument(metavar="RUN.yaml", help="The run file.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key=value]...", help="Settings to change, such as layout.tp=4 precision=bf16."),
    ] = None,
    memory: Annotated[
        float | None, typer.Option(min=0.1, help="GiB of one device. Default: 80 for cuda, no limit for cpu.")
    ] = None,
    device: Annotated[DeviceKind, typer.Option(help="What ranks run on.")] = DeviceKind.CUDA,
    prompt_tokens: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens of the longest prompt. Default: 512, or what the context has room for."),
    ] = None,
    peak_tflops: Annotated[
        float | None,
        typer.Option(min=0.001, help="Of a device, dense. Default: an H100's, 989 in bf16 and 67 in fp32."),
    ] = None,
    utilisation: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="The share of the peak that a step is taken to reach.")
    ] = 0.4,
    output: Annotated[OutputFormat, typer.Option("--format", help="text for people, json for programs.")] = (
        OutputFormat.TEXT
    ),
) -> None:
    """Estimate the memory of each rank and the time of a step; of the policy, config.json is enough.

    Where it does not fit, what to change. Sequences are taken to be as long as they may be.

    Exits with 0 when it fits, 1 when it does not, 2 on bad input.

    Example: trace-dsl fit specs/demo/run.yaml layout.tp=1 --device cpu
    """
    # pydantic and yaml, which only commands that read a run file need; neither torch nor megatron-core
    from megatron_bridge.fit.report import PROMPT_TOKENS, Assumptions, fit_run
    from megatron_bridge.prepare import prepare_run
    from megatron_bridge.teacher_models import teacher_shapes

    with refusing():
        loaded, plan, _ = prepare_run(run_file, overrides or (), to_train=False)
        response, context = loaded.file.rollout.max_response_tokens, loaded.shape.max_position
        if prompt_tokens is not None and prompt_tokens + response > context:
            raise RunFileError(
                f"--prompt-tokens {prompt_tokens}: beside rollout.max_response_tokens = {response} the policy's "
                f"context of {context} has room for {context - response}"
            )
    limit = memory if memory is not None or device is DeviceKind.CPU else 80.0
    assumptions = Assumptions(
        device=device.value,
        memory=None if limit is None else int(limit * GIB),
        prompt_tokens=prompt_tokens or min(PROMPT_TOKENS, context - response),
        peak=None if peak_tflops is None else peak_tflops * 1e12,
        utilisation=utilisation,
    )
    found = fit_run(loaded.file, loaded.shape, plan, assumptions, teacher_shapes(plan, loaded.spec_path))
    if output is OutputFormat.JSON:
        print_json(run=str(run_file), ranks=loaded.file.layout.layout.world, **_as_json(found))
    else:
        _show(found, ranks=loaded.file.layout.layout.world)
    raise typer.Exit(ExitCode.FINE if found.fits else ExitCode.FINDINGS)


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"


def _lines(stage: StageMemory) -> list[tuple[str, int, str]]:
    """What is held, the fullest phase, and what others take: (name, bytes, group)."""
    groups = {"": stage.held, stage.peak_phase: stage.phases[stage.peak_phase], "outside": stage.outside}
    return [(part.name, part.bytes, group) for group, parts in groups.items() for part in parts]


def _show(found: Fit, *, ranks: int) -> None:
    screen = console()
    batch, stage, time = found.batch, found.fullest, found.time
    a_rank = f"{ranks} ranks" if ranks > 1 else "1 rank"
    print_wrapped(
        screen,
        Text(
            f"{a_rank}; {batch.micro_batches} micro-batches a step of up to {batch.tokens} tokens, in sequences of up "
            f"to {batch.length} ({batch.response} of them response)"
        ),
    )
    table = Table(box=None, pad_edge=False, show_header=True)
    where = f" of pipeline stage {stage.stage}" if len(found.stages) > 1 else ""
    table.add_column(f"GiB of a rank{where}")
    table.add_column("", justify="right")
    for name, size, group in _lines(stage):
        when = f" (while {_WHILE[group]})" if group in _WHILE and stage.peak_phase == group else ""
        table.add_row(Text(f"  {name}{when}"), _gib(size))
    table.add_row(Text("total", style="bold"), Text(_gib(stage.total), style="bold"))
    screen.print(table)
    if len(found.stages) > 1:
        print_row(screen, Text("stages: "), [f"{s.stage}: {_gib(s.total)}" for s in found.stages])
    on_host = max((s.host for s in found.stages), key=lambda parts: sum(part.bytes for part in parts))
    if on_host:
        print_row(screen, Text("in host memory, GiB of a rank: "), [f"{p.name} {_gib(p.bytes)}" for p in on_host])
    _show_verdict(found)
    print_wrapped(
        screen,
        Text(
            f"a step: about {time.seconds:.2g} s without rollouts, of {time.operations / 1e12:.3g} TFLOP a rank, at an "
            f"assumed {time.utilisation:.0%} of {time.peak / 1e12:g} TFLOP/s"
            + (f", {time.bubble - 1:.0%} longer by the pipeline's bubble" if time.bubble > 1 else "")
        ),
    )
    for note in found.notes:
        print_wrapped(screen, Text(f"note: {note}"))


_WHILE = {
    "teaching": "teachers read",
    "training": "training",
    "sampling": "sampling",
    "update": "the optimizer works",
    "saving": "a checkpoint is written",
}


def _show_verdict(found: Fit) -> None:
    screen, memory = console(), found.assumptions.memory
    if memory is None:
        return
    if found.fits:
        print_wrapped(screen, Text(f"fits: {_gib(memory - found.fullest.total)} of {_gib(memory)} GiB are left"))
        return
    over = found.fullest.total - memory
    print_wrapped(screen, Text(f"does not fit: {_gib(over)} GiB more than the {_gib(memory)} of a device", style="red"))
    for change in found.changes:
        verdict = "fits" if change.fits else "not enough alone"
        print_wrapped(screen, Text(f"  {' '.join(change.settings)}: {_gib(change.total)} GiB, {verdict}"))
    if not any(change.fits for change in found.changes):
        advice = "  nothing here makes it fit: use more devices, shorter responses or a smaller model"
        print_wrapped(screen, Text(advice))


def _as_json(found: Fit) -> dict[str, Any]:
    assumptions: Assumptions = found.assumptions
    return {
        "fits": found.fits,
        "memory": assumptions.memory,
        "peak": found.fullest.total,
        "device": assumptions.device,
        "prompt_tokens": assumptions.prompt_tokens,
        "batch": {
            "micro_batches": found.batch.micro_batches,
            "tokens": found.batch.tokens,
            "length": found.batch.length,
            "response": found.batch.response,
        },
        "stages": [
            {
                "stage": stage.stage,
                "parameters": stage.parameters,
                "total": stage.total,
                "fullest_phase": stage.peak_phase,
                **{
                    name: [{"name": part.name, "bytes": part.bytes} for part in parts]
                    for name, parts in (
                        ("held", stage.held),
                        *stage.phases.items(),
                        ("host", stage.host),
                        ("outside", stage.outside),
                    )
                },
            }
            for stage in found.stages
        ],
        "teachers": [{"name": t.name, "what": t.what, "average": t.average, "share": t.share} for t in found.teachers],
        "time": {
            "seconds": found.time.seconds,
            "operations": found.time.operations,
            "bubble": found.time.bubble,
            "peak": found.time.peak,
            "utilisation": found.time.utilisation,
        },
        "notes": list(found.notes),
        "changes": [{"settings": list(c.settings), "total": c.total, "fits": c.fits} for c in found.changes],
    }
