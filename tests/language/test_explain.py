"""`trace-dsl explain`: everything the language knows has a page, and the pages tell the truth."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from rich.console import Console
from rich.text import Text
from typer.testing import CliRunner, Result

from trace_dsl.checks import RULES
from trace_dsl.cli.main import app
from trace_dsl.cli.terminal import print_wrapped
from trace_dsl.explain import Entry, Kind, entries, find, rule_pages
from trace_dsl.explain.pages import Example, rules_text
from trace_dsl.lint import parse_spec
from trace_dsl.model import Channel
from trace_dsl.plan.compile import formula_of
from trace_dsl.plan.payloads import Content, Origin, expression_needs, kernel_needs
from trace_dsl.reference import (
    FUNCTION_TEXTS,
    LOSS_ARGUMENTS,
    LOSS_NEEDS,
    LOSS_TEXTS,
    SIGNAL_NEEDS,
    STATEMENT_ARGUMENTS,
    STATEMENT_TEXTS,
    WordText,
)
from trace_dsl.vocabulary import (
    ESTIMATORS,
    FUNCTIONS,
    LOSSES,
    ROLLOUT_ARGUMENTS,
    SEES,
    SIGNALS,
    STATEMENTS,
    TEACHER_ARGUMENTS,
)

ROOT = Path(__file__).parents[2]


def explain(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["explain", *arguments])


# ------------------------------------------------------------------------------------------------------------- tables


def test_every_word_of_the_vocabulary_has_a_text() -> None:
    """A new word is one line in trace_dsl/reference.py."""
    assert set(LOSS_TEXTS) == set(LOSSES) == set(LOSS_NEEDS)
    assert set(SIGNAL_NEEDS) < set(SIGNALS)
    assert set(FUNCTION_TEXTS) == set(FUNCTIONS)
    assert set(STATEMENT_TEXTS) == {*STATEMENTS, "route"}
    assert set(LOSS_ARGUMENTS) == {name for info in LOSSES.values() for name in info.arguments}
    for statement, calls in (
        ("teacher", TEACHER_ARGUMENTS),
        ("rollouts", ROLLOUT_ARGUMENTS),
        ("advantage", ESTIMATORS),
    ):
        assert set(STATEMENT_ARGUMENTS[statement]) == {name for names in calls.values() for name in names}
    sees = STATEMENT_ARGUMENTS["teacher"]["sees"].takes
    assert all(f"`{word}`" in sees for word in SEES)


_TEXTS = {**LOSS_TEXTS, **FUNCTION_TEXTS, **STATEMENT_TEXTS}


@pytest.mark.parametrize("name", sorted(set(_TEXTS) - {"extends"}))
def test_examples_are_specs(name: str) -> None:
    example = _TEXTS[name].example
    spec, found = parse_spec(example + ("\nrest: grpo()\n" if ": " not in example else ""))
    assert spec is not None, found
    assert name == "route" or name in example


@pytest.mark.parametrize("entry", [e for e in entries() if e.kind is Kind.SIGNAL], ids=lambda entry: entry.name)
def test_examples_of_signals_are_specs_and_needs_are_those_of_the_plan(entry: Entry) -> None:
    spec, found = parse_spec(f"{entry.example}\nrest: none\n")
    assert spec is not None, found
    assert spec.routes[0].when is not None
    needs = {need.payload for need in expression_needs(spec.routes[0].when)}
    origins = {
        Origin.POLICY: "pass of the policy",
        Origin.ROLLOUT: "old log-prob",
        Origin.TEACHER: "of the teacher",
        Origin.REF: "of the reference policy",
        Origin.BASE: "of the base model",
    }
    told = {origin for origin, words in origins.items() if words in entry.needs}
    assert told == {payload.origin for payload in needs}
    assert ("likeliest" in entry.needs) is any(payload.content is Content.TOP_TOKENS for payload in needs)


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        ("fkl()", ["the full vocabulary of a teacher"]),
        ("jsd(0.5, topk=8)", ["the teacher's likeliest tokens"]),
        ("rkl(topk=8, of=student)", ["its log-probabilities of the student's likeliest tokens"]),
        ("grpo()", ["the old log-probability of the sampled token"]),
        ("grpo(level=sequence)", ["with level=sequence that of every token"]),
        ("pg(anchor=mix(old, teacher, 0.5))", ["old log-probability", "with anchor=mix(...) also a teacher's"]),
        ("grpo(tis=2)", ["old log-probability", "with tis also the trainer's own"]),
        ("cispo(high=1)", ["the old log-probability"]),
        ("k3(base)", ["under the policy it compares with"]),
        ("nll()", []),
        ("entropy()", []),
    ],
)
def test_needs_of_losses_are_those_of_the_plan(loss: str, words: list[str]) -> None:
    needs = kernel_needs(channel(loss).kernel)
    assert len(needs) == len(words)
    text = LOSS_NEEDS[loss.partition("(")[0]]
    assert all(part in text for part in words)
    assert bool(text) is bool(words)
    assert any(need.everywhere for need in needs) is ("level=sequence" in loss)


def channel(loss: str) -> Channel:
    spec, found = parse_spec(f"rest: {loss}\n")
    assert spec is not None, found
    return spec.routes[0].channels[0]


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_formulas_are_those_of_the_plan(name: str) -> None:
    given = {
        "jsd": "jsd(0.25)",
        "skl": "skl(0.25)",
        "srkl": "srkl(0.25)",
        "cispo": "cispo(high=0.5)",
        "k3": "k3(ref)",
        "pg": "pg(adv=reward)",
    }
    kernel = channel(given.get(name, f"{name}()")).kernel
    formula = LOSS_TEXTS[name].meaning.partition(": a positive")[0]
    number = {"jsd": "beta", "skl": "a", "srkl": "a"}.get(name)
    if number is not None:
        formula = formula.replace(f"(1 - {number})", "0.75")
        formula = " ".join("0.25" if word == number else word for word in formula.split())
    formula = formula.replace("1 - lo", "0.8").replace("1 + hi,", "1.2,").replace("1 + hi)", "1.2)")
    formula = formula.replace("1 + high", "1.5").replace("to_logp", "ref_logp").replace("adv", "reward")
    assert formula_of(kernel) == formula


@pytest.mark.parametrize(
    ("loss", "formula"),
    [
        ("pg(adv=2*A)", "-min(ratio (2*A), clip(ratio, 0.8, 1.2) (2*A))"),
        ("cispo(adv=2*A, high=0.5)", "-sg(min(ratio, 1.5)) (2*A) logp"),
        ("cispo(adv=gap, high=0.5)", "-sg(min(ratio, 1.5)) gap logp"),
    ],
)
def test_a_plans_formula_has_the_advantage_that_is_used(loss: str, formula: str) -> None:
    assert formula_of(channel(loss).kernel) == formula


_LITERAL = re.compile(r"\w+|\([\d., ]+\)")
_LITERAL_DEFAULTS = [
    (loss, name, LOSS_ARGUMENTS[name].default)
    for loss, info in LOSSES.items()
    for name in info.arguments
    if _LITERAL.fullmatch(LOSS_ARGUMENTS[name].default) and LOSS_ARGUMENTS[name].default != "none"
]


@pytest.mark.parametrize(("loss", "name", "default"), _LITERAL_DEFAULTS)
def test_defaults_are_what_a_loss_has_without_the_argument(loss: str, name: str, default: str) -> None:
    needed = {"jsd": "beta=0.5, ", "skl": "a=0.5, ", "srkl": "a=0.5, ", "cispo": "high=0.3, "}.get(loss, "")
    needed += "topk=8, " if name == "of" else ""
    needed += "anneal=cos, " if name in ("start", "ramp", "warmup", "floor") else ""
    without, written = channel(f"{loss}({needed})"), channel(f"{loss}({needed}{name}={default})")
    assert (without.kernel, without.weight, without.per) == (written.kernel, written.weight, written.per)


# -------------------------------------------------------------------------------------------------------------- pages


@pytest.mark.parametrize("rule", sorted(RULES))
def test_every_rule_prints_its_page(rule: str) -> None:
    result = explain(rule)
    assert result.exit_code == 0
    printed = " ".join(result.stdout.split())
    page = rule_pages()[rule]
    for part in page.parts:
        assert " ".join(part.text.split()) in printed
    assert {part.label for part in page.parts if isinstance(part, Example)} >= {"bad", "good"}
    assert "```" not in result.stdout
    assert "](" not in result.stdout


def test_a_rule_page_in_full() -> None:
    assert explain("zero-weight").stdout == (
        "zero-weight  rule, warning\n"
        "\n"
        "  Warning. The weight of a loss is 0 at every step: it trains nothing, "
        "and its tokens still belong to this route.\n"
        "\n"
        "  bad:\n"
        "    key: nll(w=0)\n"
        "    rest: grpo()\n"
        "\n"
        "  good:\n"
        "    key: none\n"
        "    rest: grpo()\n"
    )


def test_a_word_page_in_full() -> None:
    assert explain("cispo").stdout.startswith(
        "cispo  loss, clipped importance weight times log-probability\n"
        "\n"
        "  -sg(min(ratio, 1 + high)) A logp\n"
        "\n"
        "  written: cispo(high=..., ...)\n"
        "\n"
        "  example: rest: cispo(high=0.28)\n"
        "\n"
        "  needs: the old log-probability of the sampled token\n"
        "\n"
        "  arguments\n"
        "    adv     the advantage; it is detached (a number or an expression; default A)\n"
        "    high    the importance weight is kept at or below 1 + high (a number above 0)\n"
    )
    assert explain("gap").stdout == (
        "gap  signal, token rank\n"
        "\n"
        "  teacher_logp - logp\n"
        "  number, one value a token\n"
        "  reads the teacher named `teacher`; gap(NAME) reads another\n"
        "\n"
        "  example: rest when gap > 0: grpo()\n"
        "\n"
        "  needs: a forward pass of the policy before the step and one of the teacher\n"
    )


def test_json_holds_what_the_pages_say() -> None:
    result = explain("cispo", "gap", "zero-weight", "--format", "json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    loss, signal, rule = found["entries"]
    assert found["format"] == 1
    assert (loss["kind"], loss["meaning"]) == ("loss", "-sg(min(ratio, 1 + high)) A logp")
    assert loss["arguments"][0] == {
        **{"name": "adv", "takes": "a number or an expression", "meaning": "the advantage; it is detached"},
        "default": "A",
    }
    assert (signal["aside"], signal["needs"]) == ("token rank", SIGNAL_NEEDS["gap"])
    assert [part["label"] for part in rule["page"]] == [None, "bad", "good"]
    everything = json.loads(explain("--all", "--format", "json").stdout)["entries"]
    assert [entry["name"] for entry in everything] == [entry.name for entry in entries()]


@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("entropy", [Kind.LOSS, Kind.SIGNAL]),
        ("teacher", [Kind.STATEMENT, Kind.ARGUMENT]),
        ("when", [Kind.STATEMENT, Kind.ARGUMENT]),
        ("clip", [Kind.ARGUMENT, Kind.FUNCTION]),
        ("rest", [Kind.STATEMENT]),
        ("has(diagnosis)", [Kind.FUNCTION]),
        ("grpo()", [Kind.LOSS]),
        ("`A`", [Kind.SIGNAL]),
        ("a", [Kind.ARGUMENT]),
        ("Entropy", []),
        ("", []),
    ],
)
def test_a_name_may_mean_several_things_or_none(name: str, kinds: list[Kind]) -> None:
    assert [entry.kind for entry in find(name)] == kinds


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["entrpy"], "did you mean `entropy`?"),
        (["hard_pclip"], "did you mean `hard-pclip`?"),
        (["gap", "zzzzzz"], "`zzzzzz` is no rule and no word of the language: trace-dsl explain --all lists"),
        ([], "give names to explain, or --all"),
        (["gap", "--all"], "give names to explain, or --all"),
    ],
)
def test_what_means_nothing_is_2_with_nothing_printed(arguments: list[str], words: str) -> None:
    result = explain(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1


def test_all_lists_everything_section_by_section() -> None:
    result = explain("--all")
    assert result.exit_code == 0
    sections = result.stdout.split("\n\n")
    assert len(sections) == len(Kind)
    for kind, section in zip(Kind, sections, strict=True):
        listed = [line.split()[0] for line in section.strip().split("\n")[1:]]
        assert listed == [entry.name for entry in entries() if entry.kind is kind]
        assert len(listed) <= 60, "a section fits on a screen"
    assert {*RULES, *SIGNALS, *LOSSES, *FUNCTIONS} <= {line.split()[0] for line in result.stdout.split("\n") if line}


def test_a_narrow_terminal_breaks_lines_between_words() -> None:
    page = io.StringIO()
    screen = Console(file=page, width=40, force_terminal=True, color_system=None, soft_wrap=True)
    print_wrapped(screen, Text("  kl  one two three four five six seven eight nine ten"))
    assert page.getvalue() == "  kl  one two three four five six\n      seven eight nine ten\n"


def test_help_teaches_with_an_example() -> None:
    assert "Example: trace-dsl explain hard-pclip fkl gap" in explain("--help").stdout


def test_no_text_is_empty_or_untidy() -> None:
    for word in (*LOSS_TEXTS.values(), *FUNCTION_TEXTS.values(), *STATEMENT_TEXTS.values()):
        assert isinstance(word, WordText)
        assert word.usage and word.meaning and word.example  # noqa: PT018 - three fields of one text
    for entry in entries():
        assert entry.meaning
        assert not entry.meaning.endswith(".")


def test_an_installed_wheel_explains_from_its_own_pages(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    page = tmp_path / "site" / "trace_dsl" / "pages" / "rules.md"
    assert page.read_text(encoding="utf-8") == rules_text()
    program = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r})\n"
        "import trace_dsl; assert 'site' in trace_dsl.__file__, trace_dsl.__file__\n"
        "from trace_dsl.cli.main import app\n"
        "app(['explain', 'hard-pclip'])\n"
    )
    environment = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert "A clipped vocabulary term has no gradient" in done.stdout
