"""What went wrong elsewhere, as specs: each names the report it is about and is caught by the rule beside it.

docs/pains.md lists every such report, also those that another test or the design holds off.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.language import facts
from trace_dsl.checks import RULES
from trace_dsl.lint import lint_file, lint_text
from trace_dsl.plan.support import RULE as ENGINE_UNSUPPORTED
from trace_dsl.plan.support import unsupported

ROOT = Path(__file__).parents[2]
FOLDER = Path(__file__).parent / "pains"
PAGE = (ROOT / "docs" / "pains.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \| (.+?) \|$", PAGE, flags=re.MULTILINE)

CAUGHT_BY = {
    "01_micro_batch_denominator": "unknown-name",
    "03_rank_denominator": "unknown-name",
    "07_kl_without_direction": "unknown-name",
    "07_direction_by_a_switch": "unknown-argument",
    "08_jsd_near_an_end": "jsd-near-endpoint",
    "08_jsd_at_its_end": "invalid-value",
    "09_truncated_kl_goes_negative": "topk-without-tail",
    "10_reverse_kl_on_the_teachers_top": "rkl-on-teacher-topk",
    "11_pointwise_clip": "hard-pclip",
    "12_advantage_of_the_state": "state-only-advantage",
    "17_stop_token": "stop-token-untrained",
    "18_unknown_key": "unknown-argument",
    "21_models_end_differently": "stop-token-mismatch",
    "22_schedule_of_unknown_unit": "ambiguous-unit",
}


def rules_of(path: Path) -> set[str]:
    """What lint finds with the facts of a run, and what the engine refuses before it."""
    result = lint_file(path, facts())
    found = {diagnostic.rule for diagnostic in result.diagnostics}
    return found if result.spec is None else found | {d.rule for d in unsupported(result.spec)}


@pytest.mark.parametrize("name", sorted(CAUGHT_BY))
def test_it_is_caught(name: str) -> None:
    path = FOLDER / f"{name}.trace"
    assert CAUGHT_BY[name] in rules_of(path)
    # the first line names the report, and the page has it in the row of that number
    row = next(row for row in ROWS if int(row[0]) == int(name[:2]))
    reports = re.findall(r"[\w-]+#\d+", path.read_text(encoding="utf-8").split("\n")[0])
    assert reports
    assert all(report in row[1] for report in reports)
    assert f"`{CAUGHT_BY[name]}`" in row[3]


def test_every_spec_has_its_rule() -> None:
    assert {path.stem for path in FOLDER.glob("*.trace")} == set(CAUGHT_BY)
    assert set(CAUGHT_BY.values()) <= {*RULES, ENGINE_UNSUPPORTED}


def test_the_mistake_alone_is_what_is_found() -> None:
    """Each spec without its mistake is clean, so that nothing else is what the rule fires on."""
    for name, rule in CAUGHT_BY.items():
        found = rules_of(FOLDER / f"{name}.trace")
        assert found - {rule} <= {ENGINE_UNSUPPORTED}, name


def test_the_page_has_every_row_and_names_what_exists() -> None:
    assert [int(number) for number, *_ in ROWS] == list(range(1, 23))
    for number, _, _, held_by in ROWS:
        named = re.findall(r"`([^`]+)`", held_by)
        paths = [name for name in named if "/" in name]
        assert paths or set(named) & set(RULES) or held_by.startswith("not covered yet"), number
        for path in paths:
            file, _, test = path.partition("::")
            text = (ROOT / file).read_text(encoding="utf-8")
            assert not test or f"def {test}(" in text, path


def test_scheduled_losses_are_clean() -> None:
    assert not lint_text(
        "teacher = self(frozen)\nrest: rkl(w=0.1, warmup=10%, anneal=cos) + grpo()", facts()
    ).diagnostics
