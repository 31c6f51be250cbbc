"""The settings of `trace-dsl lint`: `[tool.trace-dsl]` of a pyproject.toml, and what the command line says instead.

```toml
[tool.trace-dsl]
select = ["shadowed-route", "zero-weight"]  # these rules alone; default: all but the pedantic ones
ignore = ["hard-pclip"]
pedantic = true
fail-level = "warning"                      # error (default), warning or never
```

A setting that does not exist, or a rule that does not, is an error: a typing mistake must not switch a check off.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from trace_dsl.checks import RULES
from trace_dsl.errors import SpecError
from trace_dsl.rules import DEFAULT_RULES, LANGUAGE_RULES, RuleSelection
from trace_dsl.vocabulary import did_you_mean

FILE = "pyproject.toml"
TABLE = "tool.trace-dsl"
_LANGUAGE = frozenset(rule.name for rule in LANGUAGE_RULES)


class FailLevel(StrEnum):
    """From which severity on findings make `lint` exit with 1."""

    ERROR = "error"
    WARNING = "warning"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Configuration:
    rules: RuleSelection = DEFAULT_RULES
    fail_level: FailLevel = FailLevel.ERROR

    def overridden(
        self,
        *,
        select: frozenset[str] | None = None,
        ignore: frozenset[str] | None = None,
        pedantic: bool | None = None,
        fail_level: FailLevel | None = None,
    ) -> Configuration:
        """With what the command line says; None leaves a setting. A rule that it selects is ignored no longer."""
        ignored = self.rules.ignore - (select or frozenset())
        return Configuration(
            rules=RuleSelection(
                select=self.rules.select if select is None else select,
                ignore=ignored if ignore is None else ignore,
                pedantic=self.rules.pedantic if pedantic is None else pedantic,
            ),
            fail_level=self.fail_level if fail_level is None else fail_level,
        )


SETTINGS = ("select", "ignore", "pedantic", "fail-level")


def nearest_configuration(folder: Path) -> Configuration:
    """The settings that hold in `folder`: of the first pyproject.toml with a [tool.trace-dsl] there or above.

    Raises SpecError when such a file cannot be read, or says something that is not allowed.
    """
    for above in (folder, *folder.parents):
        path = above / FILE
        if path.is_file():
            table = _table(path)
            if table is not None:
                return _configuration(table, path)
    return Configuration()


def rule_names(names: Iterable[str], *, where: str, ignoring: bool = False) -> frozenset[str]:
    """The names of rules, checked; `where` says who gives them. Errors of the language cannot be ignored."""
    found = frozenset(names)
    for name in sorted(found):
        if name not in RULES:
            raise SpecError(_with_hint(f"{where}: there is no rule {name!r}", did_you_mean(name, RULES).text))
        if ignoring and name in _LANGUAGE:
            raise SpecError(f"{where}: {name!r} cannot be ignored: without it a spec has no meaning")
    return found


def _table(path: Path) -> dict[str, object] | None:
    import tomllib  # most folders have no such file

    try:
        with path.open("rb") as file:
            data = tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} is not valid TOML: {error}") from error
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {(error.strerror or str(error)).lower()}") from error
    tools = data.get("tool")
    table = tools.get("trace-dsl") if isinstance(tools, dict) else None
    if table is not None and not isinstance(table, dict):
        raise SpecError(f"{path}: {TABLE} is not a table; write [{TABLE}] and settings below it")
    return table


def _configuration(table: dict[str, object], path: Path) -> Configuration:
    for key in table:
        if key not in SETTINGS:
            raise SpecError(_with_hint(f"{path}: {TABLE} has no setting {key!r}", did_you_mean(key, SETTINGS).text))
    pedantic = table.get("pedantic", False)
    if not isinstance(pedantic, bool):
        raise SpecError(f"{path}: {TABLE}.pedantic is {pedantic!r}, but must be true or false")
    level = table.get("fail-level", FailLevel.ERROR.value)
    levels = [one.value for one in FailLevel]
    if level not in levels:
        raise SpecError(f"{path}: {TABLE}.fail-level is {level!r}, but must be one of {', '.join(levels)}")
    return Configuration(
        rules=RuleSelection(
            select=_rules(table, "select", path), ignore=_rules(table, "ignore", path), pedantic=pedantic
        ),
        fail_level=FailLevel(str(level)),
    )


def _rules(table: dict[str, object], key: str, path: Path) -> frozenset[str]:
    where = f"{path}: {TABLE}.{key}"
    names = table.get(key, [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SpecError(f"{where} is {names!r}, but must be a list of rules")
    return rule_names(names, where=where, ignoring=key == "ignore")


def _with_hint(message: str, hint: str) -> str:
    return f"{message}; {hint}" if hint else message
