"""Texts for the linter: specs of the repository, random ones, sentences of the grammar, and mutations of them all.

The text of a case depends on a seed and its number alone.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from tests.lowering.random_specs import random_spec
from trace_dsl.syntax.tables import ACTIONS, GOTOS, RULES
from trace_dsl.vocabulary import ESTIMATORS, FUNCTIONS, LOSSES, SEES, SIGNALS, STATEMENTS

ROOT = Path(__file__).parents[2]
LABELS = ("key", "error", "rest", "a1", "_")
NAMES = (
    *(*LABELS, "kl", "v0", "p0", "teacher", "other", "w", "x", "rows", "policy", "source", "tool", "model", "none"),
    *(*SIGNALS, *FUNCTIONS, *LOSSES, *SEES, *ESTIMATORS, "self", "cached", "sync", "ema", "frozen", "sees", "cap", "n"),
    *("over", "row", "group", "micro", "batch", "per", "sequence", "token", "selected", "const", "topk", "of", "tail"),
    *("bucket", "renorm", "drop", "temperature", "pclip", "clip", "dual", "level", "anchor", "old", "mix", "tis", "to"),
    *("adv", "high", "beta", "start", "ramp", "warmup", "anneal", "floor", "linear", "cos", "center", "scale", "std"),
)
NUMBERS = (
    *("0", "1", "2", "10", "0.5", ".5", "3.", "25", "100", "0.25", "1e3", "-0", "1e999", "1e-999", "9" * 400, "1e308"),
    *("0.1e-400", "18446744073709551616", "1e16", "0.30000000000000004", "999999999999", "1e5", "-1", "00", "1e+07"),
)
EXTREMES = ("1e999", "nan", "inf", "-0", "-1e308", "9" * 300, "1e-320", "0x10", "1_000", "2147483648", "0", "1e17")
WORDS = (
    *(*NAMES, *NUMBERS, *STATEMENTS, "when", "and", "or", "not", "steps", "step", "tokens", "10%", "30 steps"),
    *("2e6 tokens", '"x.trace"', '"extended/base.trace"', '""', '"Qwen/Qwen3-32B"', "==", "!=", "<", "<=", ">", ">="),
    *("=", "+", "-", "*", "/", "%", ",", ":", "|", "(", ")", "()", "(1, 2)", "# note", "\n", "&", "'", "[", "{", ";"),
    *("# trace: ignore[zero-weight] a reason", "# trace: ignore[", "# trace:", "# trace: ignore[unused-let, syntax] x"),
)
CHARACTERS = (
    *"\0\x01\x07\x08\x0b\x0c\r\n\t\x1b\x7f\x85\xa0\u200b\u2028\u2029\ufeff\ufffd\ud800é漢−“”×≤∧🙂\U0010ffff",
    *"abz019_.,:;|()=<>!+-*/%&#\"'[]{}@$^~?\\`  ",
)
_WORD = re.compile(r'"[^"\n]*"?|\w+|\s+|[=!<>]=|[^\w\s]')
_NUMBER = re.compile(r"\d+\.?\d*(?:e\d+)?")
_AROUND = (("(", ")"), ("-", ""), ("not ", ""), ("", " + 1"), ("", " and p"), ("f(", ")"), ("", "*2"), ("", ", 1"))
MOST = 6
LONGEST = 20_000


@cache
def corpus() -> tuple[str, ...]:
    """Every spec of the repository."""
    paths = sorted({*ROOT.glob("specs/**/*.trace"), *ROOT.glob("tests/**/*.trace")})
    return tuple(path.read_text(encoding="utf-8") for path in paths)


def case(seed: int, number: int) -> str:
    """The text of one case."""
    rng = random.Random(f"{seed}:{number}")
    text = _base(rng)
    for _ in range(rng.choice((0, 1, 1, 1, 2, 2, 3, rng.randint(3, MOST)))):
        text = rng.choice(MUTATIONS)(text, rng)[:LONGEST]
    return text


def _base(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.55:
        return rng.choice(corpus())
    if kind < 0.8:
        return random_spec(rng)
    if kind < 0.9:
        return _spliced(rng.choice(corpus()), random_spec(rng), rng)
    return "\n".join(sentence(rng) for _ in range(rng.randint(1, 8))) + "\n"


# ----------------------------------------------------------------------------------------------- sentences


def sentence(rng: random.Random) -> str:
    """A statement that parses, of words that mostly mean nothing together."""
    stack, words = [0], []
    longest = rng.choice((6, 12, 30))
    while True:
        open_kinds = [kind for kind in ACTIONS[stack[-1]] if _taken(stack, kind) is not None]
        closing = [kind for kind in open_kinds if kind in ("$END", "RPAR", "COLON", "NAME")]
        kind = rng.choice(closing if len(words) > longest and closing else open_kinds)
        if kind == "$END" or len(words) > 8 * longest:
            return " ".join(words)
        taken = _taken(stack, kind)
        assert taken is not None
        stack = taken
        # what starts a statement of another kind is no label
        words.append(_word(kind, rng) if words or kind != "NAME" else rng.choice(LABELS))


def _taken(stack: list[int], kind: str) -> list[int] | None:
    """The stack of the parser after a terminal, None where it cannot stand."""
    states = list(stack)
    while (action := ACTIONS[states[-1]].get(kind)) is not None:
        if action >= 0:
            return [*states, action]
        _, size, _, origin = RULES[~action]
        del states[-size:]
        states.append(GOTOS[states[-1]][origin])
    return None


def _word(kind: str, rng: random.Random) -> str:
    fixed = {"PLUS": "+", "MINUS": "-", "TIMES": "*", "OVER": "/", "COMMA": ",", "EQUAL": "=", "COLON": ":"}
    fixed |= {"VBAR": "|", "LPAR": "(", "RPAR": ")", "PERCENT": "%"}
    match kind:
        case "NAME":
            return rng.choice(NAMES)
        case "NUMBER":
            return rng.choice(NUMBERS).removeprefix("-")
        case "STRING":
            return rng.choice(('"x.trace"', '"extended/base.trace"', '""', '"a#b"', '"Qwen/Qwen3-32B"'))
        case "COMPARE":
            return rng.choice(("==", "!=", "<", "<=", ">", ">="))
        case _:
            return fixed.get(kind, kind.lower())


# ----------------------------------------------------------------------------------------------- mutations


def _between(items: Sequence[str], rng: random.Random, change: Callable[[list[str], int], None]) -> str:
    changed = list(items)
    if changed:
        change(changed, rng.randrange(len(changed)))
    return "".join(changed)


def _words(text: str, rng: random.Random) -> str:
    def change(words: list[str], at: int) -> None:
        other = rng.randrange(len(words))
        match rng.randrange(6):
            case 0:
                del words[at]
            case 1:
                words.insert(at, words[at])
            case 2:
                words[at], words[other] = words[other], words[at]
            case 3:
                words[at] = rng.choice(WORDS)
            case 4:
                words.insert(at, f" {rng.choice(WORDS)} ")
            case _:
                words[at] = words[other]

    return _between(_WORD.findall(text), rng, change)


def _characters(text: str, rng: random.Random) -> str:
    at = rng.randint(0, len(text))
    match rng.randrange(5):
        case 0:
            return text[:at] + rng.choice(CHARACTERS) + text[at:]
        case 1:
            return text[:at] + text[at + 1 :]
        case 2:
            return text[:at] + rng.choice(CHARACTERS) + text[at + 1 :]
        case 3:
            return text[:at] + rng.choice(CHARACTERS) * rng.choice((2, 40, 400)) + text[at:]
        case _:
            whole = (text.replace("\n", "\r\n"), text.replace("\n", "\r"), "\ufeff" + text, text.replace(" ", "\t"))
            return rng.choice(whole)


def _lines(text: str, rng: random.Random) -> str:
    def change(lines: list[str], at: int) -> None:
        other = rng.randrange(len(lines))
        match rng.randrange(7):
            case 0:
                lines.insert(other, lines[at])
            case 1:
                del lines[at]
            case 2:
                lines[at] = lines[at].rstrip("\r\n") + rng.choice(("", " ", " # "))
            case 3:
                lines[at] = rng.choice((" ", "\t", "    ")) + lines[at]
            case 4:
                lines[at], lines[other] = lines[other], lines[at]
            case 5:
                lines.insert(at, rng.choice(("\n", "# note\n", "   \n", "#\n", "\t# x\n")))
            case _:
                cut = rng.randint(0, len(lines[at]))
                lines[at] = f"{lines[at][:cut]}\n{lines[at][cut:]}"

    return _between(text.splitlines(keepends=True), rng, change)


def _numbers(text: str, rng: random.Random) -> str:
    found = list(_NUMBER.finditer(text))
    if not found:
        return text
    at = rng.choice(found)
    return text[: at.start()] + rng.choice((*EXTREMES, *NUMBERS)) + text[at.end() :]


def _nested(text: str, rng: random.Random) -> str:
    """A word in many brackets, behind many signs, or many times over."""
    times = rng.choice((2, 5, 20, 33, 61, 200))
    form = rng.choice(
        (("(", ")"), ("-", ""), ("not ", ""), ("", " + 1"), ("", " and p"), ("f(", ")"), ("", "*2"), ("", ", 1"))
    )

    def change(words: list[str], at: int) -> None:
        words[at] = form[0] * times + words[at] + form[1] * times

    return _between(_WORD.findall(text), rng, change)


def _spliced(text: str, other: str, rng: random.Random) -> str:
    return text[: rng.randint(0, len(text))] + other[rng.randint(0, len(other)) :]


def _with_another(text: str, rng: random.Random) -> str:
    return _spliced(text, rng.choice(corpus()), rng)


Mutation = Callable[[str, random.Random], str]
MUTATIONS: tuple[Mutation, ...] = (_words,) * 8 + (_characters,) * 3 + (_lines,) * 3 + (_numbers,) * 2
MUTATIONS += (_nested, _with_another)
