"""The "engine" column of docs/published.md: what this version of the engine trains, and why it refuses the rest.

`python -m tests.published.engine_column` writes the column anew; review the diff.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from megatron_bridge.run_file import load_run_facts
from trace_dsl import lint_file
from trace_dsl.facts import RunFacts
from trace_dsl.plan.support import unsupported

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "specs" / "published"
PAGE = ROOT / "docs" / "published.md"
ROW = re.compile(
    r"^\| (?P<objective>[^|]+) \| (?P<arxiv>[^|]+) \| \[(?P<name>\w+)\]\((?P<link>[^)]+)\) "
    r"\| (?P<engine>[^|]*) \| (?P<note>[^|]*) \|$",
    re.MULTILINE,
)


def names() -> tuple[str, ...]:
    """Every published spec."""
    return tuple(path.stem for path in sorted(FOLDER.glob("*.trace")))


@cache
def demo_facts() -> RunFacts:
    facts: RunFacts = load_run_facts(ROOT / "specs" / "demo" / "run.yaml")
    return facts


def engine_says(name: str) -> str:
    """`trains`, or `refuses` and every reason."""
    spec = lint_file(FOLDER / f"{name}.trace").spec
    assert spec is not None
    reasons = dict.fromkeys(found.message.partition(":")[0] for found in unsupported(spec))
    return f"refuses: {'; '.join(reasons)}" if reasons else "trains"


def rows() -> dict[str, re.Match[str]]:
    """The rows of the page's table, by spec."""
    return {row["name"]: row for row in ROW.finditer(PAGE.read_text(encoding="utf-8"))}


def main() -> None:
    text = PAGE.read_text(encoding="utf-8")

    def written(row: re.Match[str]) -> str:
        spec = f"[{row['name']}]({row['link']})"
        return f"| {row['objective']} | {row['arxiv']} | {spec} | {engine_says(row['name'])} | {row['note']} |"

    PAGE.write_text(ROW.sub(written, text), encoding="utf-8")


if __name__ == "__main__":
    main()
