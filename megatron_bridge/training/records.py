"""What a run writes down: a JSONL line a step, TensorBoard, W&B, sampled rollouts, a progress display.

Only rank 0 writes. A resumed run cuts `metrics.jsonl` back to its checkpoint first, so every step stands there once.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeRemainingColumn
from rich.table import Column
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from megatron_bridge.atomic import write_text
from megatron_bridge.contexts import text_of
from megatron_bridge.training.collect import Rollout
from megatron_bridge.training.evaluate import Evaluation
from trace_dsl.lowering import Lowered, RolloutBatch
from trace_dsl.model import Sees
from trace_dsl.terms import Signal

if TYPE_CHECKING:
    from megatron_bridge.training.wandb_log import WandbLog

# What a line of evaluations.jsonl holds beside the step.
EVALUATED = ("split", "accuracy", "problems", "mean_tokens", "solved")


class Records:
    """Writes metrics of one run from step `start` of `steps` on; a context manager."""

    def __init__(self, directory: Path, *, start: int, steps: int, wandb: WandbLog | None = None) -> None:
        self._directory = directory
        self._metrics = directory / "metrics.jsonl"
        self._evaluations = directory / "evaluations.jsonl"
        self._cut_back(start)
        self._file = self._metrics.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(directory / "tensorboard"), purge_step=start or None)
        self._console = Console(stderr=True)
        self._wandb = wandb
        self._evaluated: dict[str, float] = {}
        self._steps = steps
        # the step and the time left always show; the metrics between them are cut where the terminal is narrow
        self._bar = Progress(
            TextColumn("step {task.completed}/{task.total}", table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[status]}", table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            TimeRemainingColumn(table_column=Column(no_wrap=True, width=8)),
            console=self._console,
            expand=True,
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bar.add_task("train", total=steps, completed=start, status="")

    def __enter__(self) -> Records:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
        self._file.close()
        self._board.close()
        if self._wandb is not None:
            self._wandb.close(failed=error is not None)

    def step(self, step: int, metrics: Mapping[str, float | int | None]) -> None:
        """Write one step's metrics, and the evaluation before it, and show the main ones."""
        metrics = {**metrics, **self._evaluated}
        self._evaluated = {}
        self._file.write(json.dumps({"step": step, "time": time.time(), **metrics}) + "\n")
        self._file.flush()
        self._chart(step, metrics)
        status = describe(metrics)
        self._bar.update(self._task, completed=step + 1, status=status)
        if self._bar.disable:
            print(f"step {step + 1:>4}/{self._steps}  {status}", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        """A line for the person watching."""
        self._console.print(text, highlight=False, soft_wrap=True)

    def evaluation(self, step: int, evaluations: Sequence[Evaluation]) -> None:
        """Write and show the accuracy on held-out problems after `step` steps, of the main split and of others.

        In metrics.jsonl it is on the next line; evaluations.jsonl has also which problems were solved.
        """
        self._evaluated = {}
        for n, one in enumerate(evaluations):
            name = f"evaluation/{one.split}" if n else "evaluation"
            self._evaluated |= {f"{name}/accuracy": one.accuracy, f"{name}/mean_tokens": one.mean_tokens}
            told = "" if len(evaluations) == 1 else f" ({one.split})"
            self.note(f"after {step} steps: {one.accuracy:.1%} of {one.problems} held-out problems solved{told}")
        self._chart(step, self._evaluated)
        kept = [line for line in read_metrics(self._evaluations) if line["step"] < step]
        new = [{"step": step, **{name: getattr(one, name) for name in EVALUATED}} for one in evaluations]
        _write_lines(self._evaluations, [*kept, *new])

    def rollouts(self, step: int, rollouts: Sequence[Rollout], batch: RolloutBatch, lowered: Lowered) -> None:
        """Write the step's rollouts with their spans, what was measured, and the route of every token, one JSON object
        a line.
        """
        lines, first = [], 0
        for rollout, advantage in zip(rollouts, lowered.advantage_R.tolist(), strict=True):
            last = first + len(rollout.token_ids)
            line = rollout_line(rollout) | {"advantage": advantage, "route": lowered.route_of_T[first:last].tolist()}
            if batch.measured:
                signals = {"old_logp": batch.old_logp_T, **{_name(s): value_T for s, value_T in batch.measured}}
                line["signals"] = {name: _numbers(value_T[first:last]) for name, value_T in signals.items()}
            lines.append(json.dumps(line))
            first = last
        folder = self._directory / "rollouts"
        folder.mkdir(exist_ok=True)
        write_text(folder / f"step_{step:06d}.jsonl", "\n".join(lines) + "\n")

    def _chart(self, step: int, metrics: Mapping[str, float | int | None]) -> None:
        for name, value in metrics.items():
            if value is not None:
                self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(step, metrics)

    def _cut_back(self, start: int) -> None:
        if self._metrics.exists():
            _write_lines(self._metrics, [line for line in read_metrics(self._metrics) if line["step"] < start])


def _write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    write_text(path, "".join(json.dumps(line) + "\n" for line in lines))


def rollout_line(rollout: Rollout) -> dict[str, Any]:
    """A rollout as `trace-dsl preview` reads it; null for a context that it lacks."""
    contexts = {sees.value: rollout.context(sees) for sees in (Sees.SOLUTION, Sees.SIBLING, Sees.FEEDBACK)}
    return {
        "group": rollout.group,
        "prompt": rollout.problem.prompt,
        "response": rollout.aligned.text,
        "finish": rollout.finish,
        "reward": rollout.reward,
        "reason": rollout.reason,
        "verifier_failure": rollout.verifier_failure,
        "diagnosis": rollout.annotation.diagnosis,
        **{name: None if context is None else text_of(context) for name, context in contexts.items()},
        "withheld": sorted(sees.value for sees in rollout.withheld),
        "annotation_missing": rollout.annotation.missing,
        "annotation_note": rollout.annotation.note,
        "spans": [{"label": s.label, "kind": s.kind, "start": s.start, "end": s.end} for s in rollout.annotation.spans],
        "token_ids": rollout.token_ids,
        "weight_versions": rollout.weight_versions,
        "intervals": rollout.aligned.intervals,
    }


def _name(signal: Signal) -> str:
    """As a spec names it, with the teacher's name always: another spec may have another teacher by default."""
    return signal.name if signal.teacher is None else f"{signal.name}({signal.teacher})"


def _numbers(value_t: Tensor) -> list[float | None]:
    """float32 in full, null where a teacher is shown nothing."""
    return [None if math.isnan(value) else value for value in value_t.tolist()]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a file of metrics or evaluations, none where there is no file. A last line that a killed process
    left half-written is left out.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1] if line]


def describe(metrics: Mapping[str, float | int | None]) -> str:
    """The main metrics of a step on one line; the accuracy only where rewards are not 0 and 1."""
    parts = [f"reward {metrics['reward']:.3f}"]
    if metrics["accuracy"] != metrics["reward"]:
        parts.append(f"accuracy {metrics['accuracy']:.3f}")
    parts.append(f"routed {metrics['routed_fraction']:.2f}")
    if metrics["kl_fraction"] or metrics["kl_weight"]:
        weight = "gated" if metrics["kl_weight"] is None else f"{metrics['kl_weight']:.3f}"
        parts.append(f"KL {weight} on {metrics['kl_fraction']:.3f}")
    parts.append(f"{metrics['perf/tokens_per_second']:.0f} tok/s")
    return "  ".join(parts)
