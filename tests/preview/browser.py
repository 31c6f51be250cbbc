"""Debian's Chromium on a page of this repository, with the network shut."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
AXE = "axe-core@4.14.1"
CACHE = ROOT / ".cache" / AXE
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def chromium() -> str:
    """The browser of this machine. Skips the test where there is none."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("there is no Chromium on the PATH: make browser")
    return found


def axe() -> str:
    """The program that finds what keeps people out of a page, from npm. Skips the test where npm cannot fetch it."""
    if not (CACHE / "axe.min.js").is_file():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("there is no npm on the PATH to fetch axe-core with: make browser")
        CACHE.mkdir(parents=True, exist_ok=True)
        # Other processes of tests fetch it at the same time: each in a folder of its own, and whole or not at all.
        with tempfile.TemporaryDirectory(dir=CACHE) as own:
            done = subprocess.run([npm, "pack", AXE, "--silent"], cwd=own, capture_output=True, text=True, timeout=120)
            if done.returncode:
                pytest.skip(f"npm cannot fetch {AXE}: {done.stderr.strip()[-200:]}")
            with tarfile.open(Path(own, done.stdout.split()[-1])) as packed:
                packed.extract("package/axe.min.js", own, filter="data")
            Path(own, "package", "axe.min.js").replace(CACHE / "axe.min.js")
    return (CACHE / "axe.min.js").read_text(encoding="utf-8")


@contextmanager
def browser() -> Iterator[object]:
    """A browser that is closed behind its last page."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install -e '.[dev]'")
    program = chromium()
    with api.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=list(FLAGS))
        try:
            yield opened
        finally:
            opened.close()


@contextmanager
def page_of(opened: object, path: Path, **settings: object) -> Iterator[object]:
    """A page from the disk. Fails for an error in it, and for anything that it asks the network for."""
    context = opened.new_context(offline=True, **settings)
    page = context.new_page()
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.goto(path.as_uri())
    page.wait_for_selector("html[data-ready]", state="attached")
    yield page
    context.close()
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert errors == []
