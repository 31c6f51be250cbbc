"""How findings are shown."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from tests.language import facts
from trace_dsl.checks import RULES
from trace_dsl.cli.terminal import rich_text
from trace_dsl.lint import LintResult, lint_file, lint_text
from trace_dsl.report import as_json, concise, full, github, print_full, render, sarif, summary
from trace_dsl.rules import RuleSelection

SHADOWED = "rest: grpo()\nkey when correct: nll()\n"


def blocks(text: str) -> list[str]:
    return [block.plain for block in full(lint_text(text, path="a.trace"))]


def printed(result: LintResult, **options: object) -> str:
    stream = io.StringIO()
    console = Console(file=stream, **options)  # type: ignore[arg-type]  # options of one call below
    print_full((result,), lambda block: console.print(rich_text(block), soft_wrap=True))
    return stream.getvalue()


def test_full_shows_line_place_other_place_cost_and_fix() -> None:
    (block,) = blocks(SHADOWED)
    assert block == (
        "error[shadowed-route]: no token reaches `key when correct`: `rest` takes them all\n"
        " --> a.trace:2:1\n"
        "  |\n"
        "2 | key when correct: nll()\n"
        "  | ^^^^^^^^^^^^^^^^^^^^^^^\n"
        " ::: a.trace:1:1: `rest` comes first\n"
        "  |\n"
        "1 | rest: grpo()\n"
        "  | ^^^^^^^^^^^^\n"
        "  = cost: the first route that matches wins, so the losses written here would never train anything\n"
        "  = fix: move it above the other, or give the other a predicate"
    )


@pytest.mark.parametrize(
    ("text", "line", "underline"),
    [
        ("rest: grpo(w=rewrd)", "rest: grpo(w=rewrd)", "             ^^^^^"),
        ("rest:\tgrpo(w=rewrd)", "rest:\tgrpo(w=rewrd)", "     \t       ^^^^^"),
        ('teacher = model("漢字", seees=no)\nrest: none', 'teacher = model("漢字", seees=no)', " " * 24 + "^^^^^"),
        ("rest: grpo(w=fkl(\n  1))", "rest: grpo(w=fkl(", "             ^^^^"),
        ("key", "key", "   ^"),
        ("rest: grpo()\x1b[31m", "rest: grpo()\N{REPLACEMENT CHARACTER}[31m", "            ^"),
    ],
)
def test_the_underline_stands_below_its_place(text: str, line: str, underline: str) -> None:
    rows = blocks(text)[0].split("\n")
    assert rows[3] == f"1 | {line}"
    assert rows[4] == f"  | {underline}"


def test_line_numbers_line_up() -> None:
    block = blocks("\n" * 9 + "rest: grpo(w=rewrd)\n")[0]
    assert "\n  --> a.trace:10:14\n   |\n10 | rest" in block


def test_concise_is_one_line_a_finding() -> None:
    assert list(concise(lint_text(SHADOWED, path="a.trace"))) == [
        "a.trace:2:1: error[shadowed-route] no token reaches `key when correct`: `rest` takes them all"
    ]


def test_json_has_every_field() -> None:
    (found,) = json.loads(as_json([lint_text(SHADOWED, path="a.trace")]))
    assert found["others"] == [{"path": "a.trace", "line": 1, "column": 1, "note": "`rest` comes first"}]
    assert {key: found[key] for key in ("path", "line", "column", "end_line", "end_column", "severity", "rule")} == {
        "path": "a.trace",
        "line": 2,
        "column": 1,
        "end_line": 2,
        "end_column": 24,
        "severity": "error",
        "rule": "shadowed-route",
    }
    assert found["message"]
    assert found["consequence"]
    assert found["fix"]


def test_github_annotations() -> None:
    result = lint_text("let a = 1\nrest: fkl(w=100%,\n  anneal=linear(30))", path="a:b,c%.trace")
    assert [line.split("::", 2) for line in github([result])] == [
        [
            "",
            "warning file=a%3Ab%2Cc%25.trace,line=1,endLine=1,title=unused-let,col=5,endColumn=6",
            "nothing reads `a`%0Acost: a schedule that was meant to act does not%0Afix: use it, as in w=a, "
            "or take it out",
        ],
    ]


def test_github_gives_no_columns_for_places_over_several_lines() -> None:
    (line,) = github([lint_text("rest: fkl(w=0.5,\n  topk=100, anneal=linear(30))", path="a.trace")])
    assert line.startswith("::warning file=a.trace,line=1,endLine=2,title=topk-without-tail::")
    assert "\n" not in line


def test_sarif_has_what_readers_of_sarif_need() -> None:
    """The essentials of the 2.1.0 schema: required properties, kinds of values, indices and ids that fit."""
    log = json.loads(sarif([lint_text(SHADOWED + "let a = 1", path="some folder/a.trace")]))
    assert log["version"] == "2.1.0"
    assert log["$schema"].endswith("sarif-schema-2.1.0.json")
    (run,) = log["runs"]
    assert set(run) == {"tool", "columnKind", "invocations", "results"}
    driver = run["tool"]["driver"]
    assert driver["name"] == "trace-dsl"
    assert [rule["id"] for rule in driver["rules"]] == list(RULES)
    for rule in driver["rules"]:
        assert rule["shortDescription"]["text"]
        assert rule["defaultConfiguration"]["level"] in ("error", "warning")
    assert [found["ruleId"] for found in run["results"]] == ["shadowed-route", "unused-let"]
    for found in run["results"]:
        assert set(found) <= {"ruleId", "ruleIndex", "level", "message", "locations", "relatedLocations"}
        assert driver["rules"][found["ruleIndex"]]["id"] == found["ruleId"]
        assert found["level"] in ("error", "warning")
        assert found["message"]["text"]
        for place in (*found["locations"], *found.get("relatedLocations", ())):
            physical = place["physicalLocation"]
            assert physical["artifactLocation"]["uri"] == "some%20folder/a.trace"
            assert set(physical["region"]) == {"startLine", "startColumn", "endLine", "endColumn"}
            assert all(isinstance(number, int) and number >= 1 for number in physical["region"].values())
    shadowed = run["results"][0]
    assert shadowed["locations"][0]["physicalLocation"]["region"]["startLine"] == 2
    (related,) = shadowed["relatedLocations"]
    assert (related["id"], related["message"]["text"]) == (1, "`rest` comes first")


def test_a_fix_that_is_a_change_of_the_text_is_one_for_programs() -> None:
    results = [lint_text("key: grpp(w=3)\nrest: grpo()", path="a.trace"), lint_text(SHADOWED, path="b.trace")]
    first, *others = json.loads(as_json(results))
    place = {"path": "a.trace", "line": 1, "column": 6, "end_line": 1, "end_column": 10}
    assert first["replacement"] == {**place, "text": "grpo"}
    assert {other["replacement"] for other in others} == {None}
    first, *others = json.loads(sarif(results))["runs"][0]["results"]
    (fix,) = first["fixes"]
    assert fix["description"] == {"text": "did you mean `grpo`?"}
    (change,) = fix["artifactChanges"]
    region = {"startLine": 1, "startColumn": 6, "endLine": 1, "endColumn": 10}
    assert change["artifactLocation"] == {"uri": "a.trace"}
    assert change["replacements"] == [{"deletedRegion": region, "insertedContent": {"text": "grpo"}}]
    assert not any("fixes" in other for other in others)


def test_sarif_of_an_absolute_path_is_a_file_uri(tmp_path: Path) -> None:
    log = json.loads(sarif([lint_text(SHADOWED, path=str(tmp_path / "a.trace"))]))
    place = log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == (tmp_path / "a.trace").as_uri()


def test_a_path_that_is_not_utf8_is_quoted_by_its_bytes() -> None:
    log = json.loads(sarif([lint_text(SHADOWED, path="caf\udce9.trace")]))
    place = log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == "caf%E9.trace"


def test_of_a_long_line_what_stands_around_the_place_is_shown() -> None:
    text = "rest: grpo(w=max(" + "1, " * 200 + "rewrd" + ", 1" * 200 + "))"
    rows = blocks(text)[-1].split("\n")
    assert rows[3].startswith("1 | ... ")
    assert rows[3].endswith(" ...")
    assert len(rows[3]) < 320
    start = rows[4].index("^")
    assert rows[3][start : start + 5] == "rewrd"


def test_summary_counts() -> None:
    clean = lint_text("rest: grpo()", facts())
    assert summary((clean,)) == "1 spec checked, nothing found"
    wrong = lint_text(SHADOWED + "let a = 1", facts())
    assert summary((clean, wrong)) == "2 specs checked: 1 error, 1 warning"


def test_summary_says_how_many_rules_could_not_judge_and_what_they_need() -> None:
    silent = sum(rule.needs_facts for rule in RULES.values())
    note = f"({silent} rules not evaluated: no run given, see --run)"
    clean = lint_text("rest: grpo()")
    assert summary((clean, clean)) == f"2 specs checked, nothing found {note}"
    assert summary((lint_text(SHADOWED),)) == f"1 spec checked: 1 error, 0 warnings {note}"
    one = lint_text("rest: grpo()", selection=RuleSelection(select=frozenset({"dead-advantage"})))
    assert summary((one,)).endswith("(1 rule not evaluated: no run given, see --run)")
    none = lint_text("rest: grpo()", selection=RuleSelection(select=frozenset({"zero-weight"})))
    assert summary((none,)) == "1 spec checked, nothing found"


def test_colours_only_on_a_terminal_that_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    result = lint_text(SHADOWED)
    assert "\x1b[" not in printed(result)
    assert "\x1b[1;31m" in printed(result, force_terminal=True, color_system="standard")
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[1;31m" not in printed(result, force_terminal=True, color_system="standard")


def test_square_brackets_of_a_spec_are_no_markup() -> None:
    assert "[bold]" in printed(lint_text("rest: grpo(w=[bold])"))


def test_long_lines_are_not_folded() -> None:
    text = "rest: grpo(w=" + "1 + " * 60 + "rewrd)"
    assert text in printed(lint_text(text), width=40)


def test_render_reads_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    path.write_text(SHADOWED, encoding="utf-8")
    assert "2 | key when correct: nll()" in render(lint_file(path).errors, path)


def test_an_empty_line_stands_between_findings(tmp_path: Path) -> None:
    path = tmp_path / "a.trace"
    path.write_text("key: nl()\nrest: grp()\n", encoding="utf-8")
    blocks = render(lint_file(path).diagnostics, path).split("\n\n")
    assert [block.partition(":")[0] for block in blocks] == ["error[unknown-name]"] * 2
