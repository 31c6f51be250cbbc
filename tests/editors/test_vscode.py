"""The VS Code extension as far as it can be tested without Node: its grammar, manifest, snippets and licence.

`make vscode` runs its own tests, with the engines that VS Code uses, and packs it.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.editors.textmate import Tokenizer, patterns_of
from tools.make_textmate_grammar import OUTPUT, arguments, text
from trace_dsl.lint import lint_text
from trace_dsl.lsp.settings import DOCUMENTATION, RUN_FILE, SECTION, read_settings
from trace_dsl.lsp.slots import MAKERS
from trace_dsl.vocabulary import ARGUMENT_WORDS, FUNCTIONS, HAS, LOSSES, RESERVED, SIGNALS, SOURCES, STATEMENTS

ROOT = Path(__file__).parents[2]
EXTENSION = ROOT / "tools/vscode"


def read(name: str) -> Any:
    return json.loads((EXTENSION / name).read_text(encoding="utf-8"))


def tokens(line: str) -> list[tuple[str, str]]:
    return Tokenizer(read("syntaxes/trace.tmLanguage.json")).tokens(line)


# ---------------------------------------------------------------------------------------------------------- the grammar


def test_the_grammar_is_what_the_vocabulary_gives() -> None:
    """After a new word: python tools/make_textmate_grammar.py."""
    assert OUTPUT.read_text(encoding="utf-8") == text()


def test_every_expression_compiles() -> None:
    found = list(patterns_of(read("syntaxes/trace.tmLanguage.json")))
    assert len(found) > 15
    for pattern in found:
        re.compile(pattern)


WORDS = [
    *((f"{word} x", word, "keyword.control.statement") for word in STATEMENTS),
    *((f"a when {word} b: none", word, "keyword.operator.word") for word in sorted(RESERVED)),
    *((f"a: {word}(w=1)", word, "support.function.loss") for word in LOSSES),
    *((f"a: nll(w={word}(x))", word, "support.function") for word in FUNCTIONS if word not in LOSSES),
    *((f"a when {word} > 0: none", word, "support.variable.signal") for word in SIGNALS),
    *((f"a: nll({word}=x)", word, "variable.parameter") for word in sorted(arguments())),
    *((f"a: nll({name}={word})", word, "constant.language.word") for name, of in ARGUMENT_WORDS.items() for word in of),
    *((f"a when has({word}): none", word, "constant.language.word") for word in HAS),
    *((f"a when source == {word}: none", word, "constant.language.word") for word in SOURCES),
    *((f"{name} x = {word}(a)", word, "support.class") for name in MAKERS for word in MAKERS[name] if word != "none"),
    ("teacher = self(frozen)", "frozen", "constant.language.word"),
    ("rest: none", "none", "constant.language.none"),
    ("rest: none", "rest", "keyword.control.rest"),
    ("key | error when correct: none", "key", "entity.name.tag.label"),
    ("key | error when correct: none", "error", "entity.name.tag.label"),
    ("let kl = 1", "kl", "variable.other.definition"),
    ('extends "a # b.trace"', '"a # b.trace"', "string.quoted.double"),
    ("a: nll(w=2e6 tokens)", "2e6", "constant.numeric"),
    ("a: nll(w=2e6 tokens)", "tokens", "keyword.other.unit"),
    ("rest: none  # trace: ignore[zero-weight] why", "zero-weight", "entity.name.tag.rule"),
    ("rest: none  # why", "# why", "comment.line.number-sign"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "word", "scope"), WORDS, ids=lambda value: str(value))
def test_every_word_has_its_colour(line: str, word: str, scope: str) -> None:
    assert (word, scope) in tokens(line)


def test_a_spec_from_top_to_bottom() -> None:
    """The same tokens that tools/vscode/test/grammar.test.js gets from the engine of VS Code."""
    spec = (
        "spans   key(cap=25%)\nteacher = self(sync=10, sees=diagnosis)\nlet kl = 1 - x\n"
        "key: fkl(w=1,\n  teacher=big,\nlet x = entropy\nrest: entropy()"
    )
    assert [found for found in tokens(spec) if found[0] != "="] == [
        ("spans", "keyword.control.statement"),
        ("cap", "variable.parameter"),
        ("25", "constant.numeric"),
        ("%", "keyword.other.unit"),
        ("teacher", "keyword.control.statement"),
        ("self", "support.class"),
        ("sync", "variable.parameter"),
        ("10", "constant.numeric"),
        ("sees", "variable.parameter"),
        ("diagnosis", "constant.language.word"),
        ("let", "keyword.control.statement"),
        ("kl", "variable.other.definition"),
        ("1", "constant.numeric"),
        ("-", "keyword.operator"),
        ("key", "entity.name.tag.label"),
        ("fkl", "support.function.loss"),
        ("w", "variable.parameter"),
        ("1", "constant.numeric"),
        ("teacher", "variable.parameter"),
        ("let", "keyword.control.statement"),
        ("x", "variable.other.definition"),
        ("entropy", "support.variable.signal"),
        ("rest", "keyword.control.rest"),
        ("entropy", "support.function.loss"),
    ]


def test_names_that_mean_nothing_have_no_colour() -> None:
    for line in ("a: nll(aneal=cos)", "a: nll(w=rewrd)", "a: fk()"):
        assert not {"aneal", "rewrd", "fk"} & {word for word, _ in tokens(line)}


# ------------------------------------------------------------------------------------------------ what stands around it


def test_the_manifest_names_files_that_are_there() -> None:
    contributes = read("package.json")["contributes"]
    files = [read("package.json")["main"], contributes["languages"][0]["configuration"]]
    files += [one["path"] for kind in ("grammars", "snippets") for one in contributes[kind]]
    assert all((EXTENSION / file).is_file() for file in files)
    assert contributes["grammars"][0]["scopeName"] == read("syntaxes/trace.tmLanguage.json")["scopeName"]


def test_versions_and_licences_agree() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    manifest = read("package.json")
    assert (manifest["version"], manifest["license"]) == (project["version"], project["license"])
    assert (EXTENSION / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_settings_are_those_that_the_server_reads() -> None:
    properties = set(read("package.json")["contributes"]["configuration"]["properties"])
    assert {f"{SECTION}.{RUN_FILE}", f"{SECTION}.{DOCUMENTATION}"} <= properties
    section = {name.removeprefix(f"{SECTION}.").partition(".")[0]: "x" for name in properties}
    assert read_settings(section).problems == ()
    readme = (EXTENSION / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in readme for name in properties)


def test_the_lock_names_no_host_but_the_public_registry() -> None:
    packages = read("package-lock.json")["packages"]
    assert {name.split("node_modules/")[-1] for name in packages} >= {"vscode-languageclient"}
    for package in packages.values():
        assert package.get("resolved", "https://registry.npmjs.org/").startswith("https://registry.npmjs.org/")
    assert all("integrity" in package for name, package in packages.items() if name)


def test_snippets_are_specs() -> None:
    for snippet in read("snippets.json").values():
        body = snippet["body"]
        lines = body if isinstance(body, list) else [body]
        spec = re.sub(r"\$\{\d+[|:]([^,|}]*)[^}]*\}", r"\1", "\n".join(lines))
        whole = spec if "rest:" in spec else f"{spec}\nrest: fkl(anneal=cos)\n"
        assert not lint_text(whole).errors, spec
        assert "$" not in spec


def test_brackets_and_words_are_those_of_the_language() -> None:
    configuration = read("language-configuration.json")
    assert configuration["comments"] == {"lineComment": "#"}
    assert re.fullmatch(configuration["wordPattern"], "window_mean")
