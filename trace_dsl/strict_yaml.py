"""YAML files of settings: read safely, checked strictly, every mistake one line that says where and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Hashable, Iterator
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class Strict(BaseModel):
    """Settings without surprises: unknown keys and values of another type are mistakes, nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class YamlError(ValueError):
    """A text is not YAML, or no mapping; `line` and `column` count from 1, 0 where there is no place to name."""

    def __init__(self, problem: str, line: int = 0, column: int = 0) -> None:
        super().__init__(problem)
        self.line = line
        self.column = column

    @property
    def place(self) -> str:
        """`:3:7`, or nothing."""
        return f":{self.line}:{self.column}" if self.line else ""


class _Loader(yaml.SafeLoader):
    """Safe loading that reads 1e-4 as a number (as YAML 1.2 does) and dates as text, and refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.MarkedYAMLError(problem="a key is a word or a number", problem_mark=key_node.start_mark)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f"the key {key!r} stands twice", problem_mark=key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_NOT_RESOLVED = ("tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag not in _NOT_RESOLVED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$"),
    list("-+0123456789."),
)


def load_yaml(text: str) -> Any:
    """The value of a YAML text. Raises YamlError."""
    try:
        return yaml.load(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise _as_problem(error) from error


def compose_yaml(text: str) -> yaml.Node | None:
    """The nodes of a YAML text, which know their places; None for an empty one. Raises YamlError."""
    try:
        return yaml.compose(text, Loader=_Loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise _as_problem(error) from error


def _as_problem(error: Exception) -> YamlError:
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    if mark is not None and isinstance(error, yaml.MarkedYAMLError):
        return YamlError(str(error.problem or error.context), mark.line + 1, mark.column + 1)
    if isinstance(error, yaml.reader.ReaderError):
        return YamlError(f"the character U+{error.character:04X} at place {error.position} is not allowed")
    return YamlError("it is nested too deeply" if isinstance(error, RecursionError) else str(error))


def problems(
    error: ValidationError,
    model: type[BaseModel],
    meant_by: Callable[[str, str], str | None] = lambda name, group: None,
) -> Iterator[tuple[tuple[int | str, ...], str]]:
    """Everything that is wrong with settings of `model`: where (keys and numbers of list elements), and the message.

    meant_by: what an unknown setting of a group means, where its name tells.
    """
    for entry in error.errors():
        yield entry["loc"], _message(entry, model, meant_by)


def where(loc: tuple[int | str, ...]) -> str:
    """`rollout.prompts`."""
    return ".".join(map(str, loc))


def _message(entry: Any, model: type[BaseModel], meant_by: Callable[[str, str], str | None]) -> str:
    if entry["type"] == "extra_forbidden":
        meant = meant_by(str(entry["loc"][-1]), where(entry["loc"][:-1]))
        if meant is not None:
            return f"unknown setting; {meant}"
        known = _known_keys(entry["loc"][:-1], model)
        close = difflib.get_close_matches(str(entry["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"allowed here: {', '.join(sorted(known))}"
        return f"unknown setting; {hint}"
    if entry["type"] == "missing":
        return "missing, and it has no default"
    if entry["type"] == "string_pattern_mismatch":
        return f"{entry['input']!r} is not allowed: use letters, digits, '.', '_' and '-'"
    if entry["type"] in ("model_type", "dict_type"):
        return f"{entry['input']!r} is not allowed: it is a group of settings"
    text = entry["msg"].removeprefix("Value error, ")
    return f"{entry['input']!r} is not allowed: {text[0].lower()}{text[1:]}"


def _known_keys(group: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    for name in group:
        field = model.model_fields.get(str(name))
        inner = None if field is None else _model_in(field.annotation)
        model = model if inner is None else inner
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The settings that an annotation such as `list[Case]` or `Case | None` is about."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for inner in get_args(annotation) if (found := _model_in(inner)) is not None), None)
