"""Golden pairs: `x.trace` and what lint says about it, `x.expected`, with its exit code in the last line.

`python -m tests.language.golden_update` writes the expected side anew; review the diff.
"""

from __future__ import annotations

from pathlib import Path

from trace_dsl.lint import lint_text
from trace_dsl.report import full, summary

FOLDER = Path(__file__).parent / "golden"


def specs() -> tuple[Path, ...]:
    """Every spec that has, or should have, an expected side."""
    return tuple(sorted(FOLDER.glob("*.trace")))


def output(spec: Path) -> str:
    """What lint prints for a spec, with paths as seen from the golden folder."""
    result = lint_text(spec.read_text(encoding="utf-8"), path=str(spec))
    blocks = [text.plain for text in full(result)]
    code = 1 if result.errors else 0
    lines = "\n\n".join([*blocks, summary((result,)), f"exit code {code}"]) + "\n"
    return lines.replace(f"{FOLDER}/", "")


def main() -> None:
    for spec in specs():
        spec.with_suffix(".expected").write_text(output(spec), encoding="utf-8")


if __name__ == "__main__":
    main()
