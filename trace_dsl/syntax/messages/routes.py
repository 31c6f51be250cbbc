"""Routes: labels, what stands between them and the losses, and the losses."""

from __future__ import annotations

import re

from trace_dsl.syntax.messages.scene import KEYWORDS, Advice, Scene
from trace_dsl.syntax.messages.statements import statement_meant
from trace_dsl.vocabulary import DIVERGENCES, FUNCTIONS, LOSSES, SIGNALS

_JOINING = frozenset({"AND", "OR", "PLUS", "OVER", "COMMA"})
_INSTEAD_OF_WHEN = frozenset({"if", "where", "unless", "whenever", "on", "for", "with"})


def label(scene: Scene) -> Advice:
    """A label is missing, of a route or of `spans`."""
    last = scene.previous
    if last.kind == "SPANS":
        return _first_span(scene)
    if scene.at_end:
        return scene.say(f"a label is missing after `{last.text}`", f"name one, or take the `{last.text}` out")
    return scene.say(
        f"a label is missing after `{last.text}`: found {scene.quoted}", "a label is a name, such as `key`"
    )


def _first_span(scene: Scene) -> Advice:
    if scene.at_end:
        return scene.say("`spans` declares no labels", "write `spans key(cap=25%), error`")
    if scene.kind == "VBAR" or (scene.kind == "COLON" and scene.next.text in LOSSES):
        return no_label(scene)
    if scene.kind in ("EQUAL", "LPAR", "COLON"):
        return scene.say(f"`spans` lists its labels without {scene.quoted}", "write `spans key(cap=25%), error`")
    return scene.say(f"a label is missing after `spans`: found {scene.quoted}", "a label is a name, such as `key`")


def no_label(scene: Scene) -> Advice:
    """The first word of a statement of another kind, used as a label."""
    word = scene.taken[0].text
    return scene.say(
        f"`{word}` starts a statement, so it is no label before {scene.quoted}", "call the label something else"
    )


# What starts a line of Python, and what is written here for it.
_PYTHON = {
    **dict.fromkeys(("import", "from"), 'another spec is built upon with `extends "other.trace"`'),
    **dict.fromkeys(("def", "lambda"), "an expression is named by `let NAME = ...`"),
    **dict.fromkeys(
        ("for", "while", "with", "try", "class", "return", "print", "assert", "raise"), "take the line out"
    ),
}


def after_label(scene: Scene) -> Advice:
    """Behind the labels of a route, where `|`, `when` or `:` belongs."""
    name = scene.header
    single = len(scene.taken) == 1
    if (
        single
        and name in _PYTHON
        and (scene.is_word or scene.kind in ("LPAR", "STRING", "NUMBER") or scene.found == ".")
    ):
        return scene.say_from_previous(f"`{name}` starts no statement: a spec is data and runs no code", _PYTHON[name])
    meant = statement_meant(scene)
    if meant is not None:
        return meant
    if scene.at_end:
        return scene.say(f"the route `{name}` has no losses", "add `: LOSS`, or `: none`")
    if scene.is_dash:
        return scene.dash()
    if scene.kind in _JOINING and (scene.next.text in SIGNALS or scene.next.text in FUNCTIONS):
        return scene.say(
            f"`{scene.next.text}` is no label: labels are joined by `|`, and predicates stand behind `when`",
            f"write `{name} when {_predicate(scene)}`",
        )
    if scene.kind in _JOINING and scene.next.kind == "NOT":
        return scene.say(
            "labels are joined by `|`, and predicates stand behind `when`", f"write `{name} when {_predicate(scene)}`"
        )
    if scene.kind in _JOINING:
        return scene.say(f"labels of one route are joined by `|`, not by {scene.quoted}", "write `|`")
    if scene.is_word:
        return _word(scene)
    match scene.kind:
        case "EQUAL":
            return scene.say(
                f"`{name} =` is no statement: a route has a `:`, a named expression starts with `let`",
                f"write `{name}: {scene.next.text}...`"
                if scene.next.text in LOSSES or not single
                else f"write `let {name} = ...`, or `{name}: LOSS` for a route",
            )
        case "LPAR" if single and name in LOSSES:
            return scene.say(
                f"`{name}(` calls a loss, and a route begins with its labels", f"write `rest: {name}(...)`"
            )
        case "LPAR":
            return scene.say(
                f"`{scene.previous.text}` is a label here and takes no arguments in `(`", f"write `{name}: LOSS`"
            )
        case "COMPARE":
            return scene.say(
                f"{scene.quoted} behind a label: what a route compares stands behind `when`",
                f"write `LABEL when {scene.previous.text} {scene.found} ...: LOSS`",
            )
        case _:
            return scene.say(
                f"{scene.quoted} cannot stand behind the label `{scene.previous.text}`",
                f"write `{name}: LOSS` or `{name} when PREDICATE: LOSS`",
            )


_LONGEST_SHOWN = 60


def _predicate(scene: Scene) -> str:
    """What stands from the next word to the `:` that ends the labels, where it is short."""
    depth, end = 0, len(scene.obstacle.text)
    for token in scene.ahead:
        depth += (token.kind == "LPAR") - (token.kind == "RPAR")
        if token.kind == "COLON" and depth <= 0:
            end = token.start
            break
    written = " ".join(scene.obstacle.text[scene.next.start : end].split())
    return written if len(written) <= _LONGEST_SHOWN else f"{scene.next.text} ..."


def _word(scene: Scene) -> Advice:
    """A word behind a label: of the predicate without its `when`, or a loss without its colon."""
    name, found = scene.header, scene.found
    if name in ("when", "if") and len(scene.taken) == 1:
        return scene.say(
            f"a route begins with its labels, not with `{name} {found}`", f"write `rest when {found} ...: LOSS`"
        )
    if found in _INSTEAD_OF_WHEN and scene.next.kind not in ("LPAR", "EQUAL"):
        return scene.say(f"`{found}` is written `when` here", "write `when`")
    if scene.colon_ahead:
        label = scene.kind == "NAME" and scene.next.kind == "COLON" and found not in SIGNALS
        fix = (
            f"write `| {found}` for another label, `when {found}` for a predicate" if label else f"write `when {found}`"
        )
        return scene.say(f"`{found}` stands where `when` or `:` is expected", fix)
    if scene.kind in KEYWORDS:
        return scene.say(
            f"`{found}` cannot stand behind the label `{scene.previous.text}`",
            f"write `{name}: LOSS` or `{name} when PREDICATE: LOSS`",
        )
    return scene.say(f"missing `:` before `{found}`", f"write `: {found}`")


# -------------------------------------------------------------------------------------------------------------- losses


def _outside(scene: Scene, fix: str) -> Advice:
    return scene.say(
        f"a loss is not multiplied from outside: found {scene.quoted}, but its weight is its argument `w`", fix
    )


def loss(scene: Scene) -> Advice:
    """A loss is missing."""
    last = scene.previous
    if scene.kind == "NUMBER" and scene.next.kind in ("TIMES", "NAME", "LPAR", "PERCENT"):
        name = next((word.text for word in scene.ahead if word.kind == "NAME"), "fkl")
        return _outside(scene, f"put the weight inside: {name}(w={scene.found})")
    if scene.kind == "MINUS":
        return _no_minus(scene)
    if scene.kind == "LPAR":
        return scene.say("`(`: losses are not grouped by brackets", "write LOSS + LOSS")
    return scene.say(
        f"a loss is missing after `{last.text}`: found {scene.quoted}", "write a loss such as grpo(), or none"
    )


# A loss behind a minus, and its weight: up to the next `,` or `)` outside brackets of its own.
_MINUS = re.compile(r"-\s*(?P<name>\w+)\s*\((?P<given>(?:[^()]|\((?:[^()]|\([^()]*\))*\))*)\)")
_WEIGHT = re.compile(r"(?:^|,)\s*w\s*=\s*(?P<weight>(?:[^(),]|\((?:[^()]|\([^()]*\))*\))+)")
_PLAIN = re.compile(r"[\d.]+(?:[eE][+-]?\d+)?%?|\w+")


def _no_minus(scene: Scene) -> Advice:
    """`- nll(w=0.1)`: of an entropy bonus and a divergence the sign is the other one here."""
    message = f"losses are added with `+`; there is no minus ({scene.quoted}) between them"
    called = _MINUS.match(scene.obstacle.text, scene.obstacle.at)
    name = scene.next.text if called is None else called["name"]
    written = f"{name}(...)" if called is None else called[0].removeprefix("-").strip()
    sign = "" if scene.previous.kind in ("COLON", "PLUS") else "+ "
    if name == "entropy":
        return scene.say(message, f"write `{sign}{written}`: a positive weight rewards entropy")
    if name in DIVERGENCES or name == "k3":
        return scene.say(message, f"write `{sign}{written}`: a positive weight keeps the policy near the other one")
    given = None if called is None else _WEIGHT.search(called["given"])
    weight = "1.0" if given is None else given["weight"].strip()
    negative = weight if _PLAIN.fullmatch(weight) else f"({weight})"
    return scene.say(message, f"give the loss a negative weight, w=-{negative}, if that is meant")


def after_loss(scene: Scene) -> Advice:
    """Behind a loss, where `+` or the end of the line belongs."""
    last = scene.previous
    called = last.kind == "RPAR"
    match scene.kind:
        case "MINUS" if scene.is_dash:
            return scene.dash()
        case "MINUS":
            return _no_minus(scene)
        case "TIMES" | "OVER":
            return _factor(scene)
        case "COMMA":
            return scene.say("the losses of a route are added, not listed with `,`", "write `+` between them")
        case "AND" | "VBAR" | "OR":
            return scene.say(f"losses are joined by `+`, not by {scene.quoted}", "write `+`")
        case "WHEN":
            return scene.say("`when` and its predicate stand before the `:`", "write `LABEL when PREDICATE: LOSS`")
        case "COLON":
            return scene.say(
                f"this route has its `:` already: found {scene.quoted}", "start a new line for another route"
            )
        case "LPAR":
            return scene.say(
                "`(` opens a second pair of brackets behind a loss", "put all of them in one pair of brackets"
            )
        case "EQUAL" | "COMPARE" | "STRING" | "PERCENT" if not called:
            return scene.say(
                f"{scene.quoted}: the arguments of a loss stand in brackets", f"write {last.text}(NAME=VALUE)"
            )
        case "NUMBER" if not called:
            return scene.say(
                f"{scene.quoted}: the arguments of a loss stand in brackets", f"write {last.text}(w={scene.found})"
            )
        case _:
            pass
    if scene.found == "if" or (last.text == "when" and not called):
        return scene.say(f"{scene.quoted}: a predicate stands before the `:`", "write `LABEL when PREDICATE: LOSS`")
    if scene.is_word:
        return scene.say(f"missing `+` before `{scene.found}`", "the losses of a route are joined by `+`")
    return scene.say(
        f"{scene.quoted} cannot stand behind a loss: here comes `+`, or the line ends", f"take {scene.quoted} out"
    )


def _factor(scene: Scene) -> Advice:
    """`kl*fkl()`, `fkl()*0.5`, `fkl()/2`."""
    last, following = scene.previous, scene.next
    if last.kind == "NAME" and following.kind == "NAME" and last.text not in LOSSES:
        return _outside(scene, f"put the weight inside: {following.text}(w={last.text})")
    value = following.text if following.kind in ("NAME", "NUMBER") else "..."
    weight = value if scene.kind == "TIMES" else f"1/{value}"
    if last.kind == "NAME":
        return _outside(scene, f"put the weight inside: {last.text}(w={weight})")
    return _outside(scene, f"put the weight inside the brackets: w={weight}")
