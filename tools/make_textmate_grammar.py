"""Writes the TextMate grammar of the language, which colours specs in VS Code and other editors.

    python tools/make_textmate_grammar.py

Every word in it comes from `trace_dsl.vocabulary`, so that colours and language cannot drift apart; a test compares the
file with what this gives. Expressions stay within what Oniguruma and Python read alike, so that a test can run them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from trace_dsl.lsp.slots import MAKERS
from trace_dsl.model import REST
from trace_dsl.reference import STATEMENT_ARGUMENTS
from trace_dsl.syntax.lines import STARTS_STATEMENT
from trace_dsl.vocabulary import (
    ARGUMENT_WORDS,
    FUNCTIONS,
    HAS,
    LOSSES,
    NO_LOSS,
    RESERVED,
    ROWS,
    SCHEDULE_ARGUMENTS,
    SIGNALS,
    SOURCES,
    STATEMENTS,
)

OUTPUT = Path(__file__).parent / "vscode" / "syntaxes" / "trace.tmLanguage.json"
NAME = r"[A-Za-z_]\w*"
Rule = dict[str, object]


def _any(words: Iterable[str]) -> str:
    """One of these words, whole."""
    return rf"\b(?:{'|'.join(sorted(words))})\b"


def _match(name: str, pattern: str) -> Rule:
    return {"name": f"{name}.trace", "match": pattern}


def _parts(pattern: str, **names: str) -> Rule:
    """A match whose groups have names of their own: g1, g2 ..."""
    captures = {number.removeprefix("g"): {"name": f"{name}.trace"} for number, name in names.items()}
    return {"match": pattern, "captures": captures}


def _include(*names: str) -> list[Rule]:
    return [{"include": f"#{name}"} for name in names]


def arguments() -> set[str]:
    """Every word that names an argument somewhere."""
    of_losses = {name for info in LOSSES.values() for name in info.arguments}
    of_statements = {name for names in STATEMENT_ARGUMENTS.values() for name in names}
    return of_losses | of_statements | {*SCHEDULE_ARGUMENTS, "over"}


def grammar() -> Rule:
    """The whole grammar."""
    makers = {maker for known in MAKERS.values() for maker in known}
    repository: dict[str, Rule] = {
        "comment": {
            "patterns": [
                {
                    "name": "comment.line.number-sign.trace",
                    "match": r"(#\s*trace\s*:\s*ignore\s*\[)([^\]]*)(\]).*$",
                    "captures": {
                        "1": {"name": "keyword.other.ignore.trace"},
                        "2": {"name": "entity.name.tag.rule.trace"},
                        "3": {"name": "keyword.other.ignore.trace"},
                    },
                },
                _match("comment.line.number-sign", r"#.*$"),
            ]
        },
        "string": _match("string.quoted.double", r'"[^"]*(?:"|$)'),
        "statement": {
            "patterns": [
                _parts(
                    rf"^\s*(let|rollouts|teacher)\s+({NAME})\s*(?==)",
                    g1="keyword.control.statement",
                    g2="variable.other.definition",
                ),
                _match("keyword.control.statement", rf"^\s*(?:{_any(STATEMENTS)})(?!\s*[:|])"),
                _match("keyword.control.rest", rf"^\s*\b{REST}\b(?=\s*(?:when\b|:))"),
                _match(
                    "entity.name.tag.label", rf"(?:^\s*|(?<=\|)\s*)\b{NAME}\b(?=(?:\s*\|\s*{NAME})*\s*(?:when\b|:))"
                ),
            ]
        },
        "brackets": {
            "begin": r"\(",
            "end": rf"\)|^(?={STARTS_STATEMENT.pattern})",
            "patterns": _include("comment", "string", "argument", "value"),
        },
        "argument": {
            "patterns": [
                *(
                    _parts(
                        rf"\b({argument})\s*(=)\s*({_any(words)})",
                        g1="variable.parameter",
                        g2="keyword.operator",
                        g3="constant.language.word",
                    )
                    for argument, words in ARGUMENT_WORDS.items()
                ),
                _match("variable.parameter", rf"{_any(arguments())}(?=\s*=(?!=))"),
            ]
        },
        "value": {
            "patterns": [
                *_include("brackets"),
                _match("keyword.operator.word", _any(RESERVED)),
                _match("constant.language.word", rf"(?<=has\()\s*{_any(HAS)}|(?<=self\()\s*\bfrozen\b"),
                _match(
                    "constant.language.word", rf"\b(?:{'|'.join(SOURCES)})\b(?=\s*[!=]=)|(?<=[!=]=)\s*{_any(SOURCES)}"
                ),
                _match("support.function.loss", rf"{_any(LOSSES)}(?=\s*\()"),
                _match("support.function", rf"{_any(FUNCTIONS)}(?=\s*\()"),
                _match("support.class", rf"{_any(makers - {NO_LOSS})}(?=\s*\()|(?<==)\s*\b(?:loo|group|none)\b"),
                _match("support.variable.signal", _any({*SIGNALS, ROWS})),
                _match("constant.language.none", rf"\b{NO_LOSS}\b"),
                _parts(
                    r"(?<![\w.])((?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?:\s*(%|\b(?:steps?|tokens?)\b))?",
                    g1="constant.numeric",
                    g2="keyword.other.unit",
                ),
                _match("keyword.operator", r"[=!<>]=|[-+*/|<>=]"),
            ]
        },
    }
    return {
        "$schema": "https://raw.githubusercontent.com/martinring/tmlanguage/master/tmlanguage.json",
        "name": "Trace routing spec",
        "scopeName": "source.trace",
        "fileTypes": ["trace"],
        "patterns": _include("comment", "string", "statement", "value"),
        "repository": repository,
    }


def text() -> str:
    """The grammar as it is written."""
    return json.dumps(grammar(), indent=2) + "\n"


if __name__ == "__main__":
    OUTPUT.write_text(text(), encoding="utf-8")
    print(f"wrote {OUTPUT}")
