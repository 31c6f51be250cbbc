"""Reading rollouts: what a run writes, what anybody else has, and what is refused with which words."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trace_dsl.preview.rollouts import RolloutsError, read_rollouts
from trace_dsl.preview.tokens import tokens_met, words

GOOD = {"prompt": "1 + 1 =", "response": "It is 2.", "reward": 1}


def read(folder: Path, *lines: Any, name: str = "own.jsonl") -> Any:
    path = folder / name
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines) + "\n", encoding="utf-8")
    return read_rollouts(path)


def test_a_line_of_ones_own_needs_three_keys(tmp_path: Path) -> None:
    file = read(tmp_path, GOOD, {**GOOD, "prompt": "2 + 2 =", "reward": 0.5}, "", {**GOOD, "correct": False})
    one, two, three = file.rollouts
    assert (one.correct, two.correct, three.correct) == (True, False, False)
    assert (one.group, two.group, three.group) == (0, 1, 0)
    assert [one.response[a:b] for a, b in one.intervals] == ["It", " is", " 2."]
    assert (one.line, three.line) == (1, 4)
    assert file.made_of_words == 3
    named = read(tmp_path, GOOD, {**GOOD, "group": "algebra-7"}, {**GOOD, "group": 338})
    assert [line.group_name for line in named.rollouts] == ["1", "algebra-7", "338"]
    assert file.step is None


def test_a_line_of_a_run(tmp_path: Path) -> None:
    line = {
        "group": 320, "prompt": "p", "response": "ab", "finish": "stop", "reward": 1.0, "advantage": 0.5,
        "reason": "", "diagnosis": "order", "annotation_missing": None, "annotation_note": "",
        "spans": [{"label": "key", "kind": "order", "start": 0, "end": 1}], "token_ids": [4, 5, 1],
        "weight_versions": [0, 0, 0], "intervals": [[0, 1], [1, 2]], "route": [1, 2, 2],
    }  # fmt: skip
    file = read(tmp_path, line, name="step_000010.jsonl")
    (one,) = file.rollouts
    assert file.step == 10
    assert one.intervals == ((0, 1), (1, 2), (2, 2))
    assert one.route == (1, 2, 2)
    assert one.contexts == {"diagnosis": "order"}
    assert not file.ignored


def test_keys_that_mean_nothing_are_counted(tmp_path: Path) -> None:
    assert read(tmp_path, {**GOOD, "url": "x"}, GOOD).ignored == (("url", 1),)


REFUSED: dict[str, tuple[Any, str]] = {
    "no JSON": ('{"prompt": ', '1: {"prompt": is no JSON'),
    "no object": ("[1]", "is no object: a line is {...}"),
    "missing": ({"prompt": "p", "response": "r"}, "1: reward is missing"),
    "another type": ({**GOOD, "reward": "good"}, '1: reward: "good" is not allowed: it should be a number'),
    "infinite": ('{"prompt": "p", "response": "r", "reward": Infinity}', "Infinity is no JSON number; write null"),
    "a slip of the pen": ({**GOOD, "span": []}, "'span' is no key of a rollout; did you mean 'spans'?"),
    "span outside": ({**GOOD, "spans": [{"label": "k", "start": 3, "end": 9}]}, "spans[0]: [3, 9) lies outside"),
    "span backwards": ({**GOOD, "spans": [{"label": "k", "start": 3, "end": 2}]}, "spans[0]: [3, 2) lies outside"),
    "span without a place": ({**GOOD, "spans": [{"label": "k"}]}, "spans[0].start is missing"),
    "negative": ({**GOOD, "spans": [{"label": "k", "start": -1, "end": 2}]}, "spans[0].start: -1 is not allowed"),
    "other tokens": ({**GOOD, "tokens": ["It is", "2."]}, "tokens: 'It is2.' is not the response"),
    "interval outside": ({**GOOD, "intervals": [[0, 99]]}, "intervals[0]: [0, 99) lies outside the response of 8"),
    "intervals out of order": ({**GOOD, "intervals": [[3, 4], [0, 2]]}, "intervals[1]: it begins before the one"),
    "too few ids": ({**GOOD, "intervals": [[0, 4], [4, 8]], "token_ids": [7]}, "token_ids: 1 of them for 2 intervals"),
    "signals of another length": ({**GOOD, "signals": {"gap": [1.0]}}, "signals.gap: 1 numbers for 3 tokens"),
    "tool outside": ({**GOOD, "tool": [[0, 99]]}, "tool[0]: [0, 99) lies outside the response of 8"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_line_is_refused_in_words(tmp_path: Path, name: str) -> None:
    line, words = REFUSED[name]
    with pytest.raises(RolloutsError) as refusal:
        read(tmp_path, line)
    assert words in str(refusal.value)
    assert str(refusal.value).startswith(f"{tmp_path / 'own.jsonl'}:1: ")


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "\xe9"}')
    for path, said in (("gone.jsonl", "no such file"), (".", "it is a folder"), ("empty.jsonl", "has no rollout"),
                        ("latin.jsonl", "is not UTF-8 text (byte 12)")):  # fmt: skip
        with pytest.raises(RolloutsError, match=re.escape(said)):
            read_rollouts(tmp_path / path)


@given(st.text(alphabet=" \n\tab.é😀"))
def test_words_leave_nothing_out(text: str) -> None:
    assert "".join(text[a:b] for a, b in words(text)) == text


def test_a_span_takes_the_tokens_that_it_meets() -> None:
    intervals = words("one two three")
    assert tokens_met(intervals, 4, 5) == (1, 2)
    assert tokens_met(intervals, 2, 8) == (0, 3)
    assert tokens_met(intervals, 4, 4) is None
