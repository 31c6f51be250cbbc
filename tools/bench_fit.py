"""What `trace-dsl fit` estimates, beside the memory that real training steps take.

    python tools/bench_fit.py                      # every case; writes docs/benchmarks/fit.md
    python tools/bench_fit.py --case tp1 --json part.json
    python tools/bench_fit.py --report part.json other.json

Weights are random and made on the spot. Each case starts its ranks as processes joined by gloo. A rank first takes one
step of a tiny model, so that what is made once is there (code, buffers of the process groups), then builds the model,
makes the optimizer and takes two steps: from the second one on the optimizer has its state. Two figures a rank:

A case that says so writes a checkpoint then, as the trainer does; for the others the estimate leaves that out.

- tracked: the largest sum of live bytes that torch's allocator handed out, exact, from the events of `torch.profiler`.
- resident: the peak resident set (VmHWM, reset by writing 5 to /proc/self/clear_refs) over what was resident before the
  model was built, in a run of its own without the profiler. glibc is told to give blocks back at once
  (MALLOC_MMAP_THRESHOLD_, MALLOC_TRIM_THRESHOLD_), or what it keeps for later would be measured.

The estimate is that of the rank's pipeline stage, by the function that `trace-dsl fit` calls.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import socket
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist
from fit_cases import CASES, PROMPT, SHAPE, TINY, Case, settings_of
from peak_memory import peak_bytes
from rich.console import Console
from rich.table import Table

from megatron_bridge.annotation import Annotation, Problem
from megatron_bridge.device import megatron_runtime, training_device
from megatron_bridge.fit.estimate import StageMemory, batch_of, stages, total
from megatron_bridge.rollout.align import AlignedText
from megatron_bridge.tasks.base import PromptFormat
from trace_dsl.lint import lint_text
from trace_dsl.lowering.fused import DivergenceKernel, FusedRouting, PolicyGradientKernel
from trace_dsl.model import DivergenceKind

MALLOC = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
MIB = 2**20
PAGE = Path("docs/benchmarks/fit.md")


def estimates(case: Case) -> tuple[StageMemory, ...]:
    batch = batch_of(case.file, case.shape, PROMPT)
    found = stages(case.file, case.shape, case.teachers, batch=batch, device="cpu")
    return found if case.saved else tuple(replace(stage, saving=()) for stage in found)


# ------------------------------------------------------------------------------------------------------- in the ranks


def _steps(case: Case, steps: int = 2) -> None:
    """Build the model and its optimizer, and take steps on random sequences of full length."""
    from megatron.core import parallel_state

    from megatron_bridge.model.config import DTYPES
    from megatron_bridge.model.gpt import build_model
    from megatron_bridge.training.collect import Rollout
    from megatron_bridge.training.microbatch import Share, cut
    from megatron_bridge.training.optimize import make_trainer, train_step
    from megatron_bridge.training.saving import Saving
    from megatron_bridge.training.stopped import NotFinite
    from megatron_bridge.training.teacher import TeacherModel
    from megatron_bridge.training.timings import Timings

    file, shape = case.file, case.shape
    batch = batch_of(file, shape, PROMPT)
    draw = torch.Generator().manual_seed(0)
    rollouts = []
    for group in range(file.rollout.prompts * file.rollout.group_size):
        ids = torch.randint(0, shape.vocab_size, (batch.length,), generator=draw).tolist()
        prompt, response = tuple(ids[: -batch.response]), tuple(ids[-batch.response :])
        count = len(response)
        rollouts.append(
            Rollout(
                group=group,
                problem=Problem(prompt="", data=None),
                prompt_ids=prompt,
                token_ids=response,
                logprobs=(-9.7,) * count,
                weight_versions=(0,) * count,
                finish="length",
                aligned=AlignedText(text="", intervals=()),
                reward=1.0,
                annotation=Annotation(),
            )
        )
    tokens = sum(len(rollout.token_ids) for rollout in rollouts)
    weight_CT = torch.full((2, tokens), 1 / tokens)
    weight_CT[1, torch.arange(tokens) % batch.response >= case.taught * batch.response] = 0.0
    kernels = (PolicyGradientKernel(0.2, 0.28), DivergenceKernel(DivergenceKind.RKL, "teacher"))
    channels = 2 if case.taught else 1
    routing = FusedRouting(
        kernels=kernels[:channels],
        weight_CT=weight_CT[:channels],
        advantage_CT=torch.ones(channels, tokens),
        row_of_T=torch.arange(len(rollouts)).repeat_interleave(batch.response),
    )
    part = Share(
        dp_rank=parallel_state.get_data_parallel_rank(),
        dp=file.layout.dp,
        cp_rank=parallel_state.get_context_parallel_rank(),
        cp=file.layout.cp,
        multiple=file.layout.layout.sequence_multiple,
        pack_tokens=file.pack_tokens,
        fewest=file.layout.layout.fewest_micro_batches,
    )
    model = build_model(shape, file.layout.layout, dtype=DTYPES[file.precision], recompute=file.layout.recompute)
    trainer = make_trainer(model, file.optim, file.steps)
    teachers = []
    if case.taught:
        copy = build_model(shape, file.layout.layout, dtype=DTYPES[file.precision], recompute=file.layout.recompute)
        spec = lint_text("teacher = self(frozen, sees=diagnosis)\nrest: rkl(w=1)\n").spec
        assert spec is not None
        teachers = [TeacherModel(spec.teachers[0], copy, Asked(), Asked())]  # type: ignore[arg-type]
    device = training_device()
    micro_batches = cut(rollouts, routing, micro_batch=file.micro_batch, part=part, device=device, version=0)
    for _ in range(steps):
        done = train_step(
            trainer,
            micro_batches,
            teachers,
            part,
            temperature=1.0,
            vocab_size=shape.vocab_size,
            chunk_rows=file.chunk_rows,
        )
        assert not isinstance(done, NotFinite)
    if case.saved:
        with tempfile.TemporaryDirectory() as folder:
            # one folder for all ranks, and none that a tiny model left
            where = [Path(folder)]
            dist.broadcast_object_list(where, src=0)
            saving = Saving(where[0], file.checkpoint, trainer, Timings())
            extra: dict[str, object] = {}
            saving.begin(steps, {"policy": trainer.model}, extra=extra, meta={})
            if file.checkpoint.asynchronous:  # training goes on meanwhile
                train_step(trainer, micro_batches, teachers, part, temperature=1.0, vocab_size=shape.vocab_size)
            saving.finish()
            dist.barrier()


class Asked:
    """A task and a tokenizer to a teacher: its prompts are as long as the student's."""

    prompt_format = PromptFormat()

    def teacher_prompt(self, *_: object) -> str:
        return ""

    def encode(self, *_: object, **__: object) -> list[int]:
        return [1] * PROMPT


def _status(name: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def _resident_peak(case: Case) -> int:
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    _steps(case)
    return _status("VmHWM") - before


def rank(name: str, how: str, out: str) -> None:
    """One rank of one measurement."""
    from megatron_bridge.parallel import start_parallel, stop_parallel

    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    case = CASES[name]
    with megatron_runtime():
        start_parallel(case.file.layout.layout, 0)
        _steps(replace(case, shape=TINY), steps=1)
        measured = _resident_peak(case) if how == "resident" else peak_bytes(lambda: _steps(case), "cpu")
        Path(out, f"{how}-{os.environ['RANK']}").write_text(str(measured), encoding="utf-8")
        stop_parallel()


# ------------------------------------------------------------------------------------------------------------ outside


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Bytes of one rank. held: of the estimate, what is there all the time."""

    case: str
    rank: int
    held: int
    estimate: int
    tracked: int
    resident: int


def measure(name: str) -> list[Measured]:
    """The ranks of a case."""
    case = CASES[name]
    world, layout = case.file.layout.layout.world, case.file.layout
    found: dict[str, list[int]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for how in ("tracked", "resident"):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
            ranks = [
                subprocess.Popen(
                    [sys.executable, "-W", "ignore", __file__, "--rank", name, how, folder],
                    env=os.environ | MALLOC | shared | {"RANK": str(r), "LOCAL_RANK": str(r), "OMP_NUM_THREADS": "1"},
                )
                for r in range(world)
            ]
            if any([process.wait() for process in ranks]):
                raise SystemExit(f"{name}: a rank failed")
            found[how] = [int(Path(folder, f"{how}-{r}").read_text(encoding="utf-8")) for r in range(world)]
    by_stage = estimates(case)
    stage_of = [by_stage[r * layout.pp // world] for r in range(world)]
    return [
        Measured(
            case=name,
            rank=r,
            held=total(stage.held),
            estimate=stage.peak,
            tracked=found["tracked"][r],
            resident=found["resident"][r],
        )
        for r, stage in enumerate(stage_of)
    ]


def cells(row: Measured) -> tuple[str, ...]:
    return (
        row.case,
        str(row.rank),
        f"{row.held / MIB:.0f}",
        f"{row.estimate / MIB:.0f}",
        f"{row.tracked / MIB:.0f}",
        f"{row.estimate / row.tracked:.3f}",
        f"{row.resident / MIB:.0f}",
        f"{row.estimate / row.resident:.3f}",
    )


COLUMNS = ("case", "rank", "held", "estimate", "tracked", "estimate / tracked", "resident", "estimate / resident")


def show(rows: Sequence[Measured]) -> None:
    table = Table(*COLUMNS, title="MiB")
    for row in rows:
        table.add_row(*cells(row))
    Console(width=120).print(table)


def write_page(rows: Sequence[Measured]) -> None:
    """docs/benchmarks/fit.md."""
    far = [abs(row.estimate / measured - 1) for row in rows for measured in (row.tracked, row.resident)]
    sizes = f"{SHAPE.layers} layers, H {SHAPE.hidden_size}, F {SHAPE.ffn_size}, {SHAPE.heads} heads, "
    lines = [
        "# Estimated and measured memory",
        "",
        "Written by `python tools/bench_fit.py`: real training steps on CPU ranks, beside what `trace-dsl fit` "
        "estimates for them. How it is measured stands at the top of that file, the formulas [here](../fit.md).",
        "",
        f"A Qwen3 of {sizes}{SHAPE.kv_heads} key/value heads, V {SHAPE.vocab_size}, sequences of 512 tokens; torch "
        f"{torch.__version__.partition('+')[0]}. MiB of one rank; *held* is the part of the estimate that weights, "
        "gradients and optimizer are, *tracked* what torch's allocator handed out at most, *resident* what the process "
        "grew by at most.",
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
        *(f"| {' | '.join(cells(row))} |" for row in rows),
        "",
        f"The estimate that is furthest off differs by {100 * max(far):.1f}%.",
        "",
        "| case | settings |",
        "|---|---|",
        *(f"| {name} | {settings_of(CASES[name])} |" for name in dict.fromkeys(row.case for row in rows)),
    ]
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--case", action="append", choices=list(CASES), help="only these (default: all)")
    parser.add_argument("--json", type=Path, help="write the figures there, and no page")
    parser.add_argument("--report", type=Path, nargs="+", help="write the page of these files of figures; run nothing")
    parser.add_argument("--rank", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank:
        rank(*args.rank)
        return 0
    if args.report:
        rows = [Measured(**row) for path in args.report for row in json.loads(path.read_text(encoding="utf-8"))]
        by_stage = {name: estimates(CASES[name]) for name in {row.case for row in rows}}
        rows = [_estimated_again(row, by_stage[row.case]) for row in rows]
    else:
        rows = []
        for name in args.case or CASES:
            rows += measure(name)
            if args.json is not None:
                args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    show(rows)
    if args.json is None:
        write_page(rows)
    return 0


def _estimated_again(row: Measured, by_stage: Sequence[StageMemory]) -> Measured:
    layout = CASES[row.case].file.layout
    stage = by_stage[row.rank * layout.pp // layout.layout.world]
    return replace(row, held=total(stage.held), estimate=stage.peak)


if __name__ == "__main__":
    sys.exit(main())
