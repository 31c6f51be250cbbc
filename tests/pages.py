"""Pages whose blocks run: README.md and docs/tutorial.md do what they say and print what they show.

A block of ```bash or ```python runs in a folder of a newcomer, or where a `cd` of an earlier block led; `bash fails`
must end with exit code 1. ```output is what the block before it printed, all of it: a line of … stands for any lines,
and … within a line for any text.
```trace and ```yaml blocks with a title are files, written as they are read.

`python -m tests.pages` writes the output blocks of docs/tutorial.md anew, those without a …; review the diff.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
TUTORIAL = ROOT / "docs" / "tutorial.md"
CUT = "…"

_BLOCK = re.compile(r"^```(?P<kind>\w*)(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.M | re.S)
_TITLE = re.compile(r'title="([^"]+)"')


@dataclass(frozen=True, kw_only=True)
class Block:
    """`marks` are the words behind the kind, `title` the file it shows; [start, end) is its text in the page."""

    kind: str
    marks: frozenset[str]
    title: str | None
    text: str
    start: int
    end: int


@dataclass(frozen=True, kw_only=True)
class Shown:
    """An output block and what the block before it really printed."""

    block: Block
    printed: str


def blocks(page: str) -> list[Block]:
    """Every fenced block of a page."""
    found = []
    for match in _BLOCK.finditer(page):
        title = _TITLE.search(match["info"])
        marks = frozenset(_TITLE.sub("", match["info"]).split())
        found.append(
            Block(
                kind=match["kind"],
                marks=marks,
                title=None if title is None else title[1],
                text=match["text"],
                start=match.start("text"),
                end=match.end("text"),
            )
        )
    return found


def newcomer(folder: Path) -> Path:
    """`folder` with what the pages' blocks use, so that they write nothing into the repository."""
    (folder / "specs").symlink_to(ROOT / "specs")
    (folder / ".venv").symlink_to(Path(sys.prefix))
    (folder / "Makefile").write_text("setup:\n\t@true\n")  # the environment this test runs in is set up
    return folder


def run_page(page: str, folder: Path) -> Iterator[Shown]:
    """Run a page's blocks from top to bottom; raises AssertionError for one that does not end as it should."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "NO_COLOR": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    printed, here = "", folder
    for block in blocks(page):
        match block.kind:
            case "output":
                yield Shown(block=block, printed=printed)
            case "trace" | "yaml" if block.title is not None:
                (here / block.title).write_text(block.text, encoding="utf-8")
            case "bash" | "python":
                printed, here = _run(block, here, environment)
            case _:
                pass


def _run(block: Block, folder: Path, environment: dict[str, str]) -> tuple[str, Path]:
    """What a block printed, and the folder that it went to."""
    moves = [line.removeprefix("cd ") for line in block.text.splitlines() if line.startswith("cd ")]
    program = ["bash", "-c"] if block.kind == "bash" else [sys.executable, "-c"]
    done = subprocess.run(
        [*program, block.text],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
    )
    expected = 1 if "fails" in block.marks else 0
    assert done.returncode == expected, f"{block.text}\nended with {done.returncode}:\n{done.stdout[-3000:]}"
    return done.stdout, folder.joinpath(*moves)


def agrees(shown: Shown) -> bool:
    """Whether an output block is what was printed, but for what its … leave out."""
    lines = shown.block.text.strip("\n").split("\n")
    wanted = "".join(r"(?:[^\n]*\n)*?" if line == CUT else f"{_line(line)}\n" for line in lines)
    return re.fullmatch(wanted, shown.printed.strip("\n") + "\n") is not None


def _line(line: str) -> str:
    return "[^\n]*".join(re.escape(part) for part in line.split(CUT))


def main() -> None:
    page = TUTORIAL.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        shown = list(run_page(page, newcomer(Path(folder))))
    for one in reversed(shown):
        if not agrees(one) and CUT in one.block.text:
            sys.exit(f"edit this one by hand:\n{one.block.text}\nprinted was\n{one.printed}")
        if not agrees(one):
            page = page[: one.block.start] + one.printed.strip("\n") + "\n" + page[one.block.end :]
    TUTORIAL.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
