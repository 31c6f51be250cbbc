"""What TRACE costs beside GRPO: seconds and memory of the training side of a step, on the same rollouts.

    python tools/bench_step.py                      # writes docs/benchmarks/step.md
    python tools/bench_step.py --rounds 3 --prompts 8 --json step.json

One process holds one run for each case and takes one optimizer step of each in turns, so that whatever else the machine
does reaches all alike. A step is what the trainer's loop does with rollouts that are there: routing, teachers, forward,
backward, update; no sampling, no verdicts, no files. The rollouts are drawn once, with a fixed seed, from the policy of
specs/demo, at the sizes of its run file.

- On CPU, time is CPU seconds of this process on one thread, the median over the rounds; a ratio is the median of the
  rounds' ratios. On CUDA, time is wall time to the end of the step's work.
- Memory is what tensors hold before the step, of this run alone, and the most that the step allocates beside it: on CPU
  from the allocation events that `torch.profiler` records, on CUDA from torch's allocator.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from bench_loss import peak_bytes
from rich.console import Console
from rich.table import Table
from transformers import AutoTokenizer

from megatron_bridge.device import megatron_runtime, training_device
from megatron_bridge.model.rope import forget_rotary
from megatron_bridge.model.shape import Layout
from megatron_bridge.parallel import start_parallel, stop_parallel
from megatron_bridge.prepare import prepare_run
from megatron_bridge.rank_log import RankLog
from megatron_bridge.run_directory import RunDirectory
from megatron_bridge.training.ahead import Collected
from megatron_bridge.training.interrupt import Interrupt
from megatron_bridge.training.job import stop_tokens
from megatron_bridge.training.loop import Loop

RUN = Path("specs/demo/run.yaml")
CONSOLE = Console()
GRPO, ACTIVE, AFTER = "GRPO", "TRACE, KL active", "TRACE, after the anneal"
# The most that each may cost beside GRPO: time and memory.
BARS = {ACTIVE: (1.3, None), AFTER: (1.02, 1.0)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A spec of the demo at a step of its run; `before` are earlier steps that are taken first."""

    name: str
    spec: str
    step: int
    before: tuple[int, ...]


CASES = (
    Case(name=GRPO, spec="grpo.trace", step=45, before=(0,)),
    Case(name=ACTIVE, spec="trace.trace", step=5, before=(0,)),
    Case(name=AFTER, spec="trace.trace", step=45, before=(0, 5)),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One case. Ratios are over GRPO's; `kl_tokens` and `read` are the tokens under a divergence and the sequences that
    the teacher read."""

    case: str
    seconds: float
    time_ratio: float
    held_bytes: int
    peak_bytes: int
    memory_ratio: float
    kl_tokens: int
    read: int
    tokens: int
    rollouts: int
    rounds: int
    device: str


class Bench:
    """One run that takes the case's step again and again, on rollouts that it is given."""

    def __init__(self, case: Case, options: Sequence[str], folder: Path) -> None:
        loaded, plan, _ = prepare_run(RUN, [*options, f"spec={case.spec}"])
        self.case = case
        tokenizer = AutoTokenizer.from_pretrained(loaded.policy_path)
        self._loop = Loop(
            loaded,
            plan,
            RunDirectory(path=folder / case.spec, resume_from=None),
            loaded.open_task(),
            tokenizer,
            stop_tokens(loaded.policy_path, tokenizer),
            Interrupt(),
            RankLog(folder / case.spec, rank=0),
        )

    def draw(self) -> Collected:
        """The rollouts of the first iteration."""
        return self._loop._sampler.collect(0)

    def step(self, collected: Collected, step: int | None = None) -> None:
        """One optimizer step as the loop takes it, as number `step` of the run."""
        self._loop._step = self.case.step if step is None else step
        self._loop._optimize(collected.rollouts, None, 0.0, collected, None)
        if training_device().type == "cuda":
            torch.cuda.synchronize()

    def taught(self, collected: Collected) -> tuple[int, int]:
        """(tokens under a divergence, sequences that a teacher reads) at the case's step."""
        self._loop._step = self.case.step
        _, lowered, _ = self._loop._lower(collected.rollouts, None)
        names = [t.teacher.name for t in self._loop._plan.teachers]
        tokens_of = [lowered.routing.teacher_tokens(name) for name in names]
        return sum(map(len, tokens_of)), sum(len(lowered.routing.row_of_T[t].unique()) for t in tokens_of)

    def seconds(self, collected: Collected) -> float:
        gc.collect()
        clock = time.perf_counter if training_device().type == "cuda" else time.process_time
        began = clock()
        self.step(collected)
        return clock() - began


def held_bytes() -> int:
    """What live tensors hold, each storage once."""
    gc.collect()
    if training_device().type == "cuda":
        return torch.cuda.memory_allocated()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tensors = [found for found in gc.get_objects() if isinstance(found, torch.Tensor)]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors if not t.is_sparse}
    return sum(storages.values())


def memory(case: Case, options: Sequence[str], folder: Path, collected: Collected) -> tuple[int, int]:
    """(held before the step, the most while it goes on), of a run that is alone."""
    forget_rotary()  # those of the runs before
    already = held_bytes()
    bench = Bench(case, options, folder)
    for step in (*case.before, case.step):  # the first one makes the optimizer's state
        bench.step(collected, step)
    held = held_bytes() - already
    return held, held + peak_bytes(lambda: bench.step(collected), training_device().type)


def measure(options: Sequence[str], rounds: int, folder: Path) -> list[Row]:
    """Every case, memory first."""
    collected = Bench(CASES[0], options, folder).draw()
    memories = [memory(case, options, folder, collected) for case in CASES]
    benches = [Bench(case, options, folder) for case in CASES]
    for bench in benches:
        for step in (*bench.case.before, bench.case.step):
            bench.step(collected, step)
    seconds: list[list[float]] = [[] for _ in CASES]
    for number in range(rounds):
        for n in range(len(CASES)):
            n = (n + number) % len(CASES)
            seconds[n].append(benches[n].seconds(collected))
    rows = []
    for bench, times, (held, peak) in zip(benches, seconds, memories, strict=True):
        kl_tokens, read = bench.taught(collected)
        rows.append(
            Row(
                case=bench.case.name,
                seconds=statistics.median(times),
                time_ratio=statistics.median(one / grpo for one, grpo in zip(times, seconds[0], strict=True)),
                held_bytes=held,
                peak_bytes=peak,
                memory_ratio=peak / memories[0][1],
                kl_tokens=kl_tokens,
                read=read,
                tokens=sum(len(r.token_ids) for r in collected.rollouts),
                rollouts=len(collected.rollouts),
                rounds=rounds,
                device=training_device().type,
            )
        )
    return rows


def show(rows: Sequence[Row]) -> None:
    table = Table()
    for heading in ("", "seconds", "time / GRPO", "at most", "MiB held", "MiB at most", "memory / GRPO", "at most"):
        table.add_column(heading, justify="right" if heading else "left")
    for row in rows:
        time_bar, memory_bar = BARS.get(row.case, (None, None))
        table.add_row(
            row.case,
            f"{row.seconds:.3f}",
            f"{row.time_ratio:.3f}",
            "" if time_bar is None else f"{time_bar:g}",
            f"{row.held_bytes / 2**20:.2f}",
            f"{row.peak_bytes / 2**20:.2f}",
            f"{row.memory_ratio:.3f}",
            "" if memory_bar is None else f"{memory_bar:g}",
        )
    CONSOLE.print(table)


def page(rows: Sequence[Row], command: str, note: str) -> str:
    """Markdown of the measured rows."""
    first, active = rows[0], rows[1]
    lines = [
        "# A step of TRACE beside one of GRPO",
        "",
        f"Written by `{command}`, whose docstring says how time and memory are",
        "measured: the training side of an optimizer step in one process, specs/demo/trace.trace beside",
        f"specs/demo/grpo.trace on the same rollouts of the demo's policy: {first.rollouts} rollouts with",
        f"{first.tokens} tokens. While its KL is active, {active.kl_tokens} tokens are under it, and the teacher reads",
        f"{active.read} of the sequences. On {first.device} in float32, {first.rounds} rounds in turns.",
        *([note] if note else []),
        "",
        "| | seconds | time / GRPO | at most | MiB held | MiB at most | memory / GRPO | at most |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        time_bar, memory_bar = BARS.get(row.case, (None, None))
        lines.append(
            f"| {row.case} | {row.seconds:.3f} | {row.time_ratio:.3f} | {'' if time_bar is None else f'{time_bar:g}'} "
            f"| {row.held_bytes / 2**20:.2f} | {row.peak_bytes / 2**20:.2f} | {row.memory_ratio:.3f} "
            f"| {'' if memory_bar is None else f'{memory_bar:g}'} |"
        )
    lines += [
        "",
        "While the KL is active, a second copy of the policy is held, the teacher. Its forward pass reads the private",
        "prompt and of each response that it teaches what stands before the last token that is taught. After the",
        "anneal neither is there, and a micro-batch carries the tensors that one of GRPO carries.",
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9, help="rounds; medians are shown")
    parser.add_argument("--prompts", type=int, help="prompts a step (default: those of the run file)")
    parser.add_argument("--json", type=Path, help="write the rows there, and no page")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/step.md"), help="the page")
    parser.add_argument("--note", default="", help="a sentence about the machine, for the page")
    args = parser.parse_args()
    torch.set_num_threads(1)
    options = ["layout.tp=1", *([] if args.prompts is None else [f"rollout.prompts={args.prompts}", "micro_batch=8"])]
    start_parallel(Layout(), seed=0)
    try:
        with megatron_runtime(), tempfile.TemporaryDirectory() as folder:
            rows = measure(options, args.rounds, Path(folder))
    finally:
        stop_parallel()
    show(rows)
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    else:
        args.out.write_text(page(rows, " ".join(("python", *sys.argv)), args.note), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
