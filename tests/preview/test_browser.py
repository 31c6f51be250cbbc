"""What the tests of pages are driven with."""

from __future__ import annotations

import os
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.preview import browser

PROGRAM = "axe" * 10_000
# An npm that is as slow as a network: the archive is half there for a while, and npm ends some time behind the whole.
NPM = """#!/bin/sh
head -c 100 {packed} > axe-core.tgz
sleep 0.4
cat {packed} > axe-core.tgz
sleep 0.4
echo axe-core.tgz
"""
BEHIND = 0.6  # seconds: the second npm's archive is half there when the first one's is read


def test_processes_that_fetch_axe_at_the_same_time_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that begins while another is at it leaves what the other reads alone."""
    (tmp_path / "axe.min.js").write_text(PROGRAM)
    packed = tmp_path / "packed.tgz"
    with tarfile.open(packed, "w:gz") as archive:
        archive.add(tmp_path / "axe.min.js", "package/axe.min.js")
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(NPM.format(packed=packed))
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(browser, "CACHE", tmp_path / "cache")
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(browser.axe)
        time.sleep(BEHIND)
        second = pool.submit(browser.axe)
    assert first.result() == second.result() == PROGRAM
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["axe.min.js"]
