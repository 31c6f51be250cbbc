"""Very many wrong specs: those of the tests, and every place of a spec with every word that may be met there."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path

from trace_dsl.vocabulary import ARGUMENT_WORDS, ESTIMATORS, FUNCTIONS, LOSSES, MEANT_ELSEWHERE, SIGNALS

_FOLDER = Path(__file__).parent
_LONGEST = 1_000  # the larger ones are wrong by their size

# Words that no place takes, words that look like others, and what is written for words in other languages.
_MISSPELT = ("rewrd", "Correct", "entropi", "seqence", "Teacher", "kl", "linaer", "buckett", "x", "epoch", "scores")
_TEXTS = ('"linear(30)"', '"cos"', '"cosine"', '"const(4096)"', '"const(n)"', '" "', '""', '"token-mean"', '"ref"')
_TEXTS += ('"key"', '"0.5"', '"a b"', '"half\\"', '"sequence(3)"', '"linear(x)"', '"linear"')
_VALUES = ("linear-30", "dr_grpo", "Qwen/Qwen3", "(sequence, token)", "True", "false", "none", "1e-3", "0.5", "2", "0")
_VALUES += ("10%", "30 steps", "-1", "correct", "gap > 0", "correct == 1", "correct > 0.5", "step < 10%", "gap", "kl*2")
_VALUES += ("source == user", 'source == "tool"', "mean(A, over=group)", "mean(A, over=sequence)", "linear(0.3)")
WORDS = (*_MISSPELT, *_TEXTS, *_VALUES)

_BEFORE = ("", "let scores = reward\n", "let Advantage = A*2\nlet n = 5\n", "spans key, errors\n")
_VALUE_PLACES = (
    "rest: grpo(w={})",
    "rest when {}: grpo()",
    "rest: nll(anneal={})",
    "rest: nll(w=1, per={})",
    "rest: nll(per={})",
    "rest: fkl(topk=9, tail={})",
    "rest: fkl(topk=9, of={})",
    "rest: fkl(teacher={})",
    "rest: k3({})",
    "rest: k3(to={})",
    "rest: grpo(level={})",
    "rest: grpo(anchor={})",
    "rest: grpo(clip={})",
    "rest: grpo(tis={})",
    "rest: pg(adv={})",
    "rest: grpo(w=mean(A, over={}))",
    "rest when has({}): grpo()",
    "rest when source == {}: grpo()",
    "rest: jsd({})",
    "teacher = self(sync=9, sees={})\nrest: fkl()",
    "teacher = {}\nrest: fkl()",
    "teacher = self(sync={})\nrest: fkl()",
    "teacher = self(ema={})\nrest: fkl()",
    "advantage = {}\nrest: grpo()",
    "advantage = group(scale={})\nrest: grpo()",
    "rest: grpo() + {}",
    "rollouts r = policy(sees={})\nrest: grpo()",
    "rest: nll(warmup={})",
    "rest: nll(w={}, anneal=cos)",
    "spans key(cap={})\nkey: nll()\nrest: none",
    "rest when rows == {}: grpo()",
    "rest: grpo(w=where({}, 1, 0))",
    "rest: grpo(w=gap({}))",
    "rest: grpo(w=schedule({}, anneal=cos))",
    "rest: grpo(w=latch({}, step > 3))",
)
_TEXT_PLACES = ("teacher = model({})\nrest: fkl()", "rollouts r = cached({})\nrest: grpo()")
_NAME_PLACES = (
    "{}: nll()\nrest: grpo()",
    "rest: {}()",
    "rest: {}(w=0.1)",
    "rest: grpo(w={}(A))",
    "rest: grpo(w={}(A, over=group))",
    "rest: {}(ref, w=0.02)",
    "rest: jsd(0.5, {}=0.5)",
    "rest: jsd({}=0.5)",
    "rest: skl({}=0.1)",
    "rest: grpo({}=0.2)",
    "rest: cispo({}=0.28)",
    "rest: cispo(high=0.2, {}=3)",
    "rest: k3({}=0.04)",
    "rest: nll(w=0.5, {}=10)",
    "rest: fkl(topk=10, {}=drop)",
    "rest: grpo(w=1, {}=0.2)",
    "rest: grpo(w=0.5, clip=0.2, {}=0.28)",
    "teacher = self({}=10)\nrest: fkl()",
    "teacher = self(sync=1, {}=solution)\nrest: fkl()",
    "rest when {} < 3: grpo()",
    "advantage = group({}=none)\nrest: grpo()",
    "advantage = {}()\nrest: grpo()",
    "spans key({}=20%)\nkey: nll()\nrest: none",
    "teacher = {}(sync=1)\nrest: fkl()",
    "rest: grpo(w=schedule(1, {}=10))",
    "rest: grpo() # trace: ignore[{}] why",
    "rest when {} == true: grpo()",
    "rest when 1 > {}: grpo()",
    "rest: grpo(w=mean(A, {}=group))",
    "rest: grpo(w={})",
)


@cache
def wrong_specs() -> tuple[str, ...]:
    """Texts of which most have errors, each once."""
    known = (*FUNCTIONS, *LOSSES, *SIGNALS, *ESTIMATORS, *chain.from_iterable(ARGUMENT_WORDS.values()))
    words = tuple(dict.fromkeys((*foreign_words(), *known)))
    names = tuple(dict.fromkeys((*_MISSPELT, *words)))
    made = [place.format(word) for place in _VALUE_PLACES for word in dict.fromkeys((*WORDS, *words))]
    made += [place.format(word) for place in _TEXT_PLACES for word in WORDS]
    made += [place.format(word) for place in _NAME_PLACES for word in names]
    made += [before + place.format(word) for before in _BEFORE for place in _VALUE_PLACES[:2] for word in names]
    return tuple(dict.fromkeys((*of_the_tests(), *made)))


@cache
def foreign_words() -> tuple[str, ...]:
    """The words of other systems that stand for a word of the language, as far as they are names."""
    return tuple(word for word in MEANT_ELSEWHERE if word.isidentifier())


def of_the_tests() -> Iterator[str]:
    """Every text in these tests that may be a spec, and their files of specs."""
    for path in sorted(_FOLDER.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and 0 < len(node.value) < _LONGEST:
                yield node.value
    for path in sorted(_FOLDER.rglob("*.trace")):
        yield path.read_text(encoding="utf-8")
