"""Signs of other languages, where this one has a sign of its own for what is meant."""

from __future__ import annotations

import re
import unicodedata

from trace_dsl.syntax.messages.scene import Advice, Scene, Slot, shown
from trace_dsl.vocabulary import ARGUMENT_WORDS, closest

_SIGNS = {"−": "-", "–": "-", "—": "-", "×": "*", "·": "*", "÷": "/", "≤": "<=", "≥": ">=", "≠": "!=", "∧": "and"}
_SIGNS |= {"∨": "or", "¬": "not", "“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "‘": '"', "’": '"', "→": ":"}
_PLAIN_CALL = re.compile(r"[a-z]+\([\d.e]+(?:%| steps| tokens)?\)")
_PATH = re.compile(r"[./\\:~@-]")
_CLOSING = {"]": "[", "}": "{"}


def foreign(scene: Scene) -> Advice | None:
    """Advice where what was found is written in another way here; None where it is in the wrong place."""
    if scene.at_end:
        return None
    return _path(scene) or _comment(scene) or _two_signs(scene) or _string(scene) or _sign(scene) or _letter(scene)


def _path(scene: Scene) -> Advice | None:
    """A path without quotes, as in `model(Qwen/Qwen2.5-7B)`."""
    if scene.first not in ("TEACHER", "ROLLOUTS") or len(scene.open) != 1:
        return None
    if scene.open[-1].function not in ("model", "cached"):
        return None
    start = scene.open[-1].at + 1
    written = re.match(r"\s*(?:(?:path|file)\s*=\s*)?(?P<path>[^\s\"'`,()=]+)", scene.obstacle.text[start:])
    if written is None or start + written.end() <= scene.obstacle.at or not _PATH.search(written["path"]):
        return None
    return Advice(
        message=f"`{written['path']}`: a path stands in double quotes",
        fix=f'write "{written["path"]}"',
        at=start + written.start("path"),
        length=len(written["path"]),
    )


def _comment(scene: Scene) -> Advice | None:
    """A comment of another language, where a statement begins or has ended; and the marks of a template."""
    if scene.begins("//") and scene.slot in (
        Slot.STATEMENT,
        Slot.AFTER_LOSS,
        Slot.AFTER_SOURCE,
        Slot.AFTER_SPAN,
        Slot.AFTER_PATH,
    ):
        return scene.say("a comment starts with `#`, not with `//`", "write `#`", length=2)
    if scene.begins("{{") or scene.begins("{%"):
        return scene.say("a spec has no templates: what is different from run to run is written out", "write the value")
    return None


def _two_signs(scene: Scene) -> Advice | None:
    """Signs of two characters, of which the first may have been read already."""
    before = scene.previous.text if scene.touches else ""
    pair = before + scene.found[:1]
    match pair:
        case "**":
            return scene.say_from_previous("there is no power operator `**`", "multiply, or use exp(n * log(x))")
        case "//":
            return scene.say_from_previous(
                "`//` is no operator: `/` divides, and a comment starts with `#`", "write `/`, or `#` before a comment"
            )
        case "||":
            return scene.say_from_previous("`||`: labels are joined by one `|`", "write `|`")
        case "<<" | ">>" | "<>":
            meant = "!=" if pair == "<>" else pair[0]
            return scene.say_from_previous(f"`{pair}` is no operator", f"write `{meant}`")
        case "=<" if scene.found == "<":
            return scene.say_from_previous("`=<` is written `<=`", "write `<=`")
        case "=>" if scene.found == ">":
            return scene.say_from_previous("`=>` is not part of the language", "write `=`, or `>=` to compare")
        case "===" | "==" if scene.slot is Slot.VALUE:
            sign = before + scene.found
            return scene.say_from_previous(f"`{sign}` is no operator: values are compared with `==`", "write `==`")
        case "!==":
            return scene.say_from_previous("`!==` is written `!=`", "write `!=`")
        case ":=":
            return scene.say_from_previous("`:=` is not part of the language", _assignment(scene))
        case "+=" | "-=" | "*=" | "/=":
            return scene.say_from_previous(f"`{pair}` is no operator: nothing is changed in place", f"write `{before}`")
        case "->":
            return scene.say_from_previous("`->` is not part of the language", _arrow(scene))
        case _:
            return None


def _assignment(scene: Scene) -> str:
    return "write `=` for an argument" if scene.open else "write `:` before losses, and `let NAME = ...` for a value"


def _arrow(scene: Scene) -> str:
    in_header = scene.first == "NAME" and not scene.open and not any(token.kind == "COLON" for token in scene.taken)
    return "write `:` before the losses" if in_header else "take it out"


def _string(scene: Scene) -> Advice | None:
    """Quotes: of another kind, never closed, or around what is a name."""
    takes_name = scene.accepts("NAME") and not scene.accepts("STRING")
    if scene.found == '"':
        return scene.say('the string behind `"` is never closed on its line', 'close it with `"`')
    if scene.kind == "STRING" and takes_name and scene.slot is not Slot.SOURCE:
        name = scene.found[1:-1]
        fix = f"write `{name}`" if name.isidentifier() else "write a name without quotes"
        return scene.say(f"{scene.quoted}: names stand without quotes", fix)
    if scene.kind == "NUMBER" and takes_name and scene.written != scene.found and scene.slot is not Slot.LOSS:
        return scene.say(f"{scene.quoted} is no name: names begin with a letter or `_`", "begin it with a letter")
    if scene.found not in ("'", "`"):
        return None
    inside = scene.written[1:-1]
    words = ARGUMENT_WORDS.get(scene.taken[-2].text, ()) if scene.previous.kind == "EQUAL" and scene.open else ()
    if words and scene.accepts("NAME"):
        meant = inside if _PLAIN_CALL.fullmatch(inside) else closest(inside, words)
        fix = f"write one of these words: {', '.join(words)}" if meant is None else f"write `{meant}`"
        return scene.say(f"{scene.quoted}: names stand without quotes", fix)
    if scene.accepts("STRING"):
        return scene.say(
            f"{scene.quoted}: strings stand in double quotes", f'write "{inside}"' if inside else 'write "..."'
        )
    if takes_name:
        fix = f"write `{inside}`" if inside.isidentifier() and inside.isascii() else "write the name without quotes"
        return scene.say(f"{scene.quoted}: names stand without quotes", fix)
    return None


def _sign(scene: Scene) -> Advice | None:
    match scene.found:
        case "&" if scene.accepts("AND"):
            sign = "&&" if scene.begins("&&") else "&"
            return scene.say(f"`{sign}` is written `and` here", "write `and`", length=len(sign))
        case "|" if scene.accepts("OR") and scene.begins("||"):
            return scene.say("`||` is written `or` here", "write `or`", length=2)
        case "|" if scene.accepts("OR"):
            return scene.say("`|` joins labels; predicates are joined by `or`", "write `or`")
        case "!" | "~" if scene.accepts("NOT"):
            return scene.say(f"`{scene.found}` is written `not` here", "write `not`")
        case "^" if scene.accepts("TIMES"):
            return scene.say("there is no power operator `^`", "multiply, or use exp(n * log(x))")
        case "?" if scene.slot is Slot.AFTER_VALUE:
            return scene.say("there is no `?`: a choice is where(p, a, b)", "write where(p, a, b)")
        case "[" | "{" if scene.previous.kind == "EQUAL" and scene.taken[-2].text in ARGUMENT_WORDS:
            return _list_of_words(scene)
        case "[" | "{" if scene.accepts("LPAR"):
            return scene.say(
                f"`{scene.found}` is not part of the language: groups, calls and pairs use round brackets",
                "write `(` and `)`; values have no elements to pick"
                if scene.slot is Slot.AFTER_VALUE
                else "write `(` and `)`",
            )
        case "[" | "{" if scene.slot is Slot.AFTER_VALUE:
            return scene.say(
                f"`{scene.found}`: values have no elements to pick", f"take the `{scene.found}` and what is in it out"
            )
        case "]" | "}" if scene.open:
            return scene.say(f"brackets are round: `{scene.found}` closes nothing", "write `)`")
        case "]" | "}":
            return scene.say(f"`{scene.found}` is not part of the language, and nothing is open here", "take it out")
        case "{" if scene.slot is Slot.AFTER_LABEL:
            return scene.say("`{`: a route has no block, its losses stand behind `:`", "write `: LOSS`")
        case ";" if scene.accepts("$END"):
            return scene.say("one statement a line: `;` separates nothing", "start a new line")
        case ";" if scene.accepts("COMMA"):
            return scene.say("arguments are separated by commas, not by `;`", "write `,`")
        case "." if scene.touches and scene.previous.kind == "NAME" and scene.next.kind == "NAME":
            name = f"{scene.previous.text}.{scene.next.text}"
            return scene.say(
                f"`{name}`: names have no dots, and there are no modules and no attributes",
                f"write `{scene.next.text}`, or join the two by `_`",
            )
        case "\\":
            return scene.say("a statement goes on over line ends inside brackets; `\\` joins no lines", "take it out")
        case _:
            return _arrows(scene)


def _list_of_words(scene: Scene) -> Advice:
    """`sees=[feedback, solution]`."""
    argument = scene.taken[-2].text
    inside = scene.obstacle.text[scene.obstacle.at :].partition("]")[0]
    words = [word for word in re.findall(r"[a-z_]+", inside) if word in ARGUMENT_WORDS[argument]]
    one = " or ".join(f"{argument}={word}" for word in words) or f"{argument}={ARGUMENT_WORDS[argument][0]}"
    return scene.say(f"`{scene.found}`: `{argument}` is one word, and there are no lists", f"write one word: {one}")


def _arrows(scene: Scene) -> Advice | None:
    for sign in ("=>", "->"):
        if scene.begins(sign) and scene.slot in (Slot.AFTER_LABEL, Slot.AFTER_VALUE, Slot.AFTER_LOSS, Slot.AFTER_SPAN):
            return scene.say(f"`{sign}` is not part of the language", _arrow(scene), length=2)
    if scene.begins(":=") and scene.slot is Slot.EQUALS:
        return scene.say("`:=` is written `=` here", "write `=`", length=2)
    return None


def _letter(scene: Scene) -> Advice | None:
    """Characters outside ASCII, and those that cannot be seen."""
    character = scene.found[:1]
    if scene.kind or (character.isascii() and character.isprintable()):
        return None
    quoted = f"`{character}` (U+{ord(character):04X})" if character.isprintable() else shown(character)
    meant = _SIGNS.get(character) or unicodedata.normalize("NFKC", character)
    if meant != character and meant.isascii() and meant.strip():
        return scene.say(f"{quoted} is written `{meant}` here", f"write `{meant}`")
    if not character.isprintable() or character.isspace():
        kind = "space" if unicodedata.category(character) == "Zs" else "character"
        return scene.say(
            f"the invisible {kind} {shown(character)} stands here",
            "take it out; words are separated by spaces and tabs",
        )
    if character.isalpha():
        return scene.say(f"{quoted} is no letter of a name", "names have the letters a-z and A-Z, digits and `_`")
    return scene.say(f"{quoted} is not part of the language", "take it out")
