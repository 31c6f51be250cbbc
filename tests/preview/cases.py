"""Random batches as a file of rollouts, the same batch that `lower` is given."""

from __future__ import annotations

import json
from pathlib import Path

from tests.lowering.cases import CONTEXTS
from tests.lowering.plain import PlainBatch
from tests.lowering.reading_expressions import teacher_can_see
from trace_dsl.model import Spec


def write_batch(path: Path, batch: PlainBatch, spec: Spec) -> Path:
    """A batch as JSONL: every token is a character, so that places of tokens are places of characters."""
    lines = []
    for row, written in enumerate(batch.from_model):
        length = len(written)
        signals = {name: getattr(batch, name)[row] for name in ("old_logp", "logp", "entropy")}
        for teacher in spec.teachers:
            sees = teacher_can_see(spec, batch, teacher.name, row)
            for name in ("teacher_logp", "teacher_entropy"):
                values = getattr(batch, name)[teacher.name][row]
                signals[f"{name}({teacher.name})"] = values if sees else [None] * length
        line = {
            "prompt": f"prompt {batch.group[row]}",
            "response": "x" * length,
            "intervals": [[n, n + 1] for n in range(length)],
            "reward": batch.reward[row],
            "correct": batch.correct[row],
            "group": batch.group[row],
            "tool": [[n, n + 1] for n, by_model in enumerate(written) if not by_model],
            "spans": [
                {"label": s.label, "start": s.start, "end": s.end, "kind": "slip"} for s in batch.spans if s.row == row
            ],
            "signals": signals,
        }
        line |= {name: "told" if batch.has(name, row) else None for name in CONTEXTS}
        lines.append(json.dumps(line))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
