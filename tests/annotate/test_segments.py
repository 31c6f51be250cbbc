"""How a response is cut into segments."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_bridge.annotate.segments import segments, trimmed

PIECES = [
    *(
        "a",
        "B",
        "12",
        ".",
        "!",
        "?",
        "。",
        " ",
        "\n",
        "\r\n",
        "$",
        "$$",
        "\\[",
        "\\]",
        "\\(",
        "\\)",
        "```",
        "e.g.",
        "Eq.",
        "\\$",
    ),
    *("\\begin{align}", "\\end{align}", "\\begin{cases}", "\\end{cases}", "\\\\", ")", '"', "\u2003", "😀", "1. "),
]


def cut(text: str) -> list[str]:
    return [text[one.start : one.end] for one in segments(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\t", []),
        ("one", ["one"]),
        ("One. Two! Three? Four", ["One.", " Two!", " Three?", " Four"]),
        ("a\nb\r\nc", ["a\n", "b\r\n", "c"]),
        ("\n\n a\n\nb\n", ["\n\n a\n\n", "b\n"]),
        ("It is 3.5. And 2.", ["It is 3.5.", " And 2."]),
        ("See e.g. Eq. 3 of Dr. B. Smith. Done.", ["See e.g. Eq. 3 of Dr. B. Smith.", " Done."]),
        ("1. First. Then\n  2. Second.", ["1. First.", " Then\n", "  2. Second."]),
        ('He said "so." (Yes.) Then', ['He said "so."', " (Yes.)", " Then"]),
        ("Wait... what?! No.", ["Wait...", " what?!", " No."]),
        ("好。是！吗？", ["好。", "是！", "吗？"]),
        ("Let $a. b$ be. Then \\(c. d\\) is. ", ["Let $a. b$ be.", " Then \\(c. d\\) is. "]),
        ("So\n$$\nx. \ny. \n$$\nEnd.", ["So\n", "$$\nx. \ny. \n$$\n", "End."]),
        ("\\[ a. \nb \\] c. d", ["\\[ a. \nb \\] c.", " d"]),
        (
            "\\begin{align}a. \n\\begin{align}b. \n\\end{align}c. \n\\end{align}\nd",
            ["\\begin{align}a. \n\\begin{align}b. \n\\end{align}c. \n\\end{align}\n", "d"],
        ),
        ("```\nx. y\nz\n``` done. Next", ["```\nx. y\nz\n``` done.", " Next"]),
        ("It costs $5. Or $6\nmore. x", ["It costs $5. Or $6\n", "more.", " x"]),
        ("It costs \\$5. Or \\$6. x", ["It costs \\$5.", " Or \\$6.", " x"]),
        ("never \\[ closed. \\begin{a} x. $$ y. z", ["never \\[ closed.", " \\begin{a} x.", " $$ y.", " z"]),
    ],
)
def test_the_rules(text: str, expected: list[str]) -> None:
    assert cut(text) == expected


@settings(max_examples=300)
@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_segments_joined_are_the_text(text: str) -> None:
    found = segments(text)
    assert "".join(text[one.start : one.end] for one in found) == (text if text.strip() else "")
    assert [one.number for one in found] == list(range(1, len(found) + 1))
    for one in found:
        start, end = trimmed(text, one.start, one.end)
        assert one.start <= start < end <= one.end
        assert text[start:end] == text[one.start : one.end].strip()


@pytest.mark.parametrize(
    "unit", [".", "\n", " ", "$", "$$", "\\[", "\\begin{a}", "a. ", "1. ", ".)", "`", "\\begin{", "$x\n", "$$ \\[ "]
)
def test_hostile_texts_take_linear_time(unit: str) -> None:
    """A quadratic cut of 400,000 characters would not end in a test's time."""
    segments(unit * (400_000 // len(unit)))


def test_many_environments_take_linear_time() -> None:
    segments("".join(f"\\begin{{{'a' * (n % 400 + 1)}}}" for n in range(2000)))
