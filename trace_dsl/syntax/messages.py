"""Messages for text that does not parse: what was found, what may stand there, and what to write instead.

The parser says only where it stopped, on what, and which terminals it would have taken. `explain` looks at the text to
the left and tells a person; habits from Python, YAML, C and PyTorch have their own messages, everything else a general
one in the field's words.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from trace_dsl.syntax.machine import Obstacle

_TOKEN = re.compile(r'"[^"\n]*"?|[A-Za-z_]\w*|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|==|!=|<=|>=|\S')

_WORDS = {
    "SPANS": "`spans`",
    "TEACHER": "`teacher`",
    "ADVANTAGE": "`advantage`",
    "ROLLOUTS": "`rollouts`",
    "LET": "`let`",
    "EXTENDS": "`extends`",
    "WHEN": "`when PREDICATE`",
    "COLON": "`:` and the losses",
    "VBAR": "`| another label`",
    "EQUAL": "`=`",
    "LPAR": "`(`",
    "RPAR": "`)`",
    "COMMA": "`,`",
    "NAME": "a name",
    "STRING": 'a "quoted" path',
    "PLUS": "`+`",
    "$END": "the end of the line",
}
_VALUE_STARTS = frozenset({"NAME", "NUMBER", "LPAR", "MINUS"})
_OPERATORS = frozenset({"AND", "OR", "COMPARE", "PLUS", "MINUS", "TIMES", "OVER"})
_UNITS = frozenset({"PERCENT", "STEPS", "TOKENS"})
_KEYWORDS = frozenset({"spans", "teacher", "advantage", "rollouts", "let", "extends"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """What to tell. `at` and `length` say what to underline; `opened_at` where an unclosed bracket stands."""

    message: str
    fix: str
    at: int
    length: int = 1
    opened_at: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """The obstacle with what stands around it."""

    obstacle: Obstacle
    left: tuple[str, ...]  # the tokens before it
    right: tuple[str, ...]  # the tokens after it
    open: tuple[int, ...]  # offsets of the brackets open at it

    @property
    def found(self) -> str:
        return self.obstacle.found

    @property
    def previous(self) -> str:
        return self.left[-1] if self.left else ""

    @property
    def next(self) -> str:
        return self.right[0] if self.right else ""

    @property
    def after_colon(self) -> bool:
        """Among the losses of a route, outside their brackets."""
        return ":" in self.left and not self.open

    @property
    def in_route(self) -> bool:
        return bool(self.left) and self.left[0] not in _KEYWORDS

    def say(self, message: str, fix: str, *, length: int | None = None) -> Advice:
        size = len(self.found) if length is None else length
        return Advice(message=message, fix=fix, at=self.obstacle.at, length=max(size, 1))


def _scene(obstacle: Obstacle) -> _Scene:
    left = tuple(_TOKEN.findall(obstacle.text[: obstacle.at]))
    right = tuple(_TOKEN.findall(obstacle.text[obstacle.at + len(obstacle.found) :]))
    opened: list[int] = []
    for match in _TOKEN.finditer(obstacle.text[: obstacle.at]):
        if match.group() == "(":
            opened.append(match.start())
        elif match.group() == ")" and opened:
            opened.pop()
    return _Scene(obstacle=obstacle, left=left, right=right, open=tuple(opened))


def _unclosed_bracket(scene: _Scene) -> Advice | None:
    if scene.found or not scene.open:
        return None
    return Advice(
        message="this bracket is never closed",
        fix="close it with `)`",
        at=scene.open[-1],
    )


def _unopened_bracket(scene: _Scene) -> Advice | None:
    if scene.found != ")" or scene.open:
        return None
    return scene.say("`)` closes no bracket", "take it out")


def _foreign_character(scene: _Scene) -> Advice | None:
    text, at = scene.obstacle.text, scene.obstacle.at
    two = text[at : at + 2]
    match two:
        case "&&":
            return scene.say("`&&` is written `and` here", "write `and`", length=2)
        case "||":
            return scene.say("`||` is written `or` here", "write `or`", length=2)
        case "=>" | "->":
            return scene.say(
                f"`{two}` is not part of the language", "a route is `LABEL when PREDICATE: LOSS`", length=2
            )
        case _:
            pass
    match scene.found[:1]:
        case "*" if scene.previous == "*":
            return scene.say("there is no power operator", "multiply, or use exp(n * log(x))", length=1)
        case "&":
            return scene.say("`&` is written `and` here", "write `and`", length=1)
        case "|" if not ({"VBAR"} & scene.obstacle.expected):
            return scene.say("`|` joins labels; predicates are joined by `or`", "write `or`", length=1)
        case "!":
            return scene.say("`!` is written `not` here", "write `not`", length=1)
        case "^":
            return scene.say("there is no power operator", "multiply, or use exp(n * log(x))", length=1)
        case "'":
            return scene.say("strings stand in double quotes", 'write "..."', length=1)
        case '"' if not scene.found.endswith('"') or len(scene.found) < 2:
            return scene.say("this string is never closed on its line", 'close it with `"`', length=1)
        case "[" | "]" | "{" | "}":
            return scene.say(
                f"`{scene.found[0]}` is not part of the language: groups, calls and pairs use round brackets",
                "write `(` and `)`",
                length=1,
            )
        case ";":
            return scene.say("one statement a line: `;` separates nothing", "start a new line", length=1)
        case _:
            return None


def _colon_in_call(scene: _Scene) -> Advice | None:
    if scene.found != ":" or not scene.open:
        return None
    if re.fullmatch(r"[A-Za-z_]\w*", scene.previous):
        value = scene.next or "..."
        return scene.say("arguments are written with `=`, not `:`", f"write `{scene.previous}={value}`")
    return Advice(
        message="`:` stands inside a bracket that is not closed",
        fix="close the bracket before `:`",
        at=scene.obstacle.at,
        opened_at=scene.open[-1],
    )


def _equals(scene: _Scene) -> Advice | None:
    expected = scene.obstacle.expected
    if scene.found == "=" and scene.previous == "=" and scene.obstacle.text[scene.obstacle.at - 1] == "=":
        return Advice(
            message="`==` compares; here a name is given a value",
            fix="write `=`",
            at=scene.obstacle.at - 1,
            length=2,
        )
    if scene.found == "==" and "EQUAL" in expected:
        return scene.say("`==` compares; here a name is given a value", "write `=`")
    if scene.found != "=":
        return None
    if "COMPARE" in expected:
        return scene.say("`=` gives a name its value; values are compared with `==`", "write `==`")
    if "COLON" in expected and len(scene.left) == 1:
        name = scene.previous
        return scene.say(
            f"`{name} =` is no statement: a route has a `:`, a named expression starts with `let`",
            f"write `{name}: LOSS` or `let {name} = ...`",
        )
    return None


def _loss_arithmetic(scene: _Scene) -> Advice | None:
    if not scene.after_colon:
        return None
    found, left = scene.found, scene.previous
    if left in {":", "+"} and re.fullmatch(r"[\d.][\d.eE+-]*", found):
        loss = next((word for word in scene.right if re.fullmatch(r"[A-Za-z_]\w*", word)), "fkl")
        return scene.say(
            "a loss is not multiplied from outside: its weight is its argument `w`",
            f"put the weight inside: {loss}(w={found})",
        )
    if found in {"*", "/"} and re.fullmatch(r"[A-Za-z_]\w*", left):
        loss = scene.next if re.fullmatch(r"[A-Za-z_]\w*", scene.next) else "fkl"
        return scene.say(
            "a loss is not multiplied from outside: its weight is its argument `w`",
            f"put the weight inside: {loss}(w={left})",
        )
    if found in {"*", "/"}:
        factor = f"{scene.next}" if found == "*" else f"1/{scene.next}"
        return scene.say(
            "a loss is not multiplied from outside: its weight is its argument `w`",
            f"put the weight inside the brackets: w={factor}",
        )
    if found == "-":
        return scene.say(
            "losses are added with `+`; there is no minus between them",
            "give the loss a negative weight, w=-1.0, if that is meant",
        )
    if found == "(" and left in {":", "+"}:
        return scene.say("losses are not grouped by brackets", "write LOSS + LOSS")
    if found == ",":
        return scene.say("the losses of a route are added, not listed", "write `+` between them")
    return None


def _route_header(scene: _Scene) -> Advice | None:
    """What is missing between a label and its losses."""
    if not scene.in_route or scene.open or ":" in scene.left or "COLON" not in scene.obstacle.expected:
        return None
    if not scene.found:
        header = " ".join(scene.left)
        return scene.say(f"the route `{header}` has no losses", "add `: LOSS`, or `: none`")
    if not re.match(r"[A-Za-z_]", scene.found):
        if scene.found == "," and "VBAR" in scene.obstacle.expected:
            return scene.say("labels of one route are joined by `|`, not by a comma", "write `|`")
        return None
    if "WHEN" in scene.obstacle.expected and ":" in scene.right and scene.next != "(":
        if scene.found in {"if", "where", "unless", "whenever"}:
            return scene.say(f"`{scene.found}` is written `when` here", "write `when`")
        return scene.say(f"`{scene.found}` stands where `when` or `:` is expected", f"write `when {scene.found}`")
    if "WHEN" not in scene.obstacle.expected and ":" in scene.right:
        return scene.say(f"`{scene.found}` follows a complete predicate", "join predicates with `and` or `or`")
    return scene.say(f"missing `:` before `{scene.found}`", f"write `: {scene.found}`")


def _keyword_label(scene: _Scene) -> Advice | None:
    if len(scene.left) != 1 or scene.left[0] not in _KEYWORDS or scene.found not in {":", "when", "|"}:
        return None
    word = scene.left[0]
    return scene.say(f"`{word}` starts a statement, so no label can be called that", "call the label something else")


def _number_unit(scene: _Scene) -> Advice | None:
    if not (scene.obstacle.expected >= _UNITS) or not re.match(r"[A-Za-z_]", scene.found):
        return None
    if scene.next in {"=", "("}:
        return None
    return scene.say(
        f"`{scene.previous} {scene.found}`: `{scene.found}` is no unit",
        "a length is `30` or `30 steps`, `10%` of the run, or `2e6 tokens`",
    )


def _comparison_chain(scene: _Scene) -> Advice | None:
    if scene.found not in {"==", "!=", "<", "<=", ">", ">="} or "AND" not in scene.obstacle.expected:
        return None
    return scene.say("comparisons do not chain", "write `a < b and b < c`")


def _missing_value(scene: _Scene) -> Advice | None:
    if not (scene.obstacle.expected >= _VALUE_STARTS):
        return None
    found = f"`{scene.found}`" if scene.found else "the end of the line"
    if scene.previous == ",":
        return scene.say(f"{found} where another value is expected", "give a value, or take the comma out")
    after = f" after `{scene.previous}`" if scene.previous else ""
    return scene.say(f"a value is missing{after}: found {found}", "give a number, a name, a call or a bracket")


def _missing_loss(scene: _Scene) -> Advice | None:
    if not scene.after_colon or scene.previous not in {":", "+"}:
        return None
    found = f"`{scene.found}`" if scene.found else "the end of the line"
    return scene.say(
        f"a loss is missing after `{scene.previous}`: found {found}", "write a loss such as grpo(), or none"
    )


def _statement_start(scene: _Scene) -> Advice | None:
    if scene.left:
        return None
    return scene.say(
        f"no statement starts with `{scene.found}`",
        "a statement starts with a label, `rest`, spans, teacher, advantage, rollouts, let or extends",
    )


def _missing_mark(scene: _Scene) -> Advice | None:
    if not re.match(r"[A-Za-z_\d.\"(]", scene.found):
        return None
    if "COMMA" in scene.obstacle.expected:
        operator = " or an operator" if scene.obstacle.expected >= _OPERATORS else ""
        kind = "arguments" if scene.open else "labels"
        return scene.say(f"missing `,`{operator} before `{scene.found}`", f"separate {kind} with commas")
    if scene.after_colon and "PLUS" in scene.obstacle.expected:
        return scene.say(f"missing `+` before `{scene.found}`", "the losses of a route are joined by `+`")
    if scene.obstacle.expected == {"EQUAL"}:
        return scene.say(f"missing `=` before `{scene.found}`", f"write `= {scene.found}`")
    return None


def _general(scene: _Scene) -> Advice:
    expected = scene.obstacle.expected
    words: list[str] = []
    if expected >= _VALUE_STARTS:
        words.append("a value")
    if expected & _OPERATORS and len(expected & _OPERATORS) > 1:
        words.append("an operator")
    if expected >= _UNITS:
        words.append("a unit")
    covered = (_VALUE_STARTS | {"STRING", "NOT"} if "a value" in words else frozenset()) | (
        _OPERATORS if "an operator" in words else frozenset()
    )
    words.extend(text for name, text in _WORDS.items() if name in expected - covered)
    found = f"`{scene.found}`" if scene.found else "the end of the line"
    choices = ", ".join(words[:-1]) + (" or " if len(words) > 1 else "") + words[-1] if words else "nothing"
    if not scene.found:
        return scene.say(f"the line ends too early: {choices} is expected", "complete the statement")
    return scene.say(
        f"{found} cannot stand here: {choices} is expected", f"take {found} out, or complete the statement before it"
    )


_MESSAGES: tuple[Callable[[_Scene], Advice | None], ...] = (
    _foreign_character,
    _unclosed_bracket,
    _unopened_bracket,
    _colon_in_call,
    _equals,
    _keyword_label,
    _number_unit,
    _loss_arithmetic,
    _missing_loss,
    _route_header,
    _comparison_chain,
    _statement_start,
    _missing_value,
    _missing_mark,
)


def explain(obstacle: Obstacle) -> Advice:
    """The message for a place where parsing stopped: the first special one that fits, or the general one."""
    scene = _scene(obstacle)
    for message in _MESSAGES:
        advice = message(scene)
        if advice is not None:
            return advice
    return _general(scene)
