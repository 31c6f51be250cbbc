"""What is offered at the cursor, on lines that are only half written."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lsprotocol import types

from tests.language import TRACE
from tests.lsp import CURSOR, applied, with_cursor
from trace_dsl.checks import RULES
from trace_dsl.explain import find
from trace_dsl.lint import lint_text
from trace_dsl.lsp.completion import completion
from trace_dsl.lsp.files import paths_after
from trace_dsl.lsp.names import Role
from trace_dsl.lsp.slots import MAKERS, words
from trace_dsl.rules import LANGUAGE_RULES
from trace_dsl.vocabulary import ARGUMENT_WORDS, FUNCTIONS, HAS, LOSSES, SEES, SIGNALS, STATEMENTS

ABOVE = """\
spans   key(cap=25%), error(cap=25%)
teacher big = model("\N{GRINNING FACE}")
let kl  = schedule(0.5, warmup=10, anneal=linear(30))
rollouts hinted = policy(sees=solution, n=2)
"""
LOSS_NAMES = {*LOSSES, "none"}
OPERANDS = {"kl", *SIGNALS, *FUNCTIONS}
FKL = {f"{name}=" for name in LOSSES["fkl"].arguments}


def offered(line: str, *, above: str = ABOVE, below: str = "\nrest: grpo()\n") -> list[str]:
    line = line if CURSOR in line else line + CURSOR
    spec, position = with_cursor(above + line + below)
    return [item.label for item in completion(spec, position)]


@pytest.mark.parametrize(
    ("line", "labels"),
    [
        ("", {"key", "error", "rest", *STATEMENTS}),
        ("te", {"key", "error", "rest", *STATEMENTS}),
        ("key ", {"when"}),
        ("key | ", {"key", "error"}),
        ("key when ", {*OPERANDS, "rows", "not"}),
        ("key when corr", {*OPERANDS, "rows", "not"}),
        ("key when correct ", {"and", "or"}),
        ("key when not (correct or ", {*OPERANDS, "rows", "not"}),
        ("key when source == ", {"model", "tool"}),
        ("key when source != to", {"model", "tool"}),
        ("key when rows == ", {"policy", "hinted"}),
        ("key when has(", set(HAS)),
        ("key: ", LOSS_NAMES),
        ("key: fk", LOSS_NAMES),
        ("key: fkl() + ", LOSS_NAMES),
        ("key: fkl(", FKL),
        ("key: fkl(w=0.5, ", FKL - {"w="}),
        ("key: fkl(w=0.5, t‸opk=3) + grpo()", FKL - {"w="}),
        ("key: fkl(w=", OPERANDS),
        ("key: fkl(w=1 - k", OPERANDS),
        ("key: fkl(teacher=", {"big"}),
        ("key: fkl(per=", set(ARGUMENT_WORDS["per"])),
        ("key: fkl(tail=bu", set(ARGUMENT_WORDS["tail"])),
        ("key: fkl(of=", {"teacher", "student"}),
        ("key: fkl(anneal=", set(ARGUMENT_WORDS["anneal"])),
        ("key: grpo(level=", {"token", "sequence"}),
        ("key: grpo(anchor=mix(", {"old"}),
        ("key: grpo(anchor=mix(old, ", {"big"}),
        ("key: grpo(w=gap(", {"big"}),
        ("key: grpo(w=mean(reward, over=", {"row", "group", "micro", "batch"}),
        ("key: k3(", {"ref", "base", "old", *(f"{name}=" for name in LOSSES["k3"].arguments)}),
        ("let ", set()),
        ("let x = ", OPERANDS),
        ("let x = schedule(1, ", {"start=", "ramp=", "warmup=", "anneal=", "floor="}),
        ("teacher x = ", {"self", "model"}),
        ("teacher = self(", {"sync=", "ema=", "frozen", "sees="}),
        ("teacher = self(sync=3, sees=", set(SEES)),
        ("advantage = ", {"group", "loo", "none"}),
        ("advantage = group(scale=", {"std", "none"}),
        ("rollouts x = ", {"policy", "cached"}),
        ("rollouts x = policy(sees=", set(SEES)),
        ("spans key(", {"cap="}),
        ('teacher x = model("ke', set()),
        ('extends "', set()),
        ("extends = ", set()),
        ("spans = ", set()),
        ("key: nll(w=3", set()),
        ("key: nll()  # fkl(", set()),
        ("key: fkl(\n    w=kl,\n    ", FKL - {"w="}),
        ("key: fkl(  # why\n    per=", set(ARGUMENT_WORDS["per"])),
    ],
)
def test_what_is_offered(line: str, labels: set[str]) -> None:
    assert set(offered(line)) == labels


@pytest.mark.parametrize(
    "line", ["# trace: ignore[", "rest: nll()  # trace: ignore[zero-we", "# trace:ignore[zero-weight, ha"]
)
def test_rules_in_an_ignore_comment(line: str) -> None:
    language = {rule.name for rule in LANGUAGE_RULES}
    assert set(offered(line)) == set(RULES) - language - {"unused-suppression"}


def test_a_let_is_offered_below_its_line_only() -> None:
    assert "kl" not in offered("let early = ", above="", below="\nlet kl = 1\nrest: grpo()\n")


def test_spans_offers_labels_that_routes_use() -> None:
    assert offered("spans a, ", above="", below="\na: nll()\nb | c: nll()\nrest: grpo()\n") == ["b", "c"]


def test_without_declarations() -> None:
    assert offered("key: fkl(teacher=", above="") == ["teacher"]
    assert offered("", above="first: nll()\n")[0] == "first"


@pytest.mark.parametrize(
    ("line", "label", "result"),
    [
        ("key: fkl(te‸)", "teacher=", "key: fkl(teacher=)"),
        ('key: nll(w="\N{GRINNING FACE}", p‸)', "per=", 'key: nll(w="\N{GRINNING FACE}", per=)'),
        ("rest: nll()  # \N{GRINNING FACE}\n# trace: ignore[zero-we‸]", "zero-weight", None),
    ],
)
def test_the_word_at_the_cursor_is_replaced(line: str, label: str, result: str | None) -> None:
    spec, position = with_cursor(line)
    item = next(item for item in completion(spec, position) if item.label == label)
    assert item.text_edit is not None
    expected = result or line.replace("zero-we\u2038", "zero-weight")
    assert applied(spec, [item.text_edit]) == expected  # type: ignore[list-item]  # a plain edit


def test_offers_say_what_they_mean() -> None:
    spec, position = with_cursor("key: ‸\n")
    item = next(item for item in completion(spec, position) if item.label == "fkl")
    assert item.detail == "KL(teacher || student)"
    assert item.documentation is not None
    spec, position = with_cursor("rest: grpo(‸\n")
    details = {item.label: item.detail or "" for item in completion(spec, position)}
    assert details["clip="].startswith("keeps the ratio within 1 - lo and 1 + hi (takes `(lo, hi)`")


def test_every_word_that_is_offered_means_something_and_lints() -> None:
    for argument, choices in ARGUMENT_WORDS.items():
        for word in choices:
            value = {"const": "const(9)", "mix": "mix(old, teacher, 0.5)"}.get(word, word)
            statement = {
                "sees": f"teacher = self(frozen, sees={value})\nrest: fkl(anneal=cos)\n",
                "center": f"advantage = group(center={value})\nrest: grpo()\n",
                "scale": f"advantage = group(scale={value})\nrest: grpo()\n",
                "over": f"rest: grpo(w=mean(logp, over={value}))\n",
                "level": f"rest: grpo(level={value})\n",
                "anchor": f"rest: grpo(anchor={value})\n",
                "to": f"rest: k3(to={value})\n",
            }.get(argument, f"rest: fkl(topk=9, {argument}={value})\n")
            assert not lint_text(statement).errors, statement
    for maker in MAKERS.values():
        for arguments in maker.values():
            assert all(find(name) for name in arguments)


JUNK = [*'()=:+|,"#[]. \n\t', "w", "fkl", "key", "when", "let", "teacher", "\N{GRINNING FACE}"]


@settings(max_examples=150)
@given(st.data())
def test_any_text_at_any_place_is_answered(data: st.DataObject) -> None:
    junk = st.lists(st.sampled_from(JUNK), max_size=12).map("".join)
    at = data.draw(st.integers(0, len(TRACE)))
    text = TRACE[:at] + data.draw(junk) + CURSOR + data.draw(junk) + TRACE[at:]
    spec, position = with_cursor(text)
    for item in completion(spec, position):
        assert item.text_edit is not None
    assert all(one.role in Role for one in spec.names)


@given(st.text(max_size=40))
@settings(max_examples=100)
def test_words_of_any_text(text: str) -> None:
    assert "".join("".join(word.text for word in words(text)).split()) == "".join(text.split())


@pytest.mark.parametrize(
    ("line", "paths"),
    [
        ('extends "‸', ["base.trace", "more/", "other name.trace"]),
        ('key: nll()\nextends "ba‸se.trace"', ["base.trace", "more/", "other name.trace"]),
        ('extends "more/‸', ["more/deep.trace"]),
        ('extends "./more/d‸', ["./more/deep.trace"]),
        ('extends "../‸', ["../open/"]),
        ('extends "gone/‸', []),
        ('extends "/‸', []),
        ('# extends "‸', []),
        ('let x = "‸', []),
        ('teacher = model("‸', []),
        ('extends "base.trace"‸', []),
    ],
)
def test_paths_of_extends(tmp_path: Path, line: str, paths: list[str]) -> None:
    folder = tmp_path / "open"
    (folder / "more").mkdir(parents=True)
    for name in ("spec.trace", "base.trace", "other name.trace", "notes.md", ".hidden.trace", "more/deep.trace"):
        (folder / name).write_text("rest: grpo()\n", encoding="utf-8")
    spec, position = with_cursor(line, path=folder / "spec.trace")
    found = completion(spec, position)
    assert [item.label for item in found] == paths
    for item in found:
        assert isinstance(item.text_edit, types.TextEdit)
        written = applied(spec, [item.text_edit]).split("\n")[-1]
        assert written.startswith(f'extends "{item.label}')


def test_paths_that_no_file_has(tmp_path: Path) -> None:
    (tmp_path / "loop.trace").symlink_to("loop.trace")
    (tmp_path / "spec.trace").write_text("rest: none\n", encoding="utf-8")
    (tmp_path / "same.trace").symlink_to("spec.trace")
    assert list(paths_after(tmp_path / "spec.trace", "")) == ["loop.trace"]
    assert list(paths_after(tmp_path / "spec.trace", "\0/")) == []
