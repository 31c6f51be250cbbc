"""Specs that start from another."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.language import TRACE
from trace_dsl.expressions import text_of
from trace_dsl.lint import lint_file
from trace_dsl.model import (
    Frozen,
    SelfTeacher,
)


def write(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / f"{name}.trace").write_text(text, encoding="utf-8")
    return folder / "main.trace"


def test_extends_replaces_by_name_and_adds_before_rest(tmp_path: Path) -> None:
    main = write(
        tmp_path,
        base=TRACE,
        main='extends "base.trace"\n'
        "let kl = schedule(0.1, anneal=linear(5))\n"
        "teacher = self(frozen, sees=diagnosis)\n"
        "key: fkl(w=kl)\n"
        "error when mixed: nll()\n",
    )
    result = lint_file(main)
    assert result.diagnostics == ()
    assert result.spec is not None
    assert [route.text for route in result.spec.routes] == ["key", "error when mixed", "rest"]
    weight = result.spec.routes[0].channels[0].weight
    assert text_of(weight) == "schedule(0.1, anneal=linear(5))"
    assert result.spec.teachers[0].source == SelfTeacher(Frozen())


def test_new_routes_go_before_rest_and_new_rest_replaces(tmp_path: Path) -> None:
    main = write(
        tmp_path,
        base="key: nll()\nrest: grpo()",
        main='extends "base.trace"\nrest: none\nother: nll()\n',
    )
    spec = lint_file(main).spec
    assert spec is not None
    assert [route.text for route in spec.routes] == ["key", "other", "rest"]
    assert spec.routes[-1].channels == ()


def test_findings_in_an_extended_spec_name_its_file(tmp_path: Path) -> None:
    main = write(tmp_path, base="key: nll(w=0)\nrest: grpo(w=rewrd)", main='extends "base.trace"\nkey: nll()')
    result = lint_file(main)
    assert [(d.rule, d.place.path, d.place.line) for d in result.diagnostics] == [
        ("unknown-name", str(tmp_path / "base.trace"), 2)
    ]


@pytest.mark.parametrize(
    ("target", "words"),
    [("gone.trace", "no such file"), ("main.trace", "extends this spec"), ("loop.trace", "extends this spec"),
     ("/etc/x.trace", "relative"), ("", "relative")],
)  # fmt: skip
def test_bad_extends(tmp_path: Path, target: str, words: str) -> None:
    main = write(tmp_path, main=f'extends "{target}"\nrest: grpo()\n', loop='extends "main.trace"')
    (found,) = lint_file(main).diagnostics
    assert found.rule == "bad-extends"
    assert words in found.message


def test_a_let_that_is_replaced_in_its_place_reads_a_new_one_of_its_own_file(tmp_path: Path) -> None:
    base = "let b = 1\nrest: grpo(w=b)\n"
    main = write(
        tmp_path,
        base=base,
        main='extends "base.trace"\nlet a = 2\nlet b = a*3\n',
    )
    result = lint_file(main)
    assert result.diagnostics == ()
    assert result.spec is not None
    (loss,) = result.spec.routes[0].channels
    assert text_of(loss.weight) == "6"


def test_a_let_is_still_given_above_the_line_that_reads_it(tmp_path: Path) -> None:
    main = write(tmp_path, base="let b = 1\nrest: grpo(w=b)\n", main='extends "base.trace"\nlet b = a*3\nlet a = 2\n')
    (found,) = lint_file(main).diagnostics
    assert (found.rule, found.message) == ("unknown-name", "`a` is read before its `let`")
