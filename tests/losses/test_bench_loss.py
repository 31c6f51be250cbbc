"""tools/bench_loss.py: what it times is the same loss, what it counts is exact, and what it leaves out it says."""

from __future__ import annotations

import json
import subprocess
import sys
from argparse import Namespace
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / "tools"


@pytest.fixture(autouse=True)
def _tools(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(TOOLS))
    torch.set_num_threads(1)


@pytest.mark.parametrize("divergence", ["jsd", "fkl", "rkl"])
def test_every_peer_has_a_row(tmp_path: Path, divergence: str) -> None:
    """Peers that are not timed stand there with the reason; the others compute our loss and gradients."""
    path = tmp_path / "rows.json"
    command = [sys.executable, "tools/bench_loss.py", "--quick", "--repeats", "1", "--device", "cpu"]
    command += ["--size", "48,16,500", "--divergence", divergence, "--json", str(path)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    rows = json.loads(path.read_text())
    assert [row["kl_fraction"] for row in rows[::7]] == [0.0, 0.1, 0.25, 1.0]
    for row in rows:
        if row["time_ratio"] is None:
            assert row["note"].startswith(("left out by --quick", "not installed: pip install"))
        else:
            assert row["difference"] < 1e-4
            assert row["memory_bytes"] > 4 * 16 * 500  # the weight's gradient
    assert {row["peer"] for row in rows if row["time_ratio"] is not None} >= {
        "routed_linear_loss",
        "naive_gathered",
        "naive_dense",
    }


def test_a_peer_that_differs_is_not_timed() -> None:
    import bench_loss
    from loss_peers import PEERS, Case, Size

    case = Case.make(Size(tokens=32, hidden=8, vocabulary=100), kl_fraction=0.5)
    wrong = replace(PEERS[1], name="wrong", loss=lambda case: 1.001 * PEERS[1].loss(case))
    absent = replace(PEERS[1], name="absent", package="no-such-package-of-anyone")
    args = Namespace(device="cpu", repeats=1, memory_limit=1.0, quick=False)
    ours, differs, missing = bench_loss.compare(case, [PEERS[0], wrong, absent], args)
    assert ours.time_ratio == ours.memory_ratio == 1.0
    assert differs.seconds is None
    assert differs.note == "differs by 1.0e-03: not timed"
    assert missing.note == "not installed: pip install no-such-package-of-anyone"


def test_peak_memory_is_exact() -> None:
    """1 MB and 2 MB live together, then 1 MB goes before 1.5 MB come."""
    import bench_loss

    def run() -> None:
        first, second = torch.empty(250_000), torch.empty(500_000)
        del first
        third = torch.empty(375_000)
        del second, third

    assert bench_loss.peak_bytes(run, "cpu") == 3_500_000


def test_the_report_keeps_divergences_apart_and_says_what_was_timed(tmp_path: Path) -> None:
    """What differs is in no statement about what was compared, and no bfloat16 table is argued about in float32."""
    from bench_loss import Row
    from loss_report import write_report

    common = {"kl_fraction": 0.1, "tokens": 8, "hidden": 4, "vocabulary": 16, "device": "a GPU", "dtype": "bfloat16"}
    common |= {"chunk_rows": 8, "products_seconds": 1.0, "memory_bytes": 1024, "time_ratio": 1.0, "memory_ratio": 1.0}
    rows = []
    for divergence in ("jsd", "fkl"):
        rows.append(Row(peer="ours", divergence=divergence, seconds=2.0, difference=2e-3, **common))
        untimed = common | {"time_ratio": None, "memory_ratio": None, "memory_bytes": None}
        note = "differs by 5.0e-01: not timed"
        rows.append(Row(peer="other", divergence=divergence, difference=0.5, note=note, **untimed))
    write_report([asdict(row) for row in rows], tmp_path / "loss")
    text = (tmp_path / "loss.md").read_text()
    headings = [line for line in text.splitlines() if line.startswith("## N")]
    assert headings == [f"## N 8, H 4, V 16, KL fraction 0.1 ({divergence})" for divergence in ("fkl", "jsd")]
    assert "largest relative difference found was 2e-03" in text
    assert "differs by 5.0e-01: not timed" in text
    assert "float32" not in text
    assert text.count("bfloat16") == 4
