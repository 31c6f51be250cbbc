"""Two data-parallel ranks, and a fault that only the second one meets: both end, with one error that can be read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.training.jobs import ROW, own_task, train

pytestmark = pytest.mark.distributed


def failed(folder: Path, task: str, *overrides: str, code: int = 1) -> str:
    """What the first rank says before the job ends; the second one's share of 4 prompts are rows 3 and 4."""
    settings = ("spec=grpo.trace", "steps=2", "rollout.prompts=4", "micro_batch=4", "layout.dp=2", "layout.tp=1")
    done = train(folder, "run", *settings, task, *overrides, ranks=2, check=False)
    assert done.returncode == 1  # torchrun's
    assert f"exitcode  : {code} " in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "distributed_c10d" not in done.stderr
    return line


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"question": ', "row 4 is no JSON: Expecting value"),
        ('{"question": null, "answer": "1"}', "row 4: column 'question' is null; give it a value"),
        ('{"question": "1 | +1", "answer": null}', "row 4: column 'answer' is null; give it a value"),
        ('{"question": "1 | +1"}', "row 4: no column 'answer'; it has question"),
    ],
)
def test_a_row_that_cannot_be_used(tmp_path: Path, row: str, message: str) -> None:
    rows = [json.dumps(ROW)] * 3
    said = failed(tmp_path, own_task(tmp_path, [*rows, row]))
    assert said.startswith(f"error: {tmp_path}/train.jsonl: {message}")


def test_a_prompt_that_fills_the_context(tmp_path: Path) -> None:
    long = json.dumps(ROW | {"question": "34 | +41 | " * 100})
    said = failed(tmp_path, own_task(tmp_path, [json.dumps(ROW)] * 3 + [long]))
    assert "prompt 1 has" in said
    assert "shorten it" in said


@pytest.mark.parametrize("part", ["verifier", "annotator"])
def test_a_judge_that_does_not_start(tmp_path: Path, part: str) -> None:
    """`self` asks the policy after the verifier: a rank whose verifier failed must not be waited for there."""
    (tmp_path / "judges.py").write_text(
        "import os\nassert os.environ['RANK'] == '0', 'not here'\ndef grade(response, row):\n    return 0\n"
        "def annotate(response, row, correct):\n    return []\n"
    )
    judges = {
        "verifier": {
            "verifier": {"kind": "python", "function": "judges:grade", "folder": str(tmp_path)},
            "annotator": {"kind": "self", "max_tokens": 16},
        },
        "annotator": {
            "annotator": {
                **{"kind": "programmatic", "function": "judges:annotate"},
                **{"folder": str(tmp_path), "types": ["slip"]},
            }
        },
    }
    said = failed(tmp_path, own_task(tmp_path, **judges[part]), code=2 if part == "annotator" else 1)
    assert "AssertionError: not here" in said
