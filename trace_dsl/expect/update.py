"""What was found, written into a file of expectations: the numbers that no longer hold, and nothing else.

Values are replaced where they stand, so that comments, order and formulas that still hold stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import yaml

from trace_dsl.expect.compare import Found, Outcome, PerToken, Refused
from trace_dsl.expect.file import ExpectationFile, child
from trace_dsl.format.files import replace_file
from trace_dsl.strict_yaml import compose_yaml

_WIDTH = 110


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edit:
    start: int
    end: int
    text: str


Value = str | Mapping[str, "Value"]


def write_found(file: ExpectationFile, outcomes: Sequence[Outcome | Refused]) -> tuple[str, ...]:
    """Write what was found into a file, aside and then renamed; gives the names of the cases that changed.

    Raises SpecError when the file cannot be written.
    """
    changed = {
        index: outcome
        for index, outcome in enumerate(outcomes)
        if isinstance(outcome, Outcome) and (outcome.mismatches or outcome.case.states_nothing)
    }
    if changed:
        text = updated_text(file.source.text, changed, file.expectations.tolerance)
        replace_file(file.path, file.source.encoded(text))
    return tuple(outcome.case.name for outcome in changed.values())


def updated_text(text: str, outcomes: Mapping[int, Outcome], tolerance: float) -> str:
    """The text of a file with what was found. `outcomes`: the cases to write, by their place in the file.

    A case that states nothing is given its routes, weights and advantages.
    """
    root = compose_yaml(text)
    edits = []
    for index, outcome in outcomes.items():
        node = root
        for name in ("cases", index):
            step = child(node, name)
            assert step is not None, "the file was read before"
            node = step[1]
        assert isinstance(node, yaml.MappingNode)
        if outcome.case.states_nothing:
            edits.extend(_stated(text, node, _everything(outcome.found, tolerance)))
        else:
            edits.extend(_corrected(text, node, outcome, tolerance))
    for edit in sorted(edits, key=lambda e: e.start, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


# ---------------------------------------------------------------------------------------------------------- what stands


def _everything(found: Found, tolerance: float) -> dict[str, Value]:
    stated: dict[str, Value] = {
        "routes": _routes(found),
        "weights": {loss: _by_rollout(found, loss, found.weights[loss], tolerance) for loss in found.weights},
        "advantages": {loss: _by_rollout(found, loss, found.advantages[loss], tolerance) for loss in found.advantages},
    }
    return {key: value for key, value in stated.items() if value}


def _routes(found: Found) -> dict[str, Value]:
    return {name: f'"{found.route_text(name)}"' for name in found.routes}


def _by_rollout(found: Found, loss: str, values: Mapping[str, PerToken], tolerance: float) -> Value:
    """The values of a loss, shortest first: 0, or the rollouts that have any, each by one number or a list."""
    number = _number(tolerance)
    shown: dict[str, Value] = {}
    for rollout, per_token in values.items():
        if not any(per_token):
            continue
        texts = [number(value) for value in per_token]
        taken = [text for text, one in zip(texts, found.at_tokens_of(loss, rollout, 1.0), strict=True) if one]
        shown[rollout] = taken[0] if len(set(taken)) == 1 else f"[{', '.join(texts)}]"
    return shown or "0"


def _number(tolerance: float) -> Callable[[float], str]:
    """Writes numbers so that they hold within the tolerance when they are read again."""
    digits = max(math.ceil(-math.log10(tolerance)) + 1, 3)
    return lambda value: f"{value + 0.0:.{digits}g}"  # + 0.0: no minus zero


# ------------------------------------------------------------------------------------------------------------ the edits


def _corrected(text: str, node: yaml.MappingNode, outcome: Outcome, tolerance: float) -> list[_Edit]:
    """Edits for what a case states and does not hold."""
    found, number = outcome.found, _number(tolerance)
    edits = []
    for what, loss in dict.fromkeys((mismatch.what, mismatch.loss) for mismatch in outcome.mismatches):
        group = child(node, what)
        assert group is not None, "only what is stated can differ"
        if loss is None:
            wrong = [m.rollout for m in outcome.mismatches if m.what == what]
            for rollout in dict.fromkeys(wrong):
                value = f'"{found.route_text(rollout)}"' if what == "routes" else number(found.A[rollout])
                edits.append(_set(text, group[1], rollout, value))
        else:
            values = (found.weights if what == "weights" else found.advantages)[loss]
            edits.append(_set(text, group[1], loss, _by_rollout(found, loss, values, tolerance)))
    return edits


def _stated(text: str, node: yaml.MappingNode, values: Mapping[str, Value]) -> list[_Edit]:
    """Edits that give a case these keys: in the place of empty ones that it has, the others at its end."""
    present = {key: value for key, value in values.items() if child(node, key) is not None}
    edits = [_set(text, node, key, value) for key, value in present.items()]
    added = [(key, value) for key, value in values.items() if key not in present]
    if node.flow_style:
        rest = "".join(f", {key}: {_flow(value)}" for key, value in added)
        edits.append(_Edit(start=node.end_mark.index - 1, end=node.end_mark.index - 1, text=rest))
        return edits
    indent = node.start_mark.column
    lines = "".join(f"\n{' ' * indent}{key}:{_written(value, indent, len(key))}" for key, value in added)
    end = _end(node)
    edits.append(_Edit(start=end, end=end, text=lines))
    return edits


def _set(text: str, parent: yaml.Node, key: str, value: Value) -> _Edit:
    """The edit that gives a key of a mapping another value."""
    step = child(parent, key)
    assert step is not None, "only keys that stand there are set"
    named, old = step
    flow = isinstance(parent, yaml.MappingNode) and parent.flow_style
    written = f" {_flow(value)}" if flow else _written(value, named.start_mark.column, len(key))
    return _Edit(start=text.index(":", named.end_mark.index) + 1, end=_end(old), text=written)


def _end(node: yaml.Node) -> int:
    """Where a value ends. A block ends where its last value does: YAML counts the lines to the next key to it."""
    if isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        return _end(last[1] if isinstance(node, yaml.MappingNode) else last)
    return node.end_mark.index


def _written(value: Value, indent: int, key: int) -> str:
    """A value behind `key:` in a block: on the same line if it fits, else one key a line below it."""
    flow = _flow(value)
    if isinstance(value, str) or (indent + key + len(flow) < _WIDTH and _is_flat(value)):
        return f" {flow}"
    inner = indent + 2
    return "".join(f"\n{' ' * inner}{name}:{_written(item, inner, len(name))}" for name, item in value.items())


def _is_flat(value: Mapping[str, Value]) -> bool:
    return all(isinstance(item, str) for item in value.values())


def _flow(value: Value) -> str:
    if isinstance(value, str):
        return value
    return "{" + ", ".join(f"{name}: {_flow(item)}" for name, item in value.items()) + "}"
