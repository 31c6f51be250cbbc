"""Settings of `lint` in a pyproject.toml: which file, what it may say, and that the command line wins."""

from __future__ import annotations

from pathlib import Path

import pytest

from trace_dsl.configuration import Configuration, FailLevel, nearest_configuration
from trace_dsl.errors import SpecError
from trace_dsl.rules import RuleSelection


def configured(folder: Path, settings: str) -> Configuration:
    (folder / "pyproject.toml").write_text(f"[tool.trace-dsl]\n{settings}\n", encoding="utf-8")
    return nearest_configuration(folder)


def test_every_setting(tmp_path: Path) -> None:
    settings = (
        'select = ["zero-weight", "mixed-denominator"]\nignore = ["hard-pclip"]\npedantic = true\nfail-level = "never"'
    )
    assert configured(tmp_path, settings) == Configuration(
        rules=RuleSelection(
            select=frozenset({"zero-weight", "mixed-denominator"}), ignore=frozenset({"hard-pclip"}), pedantic=True
        ),
        fail_level=FailLevel.NEVER,
    )
    assert configured(tmp_path, "") == Configuration()


def test_the_nearest_file_with_the_table_decides(tmp_path: Path) -> None:
    inner = tmp_path / "a" / "b"
    inner.mkdir(parents=True)
    configured(tmp_path, "pedantic = true")
    (tmp_path / "a" / "pyproject.toml").write_text("[tool.ruff]\nline-length = 100\n", encoding="utf-8")
    assert nearest_configuration(inner).rules.pedantic
    configured(tmp_path / "a", 'fail-level = "warning"')
    assert nearest_configuration(inner) == Configuration(fail_level=FailLevel.WARNING)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ('ignroe = ["hard-pclip"]', "has no setting 'ignroe'; did you mean `ignore`?"),
        ("fail_level = 'never'", "has no setting 'fail_level'; did you mean `fail-level`?"),
        ('ignore = ["hard-clip"]', "tool.trace-dsl.ignore: there is no rule 'hard-clip'; did you mean `hard-pclip`?"),
        ('select = ["zero-wait"]', "tool.trace-dsl.select: there is no rule 'zero-wait'; did you mean `zero-weight`?"),
        ('ignore = ["syntax"]', "'syntax' cannot be ignored: without it a spec has no meaning"),
        ('ignore = "hard-pclip"', "tool.trace-dsl.ignore is 'hard-pclip', but must be a list of rules"),
        ("ignore = [1]", "tool.trace-dsl.ignore is [1], but must be a list of rules"),
        ('pedantic = "yes"', "tool.trace-dsl.pedantic is 'yes', but must be true or false"),
        ('fail-level = "warn"', "tool.trace-dsl.fail-level is 'warn', but must be one of error, warning, never"),
        ("fail-level = []", "tool.trace-dsl.fail-level is [], but must be one of error, warning, never"),
        ("pedantic = ", "is not valid TOML"),
    ],
)
def test_mistakes_are_one_line_that_names_the_file(tmp_path: Path, settings: str, words: str) -> None:
    with pytest.raises(SpecError) as caught:
        configured(tmp_path, settings)
    message = str(caught.value)
    assert message.startswith(str(tmp_path / "pyproject.toml"))
    assert words in message
    assert "\n" not in message


def test_a_table_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[tool]\ntrace-dsl = "all"\n', encoding="utf-8")
    with pytest.raises(SpecError, match=r"tool.trace-dsl is not a table"):
        nearest_configuration(tmp_path)


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match="is not valid TOML"):
        nearest_configuration(tmp_path)


def test_the_command_line_wins() -> None:
    rules = RuleSelection(select=frozenset({"a", "b"}), ignore=frozenset({"c", "d"}), pedantic=True)
    file = Configuration(rules=rules, fail_level=FailLevel.WARNING)
    assert file.overridden() == file
    said = file.overridden(select=frozenset({"c"}), pedantic=False, fail_level=FailLevel.NEVER)
    assert said == Configuration(
        rules=RuleSelection(select=frozenset({"c"}), ignore=frozenset({"d"}), pedantic=False),
        fail_level=FailLevel.NEVER,
    )
    assert file.overridden(ignore=frozenset()).rules.ignore == frozenset()
