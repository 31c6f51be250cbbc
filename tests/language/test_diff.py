"""What two specs do differently: every kind of change fires, and what is only written differently does not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from tests.language import TRACE, facts
from trace_dsl.cli.main import app
from trace_dsl.facts import RunFacts
from trace_dsl.format import format_source
from trace_dsl.lint import parse_spec
from trace_dsl.model import Spec
from trace_dsl.plan.difference import Change, Difference, difference
from trace_dsl.plan.weights_over_run import Sample
from trace_dsl.plan.wording import losses_text, route_name
from trace_dsl.syntax import parse_source

ROOT = Path(__file__).parents[2]


def spec(text: str) -> Spec:
    found, errors = parse_spec(text)
    assert found is not None, errors
    return found


def changes(old: str, new: str, run: RunFacts | None = None) -> Difference:
    return difference(spec(old), spec(new), run)


def told(found: Difference) -> list[tuple[str, str, str | None, str | None]]:
    return [(change.where, change.what, change.old, change.new) for change in found.changes]


# -------------------------------------------------------------------------------------------------------------- fires


@pytest.mark.parametrize(
    ("old", "new", "where", "what", "before", "after"),
    [
        ("rest: none", "key: nll()\nrest: none", "route `key`", "route 1", None, "nll()"),
        ("key: nll()\nrest: none", "rest: none", "route `key`", "route 1", "nll()", None),
        ("key: nll()\nerror: none", "error: none\nkey: nll()", "route `key`", "place", "route 1", "route 2"),
        ("key when correct: nll()", "key when mixed: nll()", "route `key when mixed`", "predicate", "correct", "mixed"),
        ("key: nll()", "key when wrong: nll()", "route `key when wrong`", "predicate", "always", "wrong"),
        ("key: nll()", "key | error: nll()", "route `key | error`", "labels", "key", "key | error"),
        ("rest: nll()", "rest: nll() + grpo()", "route `rest`", "loss", None, "grpo()"),
        ("rest: nll() + grpo(w=2)", "rest: nll()", "route `rest`", "loss", "grpo(w=2)", None),
        ("rest: nll()", "rest: nll(w=2)", "route `rest`", "weight of nll", "1", "2"),
        ("rest: nll(w=gap)", "rest: nll(w=-gap)", "route `rest`", "weight of nll", "gap", "-gap"),
        ("rest: nll()", "rest: nll(per=token)", "route `rest`", "denominator of nll", "sequence", "token"),
        (
            "rest: nll(per=const(8))",
            "rest: nll(per=const(9))",
            "route `rest`",
            "denominator of nll",
            "const(8)",
            "const(9)",
        ),
        ("key: fkl()", "key: fkl(topk=8)", "route `key`", "topk of fkl", "none", "8"),
        ("key: jsd(0.4)", "key: jsd(0.5)", "route `key`", "beta of jsd", "0.4", "0.5"),
        ("rest: grpo()", "rest: grpo(clip=0.3)", "route `rest`", "clip of grpo", "(0.2, 0.2)", "(0.3, 0.3)"),
        ("rest: grpo()", "rest: grpo(dual=3)", "route `rest`", "dual of grpo", "none", "3"),
        ("rest: pg(adv=gap)", "rest: pg(adv=2*gap)", "route `rest`", "adv of pg", "gap", "2*gap"),
        ("rest: cispo(high=1)", "rest: cispo(high=2)", "route `rest`", "high of cispo", "1", "2"),
        ("rest: k3()", "rest: k3(old)", "route `rest`", "to of k3", "ref", "old"),
        ("spans key(cap=25%)", "spans key(cap=0.3)", "span `key`", "", "cap=25%", "cap=30%"),
        ("spans key, error", "spans key", "span `error`", "", "no cap", None),
        ("advantage = loo", "advantage = group", "advantage", "", "loo", "group(scale=std)"),
        ("advantage = group(scale=none)", "", "advantage", "", "group(scale=none)", "group(scale=std)"),
        (
            "teacher = self(sync=5)",
            "teacher = self(ema=0.1)",
            "teacher `teacher`",
            "",
            "self(sync=5, sees=nothing)",
            "self(ema=0.1, sees=nothing)",
        ),
        (
            "teacher = self(frozen)",
            "teacher = self(frozen, sees=solution)",
            "teacher `teacher`",
            "",
            "self(frozen, sees=nothing)",
            "self(frozen, sees=solution)",
        ),
        (
            'teacher t = model("a")',
            'teacher t = model("b")',
            "teacher `t`",
            "",
            'model("a", sees=nothing)',
            'model("b", sees=nothing)',
        ),
        ("rollouts r = policy(n=2)", "rollouts r = policy(n=3)", "rollouts `r`", "", "policy(n=2)", "policy(n=3)"),
    ],
)
def test_each_kind_of_change_is_told_alone(
    old: str, new: str, where: str, what: str, before: str | None, after: str | None
) -> None:
    tail = "\nteacher used = self(frozen)\nrest: rkl(teacher=used)"
    if not old.startswith(("spans", "advantage", "teacher", "rollouts")):
        tail = ""
    elif old.startswith("spans"):
        tail = "\nkey: nll()"
    found = changes(old + tail, new + tail)
    assert told(found) == [(where, what, before, after)]
    assert found.old_hash != found.new_hash
    if what not in ("place", "route 1"):
        assert [line[1:] for line in told(changes(new + tail, old + tail))] == [(what, after, before)]


def test_a_new_route_in_the_middle_moves_nothing() -> None:
    old = "key: nll()\nerror: none\nrest: grpo()\n"
    new = "key: nll()\nkey | error when mixed: nll(w=2)\nerror: none\nrest: grpo()\n"
    assert told(changes(old, new)) == [("route `key | error when mixed`", "route 2", None, "nll(w=2)")]


def test_the_fewest_routes_move() -> None:
    old = "a: nll()\nb: nll(w=2)\nc: nll(w=3)\nd: nll(w=4)\n"
    new = "b: nll(w=2)\nc: nll(w=3)\nd: nll(w=4)\na: nll()\n"
    assert told(changes(old, new)) == [("route `a`", "place", "route 1", "route 4")]


def test_routes_of_one_label_are_told_apart_by_what_they_do() -> None:
    old = "key when correct: nll()\nkey when wrong: grpo()\n"
    assert told(changes(old, "key when mixed: grpo()\n")) == [
        ("route `key when correct`", "route 1", "nll()", None),
        ("route `key when mixed`", "predicate", "wrong", "mixed"),
    ]


def test_rows_are_part_of_a_route() -> None:
    extra = "rollouts r = policy(n=2)\n"
    found = changes(extra + "rest: nll()", extra + "rest when rows == r and correct: nll()")
    assert told(found) == [
        ("route `rest`", "route 1", "nll()", None),
        ("route `rest when rows == r and correct`", "route 1", None, "nll()"),
    ]


# ----------------------------------------------------------------------------------------------------------- near miss


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (TRACE, "# another comment\n" + TRACE.replace("  ", " ")),
        (TRACE, TRACE.replace("kl ", "weight ").replace("=kl", "=weight").replace("kl/", "weight/")),
        ("let kl = 0.5\nrest: grpo(w=kl)", "rest: grpo(w=0.5)"),
        ("let kl = schedule(0.5, anneal=cos)\nkey: fkl(w=kl)", "key: fkl(w=0.5, anneal=cos)"),
        ("key: fkl()", "teacher = self(sync=10, sees=diagnosis)\nkey: fkl()"),
        ("rest: grpo()", "rest: pg(adv=A, clip=(0.2, 0.2), per=sequence, w=1.0)"),
        ("rest: grpo()", "advantage = group(center=mean, scale=std)\nrest: grpo()"),
        ("key: nll()", "spans key\nkey: nll()"),
        ("key: fkl(warmup=10, anneal=cos)", "key: fkl(warmup=10 steps, anneal=cos)"),
        ("key when (correct): nll()", "key when correct: nll()"),
        ("rest: nll(w=1 - 2*0.25)", "rest: nll(w=0.5)"),
    ],
)
def test_what_is_only_written_differently_is_no_difference(old: str, new: str) -> None:
    found = changes(old, new)
    assert (found.changes, found.notes) == ((), ())
    assert found.old_hash == found.new_hash


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("key | error: nll()", "error | key: nll()"),
        ("rest: nll() + grpo()", "rest: grpo() + nll()"),
        ("spans key, error\nkey | error: nll()", "spans error, key\nkey | error: nll()"),
    ],
)
def test_an_order_without_meaning_is_a_note(old: str, new: str) -> None:
    found = changes(old, new)
    assert found.changes == ()
    assert found.notes == ("labels, losses or declarations stand in another order, with the same meaning",)


# ---------------------------------------------------------------------------------------------------- over the steps


def weights(old: str, new: str, steps: int = 100) -> Change:
    (change,) = changes(f"rest: nll({old})", f"rest: nll({new})", facts(total_steps=steps)).changes
    return change


def test_weights_differ_at_the_steps_where_they_do() -> None:
    over_run = weights("w=1, warmup=10, anneal=linear(10)", "w=1, warmup=20, anneal=linear(10)").over_run
    assert over_run is not None
    assert over_run.ranges == ((11, 29),)
    assert over_run.samples[0] == Sample(step=11, old="0.9", new="1")
    assert over_run.samples[-1] == Sample(step=29, old="0", new="0.1")
    # 1 - 0 at step 20 is the widest the two are apart
    assert over_run.samples[1] == Sample(step=20, old="0", new="1")


def test_stretches_are_apart_where_weights_cross() -> None:
    over_run = weights("w=step", "w=abs(step - 4)", 8).over_run
    assert over_run is not None
    assert over_run.ranges == ((0, 1), (3, 7))


def test_what_the_batch_sets_may_differ_except_where_both_are_zero() -> None:
    over_run = weights("w=ratio*schedule(1, anneal=linear(5))", "w=ratio*schedule(2, anneal=linear(5))", 10).over_run
    assert over_run is not None
    assert over_run.ranges == ((0, 4),)
    assert over_run.samples == (
        Sample(step=0, old="set by the batch", new="set by the batch"),
        Sample(step=4, old="set by the batch", new="set by the batch"),
    )


def test_a_weight_without_a_value_is_undefined_not_a_crash() -> None:
    over_run = weights("w=1/step", "w=1/(step + 1)", 3).over_run
    assert over_run is not None
    assert over_run.samples[0] == Sample(step=0, old="undefined", new="1")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("w=1, warmup=10, anneal=cos", "w=1, warmup=10%, anneal=cos"),
        ("w=schedule(1, anneal=cos) + 0", "w=1, anneal=cos"),
        ("w=1 - schedule(0.5, anneal=linear(30))/0.3", "w=1 - schedule(0.5, anneal=linear(30))*(1/0.3)"),
        ("w=1, start=200", "w=0"),
        ("w=0.3*step", "w=step*0.1*3"),
        ("w=1/(step - 3)", "w=1/(step - 3)*(1 + 0*step)"),
    ],
)
def test_weights_that_are_the_same_in_this_run_are_a_note(old: str, new: str) -> None:
    texts = f"rest: nll({old})", f"rest: nll({new})"
    assert [change.what for change in changes(*texts).changes] == ["weight of nll"]
    found = changes(*texts, facts(total_steps=100))
    assert found.changes == ()
    assert found.notes == (
        "route `rest`: weight of nll is written in another way and the same at every step of this run",
    )
    longer = changes(*texts, facts(total_steps=1000))
    assert bool(longer.changes) is ("10%" in new or "200" in old)


# ----------------------------------------------------------------------------------------------------------- property

_ROUTES = [
    "key when correct: fkl(w=0.5, anneal=cos)",
    "key: nll() + grpo()",
    "error | key: jsd(0.5, topk=8, tail=bucket)",
    "error when wrong: rkl(w=gap, per=token)",
    "error: none",
    "rest when has(solution): cispo(high=0.3)",
    "rest: grpo(clip=(0.2, 0.28)) + entropy(w=0.01)",
]
_DECLARED = ["", "spans key(cap=25%), error", "advantage = loo", "teacher = self(ema=0.1, sees=solution)"]


@st.composite
def specs(draw: st.DrawFn) -> str:
    routes = draw(st.lists(st.sampled_from(_ROUTES), min_size=1, max_size=5))
    return "\n".join([draw(st.sampled_from(_DECLARED)), *routes])


@settings(max_examples=200)
@given(specs(), specs())
def test_there_is_nothing_to_tell_exactly_when_the_hashes_agree(old: str, new: str) -> None:
    found = changes(old, new)
    assert (found.old_hash == found.new_hash) is not bool(found.changes or found.notes)
    formatted = format_source(parse_source("x", new))
    assert changes(formatted, new).changes == ()
    # what is told of the way there is told of the way back
    back = changes(new, old)
    assert len([c for c in found.changes if c.old is None]) == len([c for c in back.changes if c.new is None])


@pytest.mark.parametrize("path", sorted((ROOT / "specs").rglob("*.trace")), ids=lambda path: path.stem)
def test_routes_and_losses_are_worded_so_that_they_read_back(path: Path) -> None:
    """`diff` shows losses as a spec could write them."""
    one, _ = parse_spec(path.read_text(encoding="utf-8"), path=str(path))
    assert one is not None
    kept = [
        line
        for line in format_source(parse_source("x", path.read_text(encoding="utf-8"))).split("\n")
        if line.startswith(("teacher", "spans", "rollouts", "advantage", "extends"))
    ]
    again = spec("\n".join([*kept, *(f"{route_name(route)}: {losses_text(route)}" for route in one.routes)]))
    assert [(r.labels, r.when, r.rows) for r in again.routes] == [(r.labels, r.when, r.rows) for r in one.routes]
    pairs = zip(again.routes, one.routes, strict=True)
    assert [len(a.channels) for a in again.routes] == [len(b.channels) for b in one.routes]
    assert all(
        x.kernel == y.kernel and x.per == y.per for a, b in pairs for x, y in zip(a.channels, b.channels, strict=True)
    )


# -------------------------------------------------------------------------------------------------------- command line


def diff(*arguments: str, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, ["diff", *arguments], input=stdin)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.trace").write_text(TRACE, encoding="utf-8")
    new = TRACE.replace("linear(30)", "linear(40)").replace("cap=25%), error", "cap=30%), error")
    (tmp_path / "new.trace").write_text(new.replace("error when wrong:", "error when mixed:"), encoding="utf-8")
    (tmp_path / "same.trace").write_text(f"# comment\n{TRACE}", encoding="utf-8")
    (tmp_path / "broken.trace").write_text("rest: grop()\n", encoding="utf-8")
    return tmp_path


def test_a_difference_in_full(folder: Path) -> None:
    result = diff("old.trace", "new.trace")
    assert result.exit_code == 1
    kl = "schedule(0.5, warmup=10, anneal=linear(30))", "schedule(0.5, warmup=10, anneal=linear(40))"
    assert result.stdout == (
        "span `key`\n"
        "  cap=25% -> cap=30%\n"
        "route `key when correct`\n"
        f"  weight of fkl: {kl[0]} -> {kl[1]}\n"
        f"  weight of grpo: 1 - {kl[0]}/0.5 -> 1 - {kl[1]}/0.5\n"
        "route `error when mixed`\n"
        "  predicate: wrong -> mixed\n"
        f"  weight of grpo: 1 - {kl[0]}/0.5 -> 1 - {kl[1]}/0.5\n"
        "old.trace -> new.trace: 5 differences\n"
    )


def test_a_run_file_says_at_which_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    text = Path("specs/demo/trace.trace").read_text(encoding="utf-8").replace("linear(30)", "linear(20)")
    result = diff("-", "specs/demo/trace.trace", "--run", "specs/demo/run.yaml", stdin=text)
    assert result.exit_code == 1, result.stderr
    assert "    differs at steps 11-39 of 0-59\n    at step 11: 0.475 -> 0.4833\n" in result.stdout
    assert result.stdout.endswith(": a checkpoint of one does not go on under the other\n")
    same = diff("specs/demo/trace.trace", "-", "--run", "specs/demo/run.yaml", stdin=text.replace("(20)", "(30)"))
    assert (same.exit_code, same.stdout.count("\n")) == (0, 2)
    assert "both have the plan " in same.stdout


def test_equal_specs_are_0(folder: Path) -> None:
    result = diff("old.trace", "same.trace")
    assert (result.exit_code, result.stdout) == (0, "old.trace -> same.trace: the same in meaning\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["old.trace", "gone.trace"], "gone.trace cannot be read: no such file"),
        (["broken.trace", "old.trace"], "broken.trace has errors:\nerror[unknown-name]"),
        (["-", "-"], "standard input holds one spec"),
        (["old.trace", "new.trace", "--run", "gone.yaml"], "gone.yaml"),
    ],
)
def test_what_cannot_be_compared_is_2(folder: Path, arguments: list[str], words: str) -> None:
    result = diff(*arguments, stdin="rest: none\n")
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr


def test_help_teaches_with_an_example() -> None:
    assert "Example: git show HEAD:specs/demo/trace.trace | trace-dsl diff -" in diff("--help").stdout


def test_no_colour_is_asked_of_a_pipe(folder: Path) -> None:
    assert "\x1b" not in diff("old.trace", "new.trace").stdout
    assert "NO_COLOR" not in os.environ or os.environ["NO_COLOR"]
