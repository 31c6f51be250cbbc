"""The file of expected weights: YAML in, strict frozen settings out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BeforeValidator, Field, ValidationError

from trace_dsl.errors import ExpectationError, SpecError
from trace_dsl.expressions import weight_at_step
from trace_dsl.lint import parse_spec
from trace_dsl.model import PLAIN_ROWS, Spec
from trace_dsl.schedules import Progress
from trace_dsl.spec_files import SpecBytes, read_spec_bytes
from trace_dsl.strict_yaml import Strict, YamlError, compose_yaml, load_yaml, problems, where
from trace_dsl.terms import Rank

SUFFIX = ".expect.yaml"
SPEC_SUFFIX = ".trace"
# Stands for every rollout where a loss is given one number for all of them.
EVERY = "*"


def quantity(value: Any) -> Any:
    """A number, or a formula of numbers such as `0.5/12`, as a number."""
    if not isinstance(value, str):
        return value
    spec, _ = parse_spec(f"let x = {value}\nrest: none\n")
    if spec is None or len(spec.lets) != 1 or spec.lets[0].value.rank is not Rank.CONSTANT:
        raise ValueError("it is neither a number nor a formula of numbers such as 0.5/12")
    return weight_at_step(spec.lets[0].value, Progress(step=0, total_steps=1))


def _quantities(value: Any) -> Any:
    return [quantity(item) for item in value] if isinstance(value, list) else quantity(value)


def _by_rollout(value: Any) -> Any:
    return value if isinstance(value, dict) else {EVERY: value}


def _stretches(value: Any) -> Any:
    """One stretch [2, 4] as the list of it."""
    is_one = isinstance(value, list) and value and not isinstance(value[0], list)
    return [value] if is_one else value


def _quoted(value: Any) -> Any:
    if isinstance(value, int | float):
        raise ValueError('write routes in quotes, as in "1133", one character a token')
    return value


Count = Annotated[int, Field(ge=0)]
Stretches = Annotated[list[Annotated[list[Count], Field(min_length=2, max_length=2)]], BeforeValidator(_stretches)]
Quantity = Annotated[float, BeforeValidator(quantity)]
# One number for all tokens, or one a token.
Quantities = Annotated[float | list[float], BeforeValidator(_quantities)]
ByRollout = Annotated[dict[str, Quantities], BeforeValidator(_by_rollout)]
Context = Literal["diagnosis", "solution", "sibling", "feedback"]


class Rollout(Strict):
    """One response of the batch. prompt: rollouts of one prompt are a group; correct: by default reward >= 1; rows: the
    source of rollouts; tool: stretches that a tool wrote; has: contexts that there are; signals: measurements.
    """

    tokens: Count
    reward: Quantity = 0.0
    correct: bool | None = None
    prompt: int | str = 0
    rows: str = PLAIN_ROWS
    spans: dict[str, Stretches] = Field(default_factory=dict)
    tool: Stretches = Field(default_factory=list)
    has: list[Context] = Field(default_factory=list)
    signals: dict[str, Quantities] = Field(default_factory=dict)

    @property
    def is_correct(self) -> bool:
        return self.reward >= 1 if self.correct is None else self.correct


class Case(Strict):
    """One step on one batch and what is expected of it.

    trained_tokens: response tokens trained before the step; latched: whether latches were on after the step before;
    seed: of random(). What is not stated is not checked.
    """

    name: Annotated[str, Field(min_length=1)]
    step: Count
    trained_tokens: Annotated[Quantity, Field(ge=0)] = 0.0
    latched: bool = False
    seed: Count = 0
    rollouts: dict[str, Rollout] | None = None
    routes: dict[str, Annotated[str, BeforeValidator(_quoted)]] | None = None
    weights: dict[str, ByRollout] | None = None
    advantages: dict[str, ByRollout] | None = None
    A: dict[str, Quantity] | None = None

    @property
    def states_nothing(self) -> bool:
        return not (self.routes or self.weights or self.advantages or self.A)


class Expectations(Strict):
    """A whole file. steps: of the run; tolerance: relative, of every number; rollouts: of cases without their own."""

    steps: Annotated[int, Field(ge=1)]
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 1e-5
    rollouts: dict[str, Rollout] = Field(default_factory=dict)
    cases: Annotated[list[Case], Field(min_length=1)]

    def batch_of(self, case: Case) -> Mapping[str, Rollout]:
        return self.rollouts if case.rollouts is None else case.rollouts


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectationFile:
    """A file with the spec it is about. `source` is its bytes, for writing it anew."""

    path: str
    spec_path: str
    spec: Spec
    expectations: Expectations
    source: SpecBytes

    def located(self, loc: tuple[int | str, ...], message: str) -> str:
        """A message about a place in the file, with its line."""
        return located(self.path, compose_yaml(self.source.text), loc, message)


def expectations_of(path: str) -> str:
    """The file of expectations that a path means: itself, or for a spec `a/b.trace` the `a/b.expect.yaml` beside it.

    Raises ExpectationError for a path that is neither.
    """
    if path.endswith(SUFFIX):
        return path
    if path.endswith(SPEC_SUFFIX):
        beside = path.removesuffix(SPEC_SUFFIX) + SUFFIX
        if Path(path).is_file() and not Path(beside).is_file():
            raise ExpectationError(f"{path} has no expectations: there is no {beside}")
        return beside
    raise ExpectationError(f"{path} is neither a spec, NAME{SPEC_SUFFIX}, nor expectations, NAME{SUFFIX}")


def read_expectations(path: str) -> ExpectationFile:
    """Read a file of expectations and its spec. Raises ExpectationError or SpecError, with every mistake in them."""
    spec_path = path.removesuffix(SUFFIX) + SPEC_SUFFIX
    source = read_spec_bytes(path)
    expectations = parse_expectations(path, source.text)
    if not Path(spec_path).is_file():
        raise ExpectationError(f"{path} is about {spec_path}, and there is no such file")
    spec, errors = parse_spec(read_spec_bytes(spec_path).text, path=spec_path)
    if spec is None:
        first = errors[0]
        where_it_is = f"{first.place.path or spec_path}:{first.place.line}:{first.place.column}"
        raise SpecError(f"{where_it_is}: {first.message} (trace-dsl lint {spec_path} tells all)")
    return ExpectationFile(path=path, spec_path=spec_path, spec=spec, expectations=expectations, source=source)


def parse_expectations(path: str, text: str) -> Expectations:
    """The settings in the text of the file at `path`. Raises ExpectationError, whose message holds every mistake."""
    try:
        data, root = load_yaml(text), compose_yaml(text)
    except YamlError as error:
        raise ExpectationError(f"{path}{error.place}: not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise ExpectationError(f"{path}: it is a mapping with steps, rollouts and cases; see docs/testing-specs.md")
    try:
        return Expectations.model_validate(data)
    except ValidationError as error:
        found = dict.fromkeys(located(path, root, loc, message) for loc, message in problems(error, Expectations))
        raise ExpectationError("\n".join(found)) from error


def located(path: str, root: yaml.Node | None, loc: tuple[int | str, ...], message: str) -> str:
    """`path:line: where: message`, with the line of the deepest part of `loc` that the file has."""
    node, line = root, 1
    for name in loc:
        step = child(node, name)
        if step is None:
            break
        line = step[0].start_mark.line + 1
        node = step[1]
    named = tuple(name for name in loc if name not in _OF_PYDANTIC and name != EVERY)
    return f"{path}:{line}: {where(named)}: {message}"


# Names of alternatives that pydantic puts into the place of a mistake.
_OF_PYDANTIC = frozenset({"float", "list[float]", "int", "str"})


def child(node: yaml.Node | None, name: int | str) -> tuple[yaml.Node, yaml.Node] | None:
    """(the node that names it, its value) below a node; the value names itself in a list."""
    if isinstance(node, yaml.MappingNode):
        return next(((key, value) for key, value in node.value if key.value == str(name)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(name, int) and name < len(node.value):
        return node.value[name], node.value[name]
    return None
