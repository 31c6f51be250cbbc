"""A cache on a disk that is really full costs the answers that could not be kept, nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.annotate.server import serving, spans_answer

# Annotates under the folder of argv[2] and tells what became of it.
PROGRAM = """
import json, resource, signal, sys
from pathlib import Path
from megatron_bridge.annotate.run import open_annotator
from megatron_bridge.annotate.settings import OpenAISettings
from megatron_bridge.annotation import Problem, Written
url, folder, limit = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
if limit >= 0:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
settings = OpenAISettings(kind="openai", base_url=url, model="good")
annotator = open_annotator(settings, folder=folder, cache=folder, policy=None)
problem = Problem(prompt="p", data={})
found = annotator.annotate([Written(problem=problem, response=f"Text {n}.", correct=n % 2 == 0) for n in range(20)])
print(json.dumps([[len(a.spans), a.missing, a.usage.cache_failure, a.usage.cached] for a in found]))
"""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with serving() as base:
        yield base


def annotate(url: str, folder: Path, limit: int = -1) -> list[list[object]]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, url, str(folder), str(limit)], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    """A file system with room for a few files; where none can be mounted, a folder and a limit on the size of files
    under which the shorter half of the answers fits.
    """
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if made.returncode != 0:
        yield place, (_size(correct=True) + _size(correct=False)) // 2
        return
    yield place, -1
    subprocess.run(["umount", str(place)], check=True)


def _size(*, correct: bool) -> int:
    """The bytes of a kept answer."""
    return len(json.dumps({"answer": spans_answer(1, "right result" if correct else "wrong result")}))


def test_a_disk_that_fills_up(url: str, small_disk: tuple[Path, int]) -> None:
    place, limit = small_disk
    found = annotate(url, place, limit)
    assert [line[:2] for line in found] == [[1, None]] * 20
    failures = [line[2] for line in found]
    assert 0 < failures.count("disk_full") < 20
    assert failures.count(None) == 20 - failures.count("disk_full")
    kept = [path for path in place.rglob("*") if path.is_file()]
    assert all(json.loads(path.read_text())["answer"] for path in kept)  # whole, and nothing left half
    assert len(kept) == failures.count(None)
    assert [line[3] for line in annotate(url, place)].count(True) == len(kept)


def test_files_that_may_not_grow(url: str, tmp_path: Path) -> None:
    found = annotate(url, tmp_path, limit=16)
    assert found == [[1, None, "disk_full", False]] * 20
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_folder_that_is_none(url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert annotate(url, tmp_path / "file" / "cache")[0] == [1, None, "unwritable", False]
