"""Run directories as training leaves them, made of numbers that a test chooses."""

from __future__ import annotations

import json
from pathlib import Path

SPEC = "spans key(cap=50%)\nlet kl = schedule(0.5, warmup=1, anneal=linear(2))\n" \
    "key when correct: nll(w=kl, per=selected)\nrest: grpo()\n"  # fmt: skip
LOSSES = ("key/nll", "rest/grpo")


def line(step: int, **more: object) -> dict[str, object]:
    """One line of metrics.jsonl."""
    found: dict[str, object] = {
        "step": step,
        "time": 1_000_000_000.0 + 10 * step,
        "reward": 0.25 + step / 8,
        "accuracy": 0.25 + step / 8,
        "loss": -0.5 * step,
        "policy/entropy": 0.75 / (step + 1),
        "rollout/mean_tokens": 40 + step,
        "rollout/min_tokens": 30,
        "rollout/max_tokens": 60 + step,
        "optim/grad_norm": 0.1,
        "kl_weight": 0.5,
        "kl_fraction": 0.1,
        "routed_fraction": 1.0,
        "trained_tokens": 1000 * (step + 1),
        "train/credit/concentration": 2.0,
        "train/credit/inside": 2e-6,
        "train/credit/outside": 1e-6,
        "perf/sample_seconds": 2.0,
        "perf/rollout_seconds": 1.5,
        "perf/train_seconds": 1.0 + (step == 2),
        "perf/evaluate_seconds": 0.5,
    }
    for n, loss in enumerate(LOSSES):
        found[f"train/route/{loss}/tokens"] = 100 * (n + 1)
        found[f"train/route/{loss}/weight"] = None if n == 0 and step == 0 else 0.5
        found[f"train/route/{loss}/grad_share"] = 0.25 + 0.5 * n
        found[f"train/route/{loss}/exposure"] = 50.0 * (n + 1) * (step + 1)
    return {**found, **more}


def rollout(**more: object) -> dict[str, object]:
    """One line of rollouts/step_*.jsonl."""
    return {
        "group": 0, "prompt": "1 + 1", "response": "it is <b>3</b>", "finish": "stop", "reward": 0.0,
        "advantage": -0.5, "reason": "a wrong answer", "annotation_missing": None, "annotation_note": "",
        "spans": [{"label": "key", "kind": "", "start": 0, "end": 2}], **more,
    }  # fmt: skip


def evaluation(step: int, solved: str, split: str = "eval") -> dict[str, object]:
    """One line of evaluations.jsonl."""
    accuracy = solved.count("1") / len(solved)
    return {
        "step": step, "split": split, "accuracy": accuracy, "problems": len(solved), "mean_tokens": 40.0,
        "solved": solved,
    }  # fmt: skip


def write_lines(path: Path, lines: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(one) + "\n" for one in lines), encoding="utf-8")


def make_run(path: Path, *, steps: int = 4, done: int = 4, spec: str = SPEC, lr: float = 1e-5) -> Path:
    """A run of `steps` steps of which `done` are done."""
    path.mkdir(parents=True)
    (path / "spec.trace").write_text(spec, encoding="utf-8")
    (path / "run.yaml").write_text(
        f"name: {path.name}\nspec: spec.trace\npolicy: /nowhere/policy\ntask: ledger\nsteps: {steps}\n"
        f"optim:\n  lr: {lr}\nevaluation:\n  problems: 4\n",
        encoding="utf-8",
    )
    write_lines(path / "metrics.jsonl", [line(step) for step in range(done)])
    write_lines(path / "evaluations.jsonl", [evaluation(0, "0011")])
    write_lines(path / "rollouts" / "step_000000.jsonl", [rollout(), rollout(group=1, reward=1.0, advantage=0.5)])
    if done == steps:
        lines = [evaluation(step, solved) for step, solved in ((0, "0011"), (2, "0111"), (steps, "1110"))]
        write_lines(path / "evaluations.jsonl", lines)
        told = {"accuracy_before": 0.5, "accuracy_after": 0.75, "held_out_problems": 4, "seconds": 45.0}
        (path / "summary.json").write_text(json.dumps(told), encoding="utf-8")
    return path
