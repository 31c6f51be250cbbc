"""The canonical form: what it looks like, and that it changes neither what a spec says nor its comments."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.language import SHORTEST, TRACE, facts
from trace_dsl.errors import SpecError
from trace_dsl.format import format_source
from trace_dsl.format.sameness import says_the_same
from trace_dsl.lint import lint_text, parse_spec
from trace_dsl.plan import compile_plan
from trace_dsl.spec_files import MAX_BYTES
from trace_dsl.syntax import parse_source
from trace_dsl.syntax.lines import split_lines

ROOT = Path(__file__).parents[2]


def formatted(text: str) -> str:
    return format_source(parse_source("x.trace", text))


# -------------------------------------------------------------------------------------------------------------- looks


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("key  when correct :fkl( w = kl,topk=100 )+grpo(w=1-kl / 0.5)", None),
        ("rest:grpo( )", "rest: grpo()"),
        ("  rest: none  ", "rest: none"),
        ("a|b :none", "a | b: none"),
        ("let x=-  a*- b- -c", "let x = -a*-b - -c"),
        ("let x=(a+b)/( c - 2 )", "let x = (a + b)/(c - 2)"),
        ("let x = ((a))", "let x = ((a))"),
        ("key when not(a<=b)and(c or d): none", "key when not (a <= b) and (c or d): none"),
        ("key: fkl(warmup=10 %,ramp=1 steps,start=30step)", "key: fkl(warmup=10%, ramp=1 step, start=30 steps)"),
        ("let x = f(2E6 tokens, .5, 3., 1.e-3)", "let x = f(2e6 tokens, 0.5, 3.0, 1.0e-3)"),
        ("key: fkl(w=1,)", "key: fkl(w=1)"),
        ("key: fkl(\n  w=1,\n\n  topk=2\n)", "key: fkl(w=1, topk=2)"),
        ("rest: grpo(clip=( 0.2,0.28 ))", "rest: grpo(clip=(0.2, 0.28))"),
        ('teacher   =model( "a # b",sees = nothing )', 'teacher = model("a # b", sees=nothing)'),
        ('extends   "base.trace"', 'extends "base.trace"'),
        ("spans key(cap = 25 %) ,error", "spans key(cap=25%), error"),
        ("rest when has( diagnosis ):none#why", "rest when has(diagnosis): none  #why"),
        ("teacher when = self(frozen)", "teacher when = self(frozen)"),
        ("rest: pg(adv = where(p, gap(when), 0))", "rest: pg(adv=where(p, gap(when), 0))"),
    ],
)
def test_spacing(written: str, canonical: str | None) -> None:
    expected = canonical or "key when correct: fkl(w=kl, topk=100) + grpo(w=1 - kl/0.5)"
    assert formatted(written) == expected + "\n"


def test_neighbours_are_lined_up() -> None:
    squeezed = TRACE.replace("   ", " ").replace("  ", " ").replace("  ", " ")
    assert squeezed != TRACE
    assert formatted(squeezed) == TRACE


@pytest.mark.parametrize("between", ["\n", "# a comment of its own\n", "spans a\n"])
def test_a_blank_line_a_comment_or_another_statement_ends_the_columns(between: str) -> None:
    text = "key when correct: nll()\n" + between + "rest: grpo()\n"
    assert formatted(text) == text


def test_columns_are_given_up_where_a_line_would_get_too_long() -> None:
    long = f"rest: grpo(w={'x' * 102})\n"
    assert formatted("key when correct: nll()\n" + long) == "key when correct: nll()\n" + long
    short = f"rest: grpo(w={'x' * 90})\n"
    aligned = formatted("key when correct: nll()\n" + short)
    assert aligned == "key when correct: nll()\n" + short.replace("rest: ", "rest:             ")
    far = f"key when {'p' * 60}: nll()\nrest: none\n"
    assert formatted(far) == far


def test_long_statements_are_broken_inside_brackets() -> None:
    text = (
        "key when correct: fkl(w=kl, topk=100, tail=bucket) + "
        "grpo(w=1 - kl/0.5, clip=(0.2, 0.28), level=sequence, per=sequence, dual=3)  # both\n"
    )
    assert formatted(text) == (
        "key when correct: fkl(w=kl, topk=100, tail=bucket) + grpo(\n"
        "    w=1 - kl/0.5,\n"
        "    clip=(0.2, 0.28),\n"
        "    level=sequence,\n"
        "    per=sequence,\n"
        "    dual=3,\n"
        ")  # both\n"
    )
    nested = f"let x = clip({'a' * 70} + {'b' * 60}, f({'c' * 70}, {'d' * 60}), ({'e' * 70} + {'f' * 60}))\n"
    assert formatted(nested) == (
        "let x = clip(\n"
        f"    {'a' * 70} + {'b' * 60},\n"
        "    f(\n"
        f"        {'c' * 70},\n"
        f"        {'d' * 60},\n"
        "    ),\n"
        "    (\n"
        f"        {'e' * 70} + {'f' * 60}\n"
        "    ),\n"
        ")\n"
    )


@pytest.mark.parametrize("extra", [0, 1])
def test_120_columns_are_one_line_and_121_are_not(extra: int) -> None:
    text = f"rest: grpo(w={'x' * (120 - 14 + extra)})"
    assert len(text) == 120 + extra
    assert (formatted(text) == text + "\n") is (extra == 0)


def test_comments_stay_where_they_belong() -> None:
    text = (
        "#first\n\n\n\n# second\nkey: fkl( # one\n   # two\n   w=1 -(a # three\n   + b) # four\n   , # five\n"
        " topk=3 # six\n # seven\n)# eight\n# last"
    )
    assert formatted(text) == (
        "#first\n\n# second\n"
        "key: fkl(  # one\n"
        "    # two\n"
        "    w=1 - (\n"
        "        a  # three\n"
        "            + b\n"
        "    ),  # four\n"
        "    # five\n"
        "    topk=3,  # six\n"
        "    # seven\n"
        ")  # eight\n"
        "# last\n"
    )


def test_blank_lines_are_kept_up_to_one_and_none_stands_at_an_end() -> None:
    assert formatted("\n\nkey: none\n\n\n\nrest: none\n\n\n") == "key: none\n\nrest: none\n"
    assert formatted("\n \n\t\n") == ""
    assert formatted("# only\n\n\n") == "# only\n"


def test_an_ignore_comment_keeps_the_lines_it_speaks_to() -> None:
    long = f"rest: grpo(w={'x' * 130}, clip=0.2)  # trace: ignore[zero-weight] measured\n"
    assert formatted(long) == long
    written = "key:  fkl(w=0,\n  per=token) +  nll(w=0, # trace: ignore[zero-weight] one of them\n    per=token)\n"
    assert formatted(written) == written
    assert formatted(written.replace("# trace: ignore[", "# [")) != written


# --------------------------------------------------------------------------------------------------------- properties

# Whole files are rewritten character by character: many draws an example, on purpose.
_LONG_TEXTS = [HealthCheck.too_slow, HealthCheck.data_too_large]
_COMMENTS = ["# why", "#", "# trace: ignore[zero-weight] an ablation", '# a "quoted" word', "## ) ,"]
_BREAKS = ["  ", "\n    ", " # why\n      ", "\n\n  # ab, (c\n  ", " # x\n # y\n\n  "]
_SPECS = [
    TRACE,
    SHORTEST,
    'extends "base.trace"\nrollouts hinted = policy(sees=solution, when=all_wrong and not mixed, n=2)\nrest: none\n',
    "let x = clip((1 + -2*step)/f(3 steps, 2e6 tokens), 0.1, max(a, b, (c - d)))\na | b when p < 1 or q: nll(w=x)\n",
    f"key: jsd(0.5, w=where({'long' * 12}, 1, 0), topk=64, tail=bucket) + grpo(clip=(1, 2), anchor=mix(old, t, 0.5))\n",
    *(path.read_text(encoding="utf-8") for path in sorted((ROOT / "specs").rglob("*.trace"))[:6]),
]


@st.composite
def rewritten(draw: st.DrawFn) -> str:
    """A spec with its blanks changed, and comments and line ends put between words and lines."""
    words: list[str] = []
    text = draw(st.sampled_from(_SPECS))
    depth = 0
    in_string = in_comment = False
    for character in text:
        in_comment = character != "\n" and (in_comment or (character == "#" and not in_string))
        in_string = character != "\n" and not in_comment and in_string ^ (character == '"')
        depth += 0 if in_string or in_comment else (character == "(") - (character == ")")
        quiet = in_string or in_comment
        if depth and not quiet and character in ",)" and draw(st.integers(0, 5)) == 0:
            words.append(draw(st.sampled_from(_BREAKS)))
        words.append(character)
        if depth and not quiet and character in "(,=+-*/" and draw(st.integers(0, 5)) == 0:
            words.append(draw(st.sampled_from(_BREAKS)))
        elif character == "\n" and depth == 0 and draw(st.integers(0, 5)) == 0:
            words.append(draw(st.sampled_from(["\n", "\n\n\n", *(f"{c}\n" for c in _COMMENTS), "  # in\n"])))
        elif character in ":=" and depth == 0 and not quiet and draw(st.booleans()):
            words.append("   ")
    return "".join(words)


def comments_of(text: str) -> list[str]:
    return [comment.text for comment in split_lines(text).comments]


@settings(max_examples=250, suppress_health_check=_LONG_TEXTS)
@given(rewritten())
def test_formatting_says_the_same_keeps_comments_and_is_stable(text: str) -> None:
    parsed = parse_source("x.trace", text)
    if any(found.rule == "syntax" for found in parsed.diagnostics):
        with pytest.raises(SpecError, match="does not parse"):
            format_source(parsed)
        return
    once = format_source(parsed)
    assert says_the_same(parsed, parse_source("x.trace", once))
    assert comments_of(once) == comments_of(text)
    assert formatted(once) == once
    assert not any(line != line.rstrip() for line in once.split("\n"))
    assert "\n\n\n" not in once


@settings(max_examples=60, suppress_health_check=_LONG_TEXTS)
@given(rewritten(), st.sampled_from([" # trace: ignore[no-default-route, zero-weight] meant", ""]))
def test_formatting_changes_no_finding(text: str, comment: str) -> None:
    """Ignore comments included: they silence the same findings before and after."""
    text = text.replace("(clip", f"(w=0,{comment}\n  clip") if comment else text
    if any(found.rule == "syntax" for found in parse_source("x.trace", text).diagnostics):
        return
    before, after = lint_text(text, facts()), lint_text(formatted(text), facts())
    assert sorted(found.rule for found in before.diagnostics) == sorted(found.rule for found in after.diagnostics)


def test_the_generator_of_rewritten_specs_reaches_what_it_is_for() -> None:
    """Sameness can fail: a changed number, a lost ignore comment and a moved bracket are all seen."""
    one = parse_source("x", "rest: grpo(w=0)  # trace: ignore[zero-weight] an ablation\n")
    for other in (
        "rest: grpo(w=0.0)  # trace: ignore[zero-weight] an ablation\n",
        "rest: grpo(w=0)\n",
        "rest: grpo(w=(0, 0))  # trace: ignore[zero-weight] an ablation\n",
    ):
        assert not says_the_same(one, parse_source("x", other))
    assert says_the_same(one, parse_source("x", "rest:\tgrpo( w=(0), ) # trace: ignore [zero-weight] an ablation"))


@pytest.mark.parametrize("path", sorted((ROOT / "specs").rglob("*.trace")), ids=lambda path: path.stem)
def test_a_formatted_spec_keeps_its_plan(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    run = facts(contexts=("diagnosis", "solution", "sibling", "feedback"))
    plans = []
    for version in (text, formatted(text)):
        spec, found = parse_spec(version, path=str(path))
        assert spec is not None, found
        plans.append(compile_plan(spec, run).hash)
    assert plans[0] == plans[1]


@pytest.mark.parametrize("text", ["key: fkl(w=1\nrest: grpo()\n", "key: nll()\n    + grpo()\n", "let x == 2\n"])
def test_what_does_not_parse_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"x\.trace does not parse"):
        formatted(text)


def test_a_statement_that_spaces_would_make_too_long_stays_as_it_is() -> None:
    text = "key: " + "+".join(f"nll(w=step+{index:04})" for index in range(1000)) + "\nrest:none\n"
    once = formatted(text)
    assert once == text.replace("rest:none", "rest: none")
    assert formatted(once) == once


def test_a_spec_that_would_be_too_large_to_read_is_not_formatted() -> None:
    text = "".join(f"key when a and b:{'+'.join(['nll(w=step+1,per=token)'] * 7)}\n" for _ in range(1060))
    assert len(text) < MAX_BYTES
    with pytest.raises(SpecError, match=r"is not formatted: it would have more than 200,000 bytes"):
        formatted(text)
