"""Declarations and the first word of a statement."""

from __future__ import annotations

from trace_dsl.syntax.messages.routes import no_label
from trace_dsl.syntax.messages.scene import Advice, Scene

# What each declaration is given: an example, and all forms in a sentence.
_GIVEN = {
    "TEACHER": ("self(...)", 'a teacher is self(...) or model("path")'),
    "ADVANTAGE": ("group(...)", "an advantage is group(...), loo or none"),
    "ROLLOUTS": ("policy(...)", 'rollouts are policy(...) or cached("file")'),
    "LET": ("...", "a `let` is given an expression"),
}
_FORMS = {
    "TEACHER": 'write `teacher = self(...)` or `teacher NAME = model("path")`',
    "ADVANTAGE": "write `advantage = group(...)`",
    "ROLLOUTS": "write `rollouts NAME = policy(...)`",
    "LET": "write `let NAME = ...`",
}


def statement(scene: Scene) -> Advice:
    """What was found starts no statement."""
    starts = "a statement starts with a label, `rest`, spans, teacher, advantage, rollouts, let or extends"
    match scene.kind:
        case "COLON" | "VBAR":
            return scene.say(f"{scene.quoted} has no label before it", "write `LABEL: LOSS`, or `rest: LOSS`")
        case "EQUAL":
            return scene.say(f"{scene.quoted} has no name before it", "write `let NAME = ...`")
        case "TIMES" if scene.next.kind in ("COLON", "WHEN", "VBAR"):
            return scene.say("`*` is no label: what takes every response token is `rest`", "write `rest`")
        case "MINUS" | "TIMES" if scene.next.kind == "NAME" or scene.next.kind.isalpha():
            return scene.say(f"statements are no list items: {scene.quoted} starts none", f"take {scene.quoted} out")
        case _:
            return scene.say(f"no statement starts with {scene.quoted}", starts)


def name(scene: Scene) -> Advice:
    """The name of what is declared is missing."""
    word = scene.taken[0].text
    form = _FORMS[scene.first]
    if scene.kind == "COLON" and scene.first == "TEACHER":
        return scene.say(f"`teacher` is given its value with `=`, not with {scene.quoted}", form)
    if scene.kind in ("COLON", "VBAR", "WHEN"):
        return no_label(scene)
    if scene.at_end:
        missing = "no value" if scene.first == "TEACHER" else "no name"
        return scene.say(f"`{word}` is given {missing}", form)
    if scene.first == "TEACHER":
        return scene.say(f"`=` or a name is missing after `teacher`: found {scene.quoted}", form)
    return scene.say(f"a name is missing after `{word}`: found {scene.quoted}", form)


def equals(scene: Scene) -> Advice:
    """The `=` of a declaration is missing."""
    word, last = scene.taken[0].text, scene.previous.text
    what = f"`{word}`" if len(scene.taken) == 1 else f"the {word} `{last}`"
    verb = "are" if scene.first == "ROLLOUTS" else "is"
    example, _ = _GIVEN[scene.first]
    match scene.kind:
        case "$END":
            return scene.say(f"{what} {verb} given no value", f"add `= {example}`")
        case "COMPARE" if scene.found == "==":
            return scene.say("`==` compares; here a name is given a value", "write `=`")
        case "COLON" | "VBAR" | "WHEN" if len(scene.taken) == 1 and scene.first != "ADVANTAGE":
            return no_label(scene)
        case "COLON":
            return scene.say(f"{what} {verb} given a value with `=`, not with {scene.quoted}", "write `=`")
        case "LPAR" if scene.first == "LET":
            return scene.say("a `let` names an expression and takes no arguments in `(`", f"write `let {last} = ...`")
        case "MINUS" if scene.is_dash:
            return scene.dash()
        case _:
            pass
    if scene.kind == "NAME" or (scene.first == "LET" and scene.kind in ("NUMBER", "STRING")):
        given = scene.found if scene.found == scene.written else "..."
        return scene.say(f"missing `=` before {scene.quoted}", f"write `= {given}`")
    return scene.say(f"missing `=` after `{last}`: found {scene.quoted}", f"write `= {example}`")


def source(scene: Scene) -> Advice:
    """What a declaration is given is missing."""
    _, forms = _GIVEN[scene.first]
    if scene.kind == "STRING" and scene.first != "ADVANTAGE":
        function = "model" if scene.first == "TEACHER" else "cached"
        return scene.say(f"{forms}, not {scene.quoted} alone", f"write {function}({scene.found})")
    return scene.say(f"a value is missing after `=`: found {scene.quoted}", forms)


def after_source(scene: Scene) -> Advice:
    """Something follows what a declaration is given."""
    last = scene.previous
    if last.kind == "NAME" and (scene.is_word or scene.kind in ("NUMBER", "STRING", "EQUAL", "COLON")):
        inside = scene.found if scene.kind in ("NAME", "NUMBER") and scene.found == scene.written else "..."
        return scene.say(
            f"{scene.quoted}: the arguments of `{last.text}` stand in brackets", f"write `{last.text}({inside})`"
        )
    if scene.kind == "LPAR":
        return scene.say("`(` opens a second pair of brackets", "put all of them in one pair of brackets")
    return _complete(scene, f"the {scene.taken[0].text}")


def path(scene: Scene) -> Advice:
    """The path of `extends` is missing."""
    if scene.at_end:
        return scene.say('`extends` needs a "quoted" path', 'write `extends "other.trace"`')
    if scene.kind in ("WHEN", "VBAR") or (scene.kind == "COLON" and scene.next.kind != "STRING"):
        return no_label(scene)
    if scene.kind in ("EQUAL", "COLON", "LPAR"):
        return scene.say(f'`extends` takes its "quoted" path without {scene.quoted}', 'write `extends "other.trace"`')
    if scene.is_word:
        return scene.say(f'{scene.quoted} where a "quoted" path is expected', f'write `extends "{scene.found}.trace"`')
    return scene.say(f'{scene.quoted} where a "quoted" path is expected', 'write `extends "other.trace"`')


def after_path(scene: Scene) -> Advice:
    """Something follows the path of `extends`."""
    if scene.kind in ("COMMA", "STRING", "PLUS", "AND"):
        return scene.say(f"an `extends` names one spec: found {scene.quoted}", "write a line for each")
    return _complete(scene, "the path")


def after_span(scene: Scene) -> Advice:
    """Something follows a label of `spans`."""
    last = scene.previous.text
    called = scene.previous.kind == "RPAR"
    match scene.kind:
        case "VBAR" | "PLUS" | "AND" | "OR" | "OVER":
            return scene.say(f"the labels of `spans` are separated by commas, not by {scene.quoted}", "write `,`")
        case "COLON" | "WHEN":
            return scene.say(
                f"{scene.quoted} cannot stand here: `spans` only declares labels",
                "write the route on a line of its own",
            )
        case "EQUAL" | "NUMBER" | "PERCENT" | "COMPARE" if not called:
            return scene.say(f"{scene.quoted}: the cap of a label stands in brackets", f"write `{last}(cap=25%)`")
        case "MINUS" if scene.is_dash:
            return scene.dash()
        case "LPAR":
            return scene.say(
                "`(` opens a second pair of brackets behind a label", "put its cap in one pair of brackets"
            )
        case _:
            pass
    if scene.is_word or scene.kind == "STRING":
        return scene.say(f"missing `,` before {scene.quoted}", "separate labels with commas")
    return scene.say(
        f"{scene.quoted} cannot stand behind a label of `spans`: here comes `,`, or the line ends",
        f"take {scene.quoted} out",
    )


def _complete(scene: Scene, what: str) -> Advice:
    """Something behind a statement that is complete with `what`."""
    message = f"{scene.quoted} cannot stand here: the line ends behind {what}"
    if scene.is_word or scene.kind in ("NUMBER", "STRING"):
        return scene.say(message, "another statement starts on a new line")
    return scene.say(message, f"take {scene.quoted} out")
