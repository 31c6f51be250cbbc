"""What each kind of teacher costs beside a step of GRPO: memory and seconds of its pass, its update and the whole step.

    python tools/bench_teacher.py                   # writes docs/benchmarks/teacher.md
    python tools/bench_teacher.py --rounds 3 --json teacher.json

A Qwen3 with random weights, large enough that its weights count, one rank, real optimizer steps on random sequences: a
policy gradient at every token and, with a teacher, a reverse KL at a quarter of them, the second quarter of each
response. The teacher that is another model is larger, and is written and read as a Hugging Face directory.

- Memory: each case in a process of its own. What live tensors hold before a step, and the most that the teacher's pass
  and the whole step allocate beside it: on CPU from the allocation events that `torch.profiler` records, on CUDA from
  torch's allocator. Of an offloaded teacher what waits in host memory is left out; on CPU, where host and device are
  one, its copies for the pass are made all the same.
- Seconds: all cases in one process, in turns, on one policy; medians over the rounds, a ratio is the median of the
  rounds' ratios. On CPU, CPU seconds of one thread; on CUDA, wall time to the end of the work. `update` is the copy of
  the policy's weights that a synced teacher takes when it is due, or the step of a moving average; a step has it for
  the latter alone.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from bench_fit import Asked
from bench_step import held_bytes
from fit_cases import PROMPT, SHAPE
from peak_memory import peak_bytes
from rich.console import Console
from rich.table import Table

from megatron_bridge.annotation import Annotation, Problem
from megatron_bridge.device import megatron_runtime, training_device
from megatron_bridge.model.gpt import build_model
from megatron_bridge.model.hf import load_hf
from megatron_bridge.model.shape import Layout, ModelShape, read_shape
from megatron_bridge.parallel import start_parallel, stop_parallel
from megatron_bridge.rollout.align import AlignedText
from megatron_bridge.run_settings import OptimizerSettings
from megatron_bridge.training.collect import Rollout
from megatron_bridge.training.microbatch import MicroBatch, Share, cut
from megatron_bridge.training.optimize import Trainer, make_trainer, train_step
from megatron_bridge.training.stopped import NotFinite
from megatron_bridge.training.teacher import TeacherModel
from trace_dsl.lint import lint_text
from trace_dsl.lowering.fused import DivergenceKernel, FusedRouting, PolicyGradientKernel
from trace_dsl.model import DivergenceKind, ModelTeacher

PAGE = Path("docs/benchmarks/teacher.md")
POLICY = replace(SHAPE, vocab_size=4096, hidden_size=256, ffn_size=768, heads=4, kv_heads=2, layers=4, max_position=256)
LARGER = replace(POLICY, hidden_size=384, ffn_size=1152, heads=6, layers=6, tied=False)
SEQUENCES, MICRO_BATCH, RESPONSE = 8, 2, 64
MIB = 2**20
GRPO = "GRPO, no teacher"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A teacher as a spec declares it; None: none."""

    name: str
    teacher: str | None
    offload: bool = False


CASES = (
    Case(name=GRPO, teacher=None),
    Case(name="synced copy", teacher="self(sync=10)"),
    Case(name="frozen copy", teacher="self(frozen)"),
    Case(name="moving average", teacher="self(ema=0.1)"),
    Case(name="another, larger model", teacher='model("larger")'),
    Case(name="synced copy, offloaded", teacher="self(sync=10)", offload=True),
    Case(name="moving average, offloaded", teacher="self(ema=0.1)", offload=True),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes: what is held before a step, and what pass and step come to at most, with it."""

    held: int
    teaching: int
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    teaching: float
    update: float
    step: float


# ------------------------------------------------------------------------------------------------------- one process


def write_larger(folder: Path) -> None:
    """The other model's Hugging Face directory."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(
        vocab_size=LARGER.vocab_size,
        hidden_size=LARGER.hidden_size,
        intermediate_size=LARGER.ffn_size,
        num_hidden_layers=LARGER.layers,
        num_attention_heads=LARGER.heads,
        num_key_value_heads=LARGER.kv_heads,
        head_dim=LARGER.head_dim,
        max_position_embeddings=LARGER.max_position,
        tie_word_embeddings=LARGER.tied,
    )
    Qwen3ForCausalLM(config).save_pretrained(folder)


def model_of(shape: ModelShape) -> torch.nn.ModuleList:
    return build_model(shape, Layout())


def micro_batches(*, taught: bool) -> list[MicroBatch]:
    """Of random sequences; the same ones each time."""
    draw = torch.Generator().manual_seed(0)
    rollouts = []
    for group in range(SEQUENCES):
        ids = torch.randint(0, POLICY.vocab_size, (PROMPT + RESPONSE,), generator=draw).tolist()
        rollouts.append(
            Rollout(
                group=group,
                problem=Problem(prompt="", data=None),
                prompt_ids=tuple(ids[:PROMPT]),
                token_ids=tuple(ids[PROMPT:]),
                logprobs=(-9.0,) * RESPONSE,
                weight_versions=(0,) * RESPONSE,
                finish="length",
                aligned=AlignedText(text="", intervals=()),
                reward=1.0,
                annotation=Annotation(),
            )
        )
    tokens = SEQUENCES * RESPONSE
    place_T, channels = torch.arange(tokens) % RESPONSE, 2 if taught else 1
    weight_CT = torch.full((channels, tokens), 1 / tokens)
    weight_CT[1:, (place_T < RESPONSE // 4) | (place_T >= RESPONSE // 2)] = 0
    kernels = (PolicyGradientKernel(0.2, 0.28), DivergenceKernel(DivergenceKind.RKL, "teacher"))
    routing = FusedRouting(
        kernels=kernels[:channels],
        weight_CT=weight_CT,
        advantage_CT=torch.ones(channels, tokens),
        row_of_T=torch.arange(SEQUENCES).repeat_interleave(RESPONSE),
    )
    return cut(rollouts, routing, micro_batch=MICRO_BATCH, part=Share(), device=training_device(), version=0)


class Bench:
    """One case on a policy that may be shared with others."""

    def __init__(self, case: Case, trainer: Trainer, larger: Path) -> None:
        self._trainer, self._batches = trainer, micro_batches(taught=case.teacher is not None)
        self._wanted = [batch.routing.teacher_tokens("teacher") for batch in self._batches]
        self._teachers: list[TeacherModel] = []
        if case.teacher is not None:
            spec = lint_text(f"teacher = {case.teacher}\nrest: rkl(w=1)\n").spec
            assert spec is not None
            (declared,) = spec.teachers
            other = isinstance(declared.source, ModelTeacher)
            model = model_of(read_shape(larger) if other else POLICY)
            if other:
                load_hf(model, larger)
            self._teachers = [TeacherModel(declared, model, Asked(), Asked(), offload=case.offload)]  # type: ignore[arg-type]
        self.copy()

    def copy(self) -> None:
        """The weights that a synced teacher takes when it is due, the others at the start."""
        for teacher in self._teachers:
            teacher.before_step(self._trainer.model, 0)

    def follow(self) -> None:
        for teacher in self._teachers:
            teacher.after_step(self._trainer.model)

    def teach(self) -> None:
        for teacher in self._teachers:
            teacher.hidden_rows(self._batches, self._wanted, Share())

    def step(self) -> None:
        done = train_step(
            self._trainer, self._batches, self._teachers, Share(), temperature=1.0, vocab_size=POLICY.vocab_size
        )
        assert not isinstance(done, NotFinite)
        self.follow()

    @property
    def waiting(self) -> int:
        """Bytes of offloaded weights in memory that a GPU would not have them in."""
        if training_device().type == "cuda":
            return 0
        return sum(p.nbytes for t in self._teachers if t.offloaded for p in t.model.parameters())


def trainer_of() -> Trainer:
    return make_trainer(model_of(POLICY), OptimizerSettings(lr=1e-5), 1000)


def memory(case: Case, larger: Path) -> Memory:
    already = held_bytes()
    bench = Bench(case, trainer_of(), larger)
    for _ in range(2):
        bench.step()
    held = held_bytes() - already - bench.waiting
    teaching, step = (held + peak_bytes(work, training_device().type) for work in (bench.teach, bench.step))
    return Memory(held=held, teaching=teaching, step=step)


def clocked(work: Callable[[], None]) -> float:
    on_gpu = training_device().type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    began = clock()
    work()
    if on_gpu:
        torch.cuda.synchronize()
    return clock() - began


def seconds(rounds: int, larger: Path) -> list[list[Seconds]]:
    """Of every case, round by round."""
    trainer = trainer_of()
    benches = [Bench(case, trainer, larger) for case in CASES]
    for bench in benches:
        bench.step()
    found: list[list[Seconds]] = [[] for _ in CASES]
    for number in range(rounds):
        for n in range(len(CASES)):
            n = (n + number) % len(CASES)
            bench, moving = benches[n], "ema" in (CASES[n].teacher or "")
            found[n].append(
                Seconds(
                    teaching=clocked(bench.teach),
                    update=clocked(bench.follow if moving else bench.copy),
                    step=clocked(bench.step),
                )
            )
    return found


def one_memory(case: Case, larger: Path, out: Path) -> None:
    start_parallel(Layout(), seed=0)
    with megatron_runtime():
        out.write_text(json.dumps(asdict(memory(case, larger))), encoding="utf-8")
    stop_parallel()


# -------------------------------------------------------------------------------------------------------- all of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One case; ratios are over GRPO's step."""

    case: str
    held_bytes: int
    pass_bytes: int
    step_bytes: int
    memory_ratio: float
    pass_ratio: float
    update_ratio: float
    step_ratio: float
    step_seconds: float
    rounds: int
    device: str


def measure(rounds: int, folder: Path) -> list[Row]:
    larger = folder / "larger"
    write_larger(larger)
    memories = []
    for case in CASES:
        out = folder / "memory.json"
        alone = multiprocessing.get_context("fork").Process(target=one_memory, args=(case, larger, out))
        alone.start()
        alone.join()
        if alone.exitcode:
            raise SystemExit(f"{case.name}: its process failed")
        memories.append(Memory(**json.loads(out.read_text(encoding="utf-8"))))
    start_parallel(Layout(), seed=0)
    with megatron_runtime():
        times = seconds(rounds, larger)
    stop_parallel()
    base = [one.step for one in times[0]]

    def ratio(values: list[float]) -> float:
        return statistics.median(value / grpo for value, grpo in zip(values, base, strict=True))

    return [
        Row(
            case=case.name,
            held_bytes=held.held,
            pass_bytes=held.teaching,
            step_bytes=max(held.step, held.teaching),
            memory_ratio=max(held.step, held.teaching) / memories[0].step,
            pass_ratio=ratio([one.teaching for one in took]),
            update_ratio=ratio([one.update for one in took]),
            step_ratio=ratio([one.step for one in took]),
            step_seconds=statistics.median(one.step for one in took),
            rounds=rounds,
            device=training_device().type,
        )
        for case, held, took in zip(CASES, memories, times, strict=True)
    ]


NOTES = """\
- A teacher is held while the plan can still need it, and run only in steps in which a token has weight on it: once that
  is over a step is [one of GRPO](step.md).
- It reads each response up to its last token that is taught, behind its own prompt. Its hidden rows there are all that
  is kept of the pass; on a GPU they wait in host memory, and come back for the loss of their micro-batch.
- `teacher.offload: true` in the run file keeps its weights in host memory. The pass brings them, one teacher at a time;
  its output weight stays until the step's micro-batches are through. Results do not change by a bit.
- In bfloat16 a moving average has a float32 copy beside it, as what a step moves it by would be lost: 4 bytes a
  parameter more, in host memory too where it is offloaded.
"""
COLUMNS = ("", "MiB held", "MiB in the pass", "MiB at most", "memory / GRPO", "pass", "update", "step", "step, s")


def cells(row: Row) -> tuple[str, ...]:
    taught = row.case != GRPO
    return (
        row.case,
        *(f"{size / MIB:.1f}" if size else "" for size in (row.held_bytes, row.pass_bytes * taught, row.step_bytes)),
        f"{row.memory_ratio:.3f}",
        *(f"{ratio:.3f}" if taught else "" for ratio in (row.pass_ratio, row.update_ratio)),
        f"{row.step_ratio:.3f}",
        f"{row.step_seconds:.2f}",
    )


def show(rows: Sequence[Row]) -> None:
    table = Table(*COLUMNS)
    for row in rows:
        table.add_row(*cells(row))
    Console(width=150).print(table)


def page(rows: Sequence[Row], command: str, note: str) -> str:
    """Markdown of the measured rows."""
    first = rows[0]
    lines = [
        "# What a teacher costs",
        "",
        f"Written by `{command}`, whose docstring says what is measured and how. A Qwen3 of {POLICY.layers} layers, H "
        f"{POLICY.hidden_size}, V {POLICY.vocab_size}; the larger teacher has {LARGER.layers} layers, H "
        f"{LARGER.hidden_size} and an output layer of its own. {SEQUENCES} sequences of {PROMPT + RESPONSE} tokens in "
        f"micro-batches of {MICRO_BATCH}; a quarter of the response tokens is taught. On {first.device} in float32, "
        f"{first.rounds} rounds in turns; times are ratios to GRPO's step." + (f" {note}" if note else ""),
        "",
        f"| {' | '.join(COLUMNS)} |",
        f"|{'---|' * len(COLUMNS)}",
        *(f"| {' | '.join(cells(row))} |" for row in rows),
        "",
        *NOTES.splitlines(),
        "",
    ]
    return "\n".join(lines)


def main() -> int:
    warnings.filterwarnings("ignore")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds; medians are shown")
    parser.add_argument("--json", type=Path, help="write the rows there, and no page")
    parser.add_argument("--note", default="", help="a sentence about the machine, for the page")
    args = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"  # asking for CUDA does not start it here: processes are forked
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(args.rounds, Path(folder))
    show(rows)
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    else:
        PAGE.write_text(page(rows, " ".join(("python", *sys.argv)), args.note), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
