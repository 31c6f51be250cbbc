"""YAML files of settings: read safely, checked strictly, every mistake one line that says where and what to do."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Hashable, Iterator
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Tag, ValidationError

IMPORT_PATH = r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$"
TYPE_LABEL = r"^[a-z][a-z0-9_]{0,39}$"


class Strict(BaseModel):
    """Settings without surprises: unknown keys and values of another type are mistakes, nothing is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


_DEFAULT_PATTERN_HINT = "use letters, digits, '.', '_' and '-'"
# What a pattern means, where it is no list of characters.
_PATTERN_HINTS = {IMPORT_PATH: "write module:function", TYPE_LABEL: "one word of at most 40 characters (a-z, 0-9, _)"}


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
        unknown = entry["loc"][-1:] if entry["type"] == "extra_forbidden" else ()
        place, group = _walk(entry["loc"][: len(entry["loc"]) - len(unknown)], model)
        meant = meant_by(str(unknown[0]), where(place)) if unknown else None
        yield (*place, *unknown), _message(entry, group) if meant is None else f"unknown setting; {meant}"


def where(loc: tuple[int | str, ...]) -> str:
    """`rollout.prompts`."""
    return ".".join(map(str, loc))


def _message(entry: Any, group: type[BaseModel] | None) -> str:
    """What is wrong, in our words; `group` is the model whose setting it is, where that is known."""
    if entry["type"] == "extra_forbidden":
        known = [] if group is None else list(group.model_fields)
        close = difflib.get_close_matches(str(entry["loc"][-1]), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"allowed here: {', '.join(sorted(known))}"
        return f"unknown setting; {hint}"
    if entry["type"] == "missing":
        return "missing, and it has no default"
    if entry["type"] == "union_tag_not_found":
        return f"{entry['ctx']['discriminator'].strip(chr(39))}: missing, and it has no default"
    if entry["type"] == "union_tag_invalid":
        tags = re.findall(r"'([^']*)'", entry["ctx"]["expected_tags"])
        close = difflib.get_close_matches(entry["ctx"]["tag"], tags, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        kind = entry["ctx"]["discriminator"].strip("'")
        return f"{kind}: {entry['ctx']['tag']!r} is not allowed: choose {', '.join(tags)}{hint}"
    if entry["type"] == "string_pattern_mismatch":
        hint = _PATTERN_HINTS.get(entry["ctx"]["pattern"], _DEFAULT_PATTERN_HINT)
        return f"{entry['input']!r} is not allowed: {hint}"
    if entry["type"] in ("model_type", "dict_type", "model_attributes_type"):
        return f"{entry['input']!r} is not allowed: it is a group of settings"
    text = entry["msg"].removeprefix("Value error, ")
    return f"{entry['input']!r} is not allowed: {text[0].lower()}{text[1:]}"


def _walk(loc: tuple[int | str, ...], model: type[BaseModel]) -> tuple[tuple[int | str, ...], type[BaseModel] | None]:
    """A place as a reader of the file sees it, and the model of the settings there.

    Pydantic's place also names which alternative of a union it took, by its tag; that is left out.
    """
    place: list[int | str] = []
    choices: tuple[type[BaseModel], ...] = (model,)
    tags: frozenset[Any] = frozenset()
    for name in loc:
        if name in tags:
            choices = tuple(m for m in choices if name in _kinds(m)) or choices
            tags = frozenset()
            continue
        place.append(name)
        field = next((m.model_fields[name] for m in choices if name in m.model_fields), None)
        if field is not None:
            choices = tuple(_models_in(field.annotation))
            tags = frozenset(_tags_in(field.annotation)).union(*(_kinds(m) for m in choices if len(choices) > 1))
    return tuple(place), choices[0] if choices else None


def _kinds(model: type[BaseModel]) -> tuple[Any, ...]:
    """What the field `kind` of a model may be: such fields tell the alternatives of a union apart."""
    kind = model.model_fields.get("kind")
    return () if kind is None else get_args(kind.annotation)


def _tags_in(annotation: Any) -> Iterator[str]:
    """The tags that an annotation gives to the alternatives of a union."""
    for inner in get_args(annotation):
        if isinstance(inner, Tag):
            yield inner.tag
        yield from _tags_in(inner)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """The settings that an annotation such as `list[Case]`, `Case | None` or `A | B` is about."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    else:
        for inner in get_args(annotation):
            yield from _models_in(inner)
