"""Expressions: where a value is missing, and what cannot follow one."""

from __future__ import annotations

from trace_dsl.syntax.messages.scene import WORDS, Advice, Scene

_STARTS = WORDS | {"NUMBER", "STRING", "LPAR"}


def value(scene: Scene) -> Advice:
    """A value is missing."""
    last = scene.previous
    match scene.kind:
        case "PLUS" if last.kind != "PLUS":
            return scene.say("values have no `+` in front", "leave it out")
        case "PERCENT":
            return scene.say("a number is missing before `%`", "write a share as `10%`")
        case "COMMA" if last.kind == "COMMA":
            return scene.say("nothing stands between `,` and `,`", "take one of them out")
        case "COMMA" if last.kind == "LPAR":
            return scene.say("nothing stands between `(` and `,`", "take the comma out")
        case "RPAR" if last.kind == "LPAR":
            return scene.say("nothing stands between `(` and `)`", "put a value in, or take the brackets out")
        case "RPAR" | "COLON" if last.kind == "COMMA":
            return scene.say(f"{scene.quoted} where another value is expected", "give a value, or take the comma out")
        case "COLON" if last.kind == "WHEN":
            return scene.say(
                "a predicate is missing after `when`: found `:`", "write one, such as `correct`, or take `when` out"
            )
        case "EQUAL" if last.kind in ("LPAR", "COMMA") and scene.in_call:
            return scene.say("the name of an argument is missing before `=`", "write `NAME=VALUE`")
        case _:
            pass
    if last.kind == "COMMA":
        return scene.say(f"{scene.quoted} where another value is expected", "give a value, or take the comma out")
    what = "a predicate" if last.kind in ("WHEN", "NOT", "AND", "OR") else "a value"
    example = "such as `correct` or `gap > 0`" if what == "a predicate" else "a number, a name, a call or a bracket"
    return scene.say(f"{what} is missing after `{last.text}`: found {scene.quoted}", f"give {_a(what)}{example}")


def _a(what: str) -> str:
    return "one, " if what == "a predicate" else ""


def after_value(scene: Scene) -> Advice:
    """Something follows a value that cannot."""
    return _misread(scene) or _habit(scene) or _after_number(scene) or _operator(scene) or _word(scene) or _sign(scene)


def _misread(scene: Scene) -> Advice | None:
    """A word such as `not` that was taken for a name, because no operator could stand there."""
    word = scene.previous
    if word.kind != "NAME" or word.text not in ("and", "or", "not") or not (scene.is_word or scene.kind in _STARTS):
        return None
    before = scene.taken[-2].text
    if word.text == "not":
        message = f"`not` cannot stand behind `{before}`: it takes a whole comparison"
        fix = "put it in brackets: (not ...)"
    else:
        message = f"a value is missing between `{before}` and `{word.text}`"
        fix = f"give one, or take `{word.text}` out"
    return Advice(message=message, fix=fix, at=word.start, length=len(word.text))


def _habit(scene: Scene) -> Advice | None:
    """Words of other languages."""
    match scene.found:
        case "if" | "else":
            return scene.say(f"there is no `{scene.found}` in expressions", "a choice is where(p, a, b)")
        case "is":
            return scene.say("`is` is written `==` here", "write `==`")
        case "in":
            return scene.say("there is no `in`", "compare with each value: `a == 1 or a == 2`")
        case "then" | "do" if scene.accepts("COLON"):
            return scene.say(f"`{scene.found}` is written `:` here", "write `:`")
        case "when" if scene.accepts("COLON"):
            return scene.say("a route has one `when`", "join predicates with `and` or `or`")
        case _:
            return None


def _after_number(scene: Scene) -> Advice | None:
    last = scene.previous
    if last.kind != "NUMBER":
        return None
    written = last.text + scene.found
    if scene.touches and scene.kind == "NUMBER":
        return scene.say_from_previous(f"`{written}` is no number", "write one, such as 0.5 or 2e6")
    if not scene.is_word or scene.kind in ("WHEN", "AND", "OR", "NOT") or not scene.accepts("STEPS"):
        return None
    if scene.touches and scene.found.startswith("_"):
        return scene.say_from_previous(f"`{written}`: numbers have no `_`", f"write {written.replace('_', '')}")
    if scene.touches:
        return scene.say_from_previous(
            f"`{written}` is neither a number nor a name: `{scene.found}` is no unit",
            f"a length is `30 steps`, `10%` of the run, or `2e6 tokens`; a product is `{last.text}*{scene.found}`",
        )
    if scene.kind == "NAME" and scene.next.kind not in ("EQUAL", "LPAR") and not scene.colon_ahead:
        return scene.say(
            f"`{last.text} {scene.found}`: `{scene.found}` is no unit",
            "a length is `30` or `30 steps`, `10%` of the run, or `2e6 tokens`",
        )
    return None


def _operator(scene: Scene) -> Advice | None:
    match scene.kind:
        case "COMPARE":
            return scene.say(
                f"{scene.quoted} follows a comparison: comparisons do not chain", "write `a < b and b < c`"
            )
        case "EQUAL" if scene.in_call:
            return scene.say(
                "`=` stands behind the name of an argument; values are compared with `==`",
                "write `NAME=VALUE` for an argument, `==` for a comparison",
            )
        case "EQUAL":
            return scene.say("`=` gives a name its value; values are compared with `==`", "write `==`")
        case "PERCENT":
            return scene.say("`%` stands behind a number alone; there is no remainder", "write a share as `10%`")
        case "STEPS" | "TOKENS":
            return scene.say(f"`{scene.found}` stands behind a number alone", f"write a length as `30 {scene.found}`")
        case _:
            return None


def _word(scene: Scene) -> Advice | None:
    """A word right behind a value: what stands between the two is missing."""
    if scene.kind not in _STARTS:
        return None
    if scene.in_call:
        return scene.say(f"missing `,` or an operator before {scene.quoted}", "separate arguments with commas")
    if scene.open:
        return scene.say(f"missing an operator or `)` before {scene.quoted}", "join values by an operator")
    if not scene.accepts("COLON"):
        return scene.say(
            f"{scene.quoted} follows a complete value",
            "join values with an operator; another statement starts on a new line",
        )
    if scene.colon_ahead or scene.kind != "NAME":
        return scene.say(f"{scene.quoted} follows a complete predicate", "join predicates with `and` or `or`")
    return scene.say(f"missing `:` before {scene.quoted}", f"write `: {scene.found}`")


def _sign(scene: Scene) -> Advice:
    """A sign or the end, where an expression could be over but its statement is not, or the other way round."""
    if scene.open:
        what = "the next argument or `)`" if scene.in_call else "an operator or `)`"
        return scene.say(f"{scene.quoted} cannot stand behind a value: here comes {what}", _out(scene))
    if not scene.accepts("COLON"):
        if scene.kind == "COMMA":
            return scene.say("a `let` has one value: a pair of values with `,` stands in brackets", "write `(a, b)`")
        if scene.kind == "COLON":
            return scene.say("a `let` has no `:`", "start a new line for a route, which begins with its labels")
        return scene.say(f"{scene.quoted} cannot stand behind a value: here the line ends", _out(scene))
    if scene.at_end:
        return scene.say(f"the route `{scene.header}` has no losses", "add `: LOSS`, or `: none`")
    if scene.kind == "COMMA":
        return scene.say("predicates are joined by `and` or `or`, not by `,`", "write `and` or `or`")
    return scene.say(f"{scene.quoted} cannot stand behind a predicate: here comes `:`", _out(scene))


def _out(scene: Scene) -> str:
    return f"take {scene.quoted} out"
