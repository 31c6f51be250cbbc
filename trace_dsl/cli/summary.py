"""`trace-dsl summary`: what a finished run changed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

from trace_dsl.cli.exits import refusing
from trace_dsl.errors import RunFileError


def summary(
    directory: Annotated[Path, typer.Argument(metavar="RUN", help="A run directory, such as runs/demo.")],
) -> None:
    """Show what a finished run changed: accuracy, what was routed where, when the teacher ran, responses.

    Exits with 0, with 2 when there is no summary to read.

    Example: trace-dsl summary runs/demo
    """
    with refusing():
        lines = _read(directory)
    for line in lines:
        print(line)


def _read(directory: Path) -> list[str]:
    """The lines of a run's summary. Raises RunFileError when there is none, or one that this version did not write."""
    path = directory / "summary.json"
    if not path.is_file():
        raise RunFileError(f"{directory} has no summary.json: {_state_of(directory)}")
    try:
        return summary_lines(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise RunFileError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise RunFileError(f"{path} is no summary of a run: {error}") from error


def _state_of(directory: Path) -> str:
    """Why a directory has no summary."""
    if not (directory / "plan.json").is_file():
        return "it is no run directory"
    metrics = directory / "metrics.jsonl"
    steps = len(metrics.read_text(encoding="utf-8").splitlines()) if metrics.is_file() else 0
    return f"the run has not finished ({steps} steps so far); go on with it by --resume"


_PARALLEL = {"tp": "tensor", "pp": "pipeline", "cp": "context", "dp": "data"}


def _error_of(accuracy: float, problems: int) -> float:
    """The standard error of a share of `problems` problems."""
    return math.sqrt(accuracy * (1 - accuracy) / problems)


def _layout(data: dict[str, Any]) -> str:
    """tp 2 x dp 1; pp and cp where there are any."""
    sizes = {name: data[f"{word}_parallel"] for name, word in _PARALLEL.items()}
    return " x ".join(f"{name} {size}" for name, size in sizes.items() if size > 1 or name in ("tp", "dp"))


def summary_lines(data: dict[str, Any]) -> list[str]:
    """The content of summary.json, for people."""
    before, after = data["accuracy_before"], data["accuracy_after"]
    problems = data["held_out_problems"]
    error = math.hypot(_error_of(before, problems), _error_of(after, problems))
    lines = [
        f"run {data['name']}: {data['spec']}, plan {data['plan_hash']}",
        *(
            f"  under plan {change['old_plan']} up to step {change['step']}, then {change['new_plan']}"
            for change in data.get("spec_changes", ())
        ),
        f"  accuracy on {data['held_out_problems']} held-out problems: {before:.1%} -> {after:.1%} "
        f"({100 * (after - before):+.1f} points, standard error {100 * error:.1f})",
        f"  {data['steps']} steps in {data['seconds']:.0f} s on {_layout(data)}, "
        f"{data['trained_tokens']} response tokens",
        "  share of response tokens on each loss, mean over the run (a token may feed several):",
        *(f"    {name:<24} {share:.3f}" for name, share in data["routed_fraction"].items()),
    ]
    for name, teacher in data["teacher_forwards"].items():
        lines.append(
            f"  teacher {name!r}: run in {teacher['steps']} steps on {teacher['sequences']} sequences, last at step "
            f"{teacher['last_step']} (planned: {teacher['last_step_planned']})"
        )
    changed = [
        pair
        for pair in zip(data["examples_before"], data["examples_after"], strict=True)
        if pair[0]["response"] != pair[1]["response"]
    ]
    for old, new in changed[:1]:
        lines += ["", f"  a held-out problem: {old['prompt'].strip()}"]
        for word, example in (("before", old), ("after", new)):
            verdict = "correct" if example["correct"] else "wrong"
            lines += [f"  {word} ({verdict}):", *(f"    {line}" for line in example["response"].splitlines())]
    return lines
