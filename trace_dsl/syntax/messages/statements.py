"""First words that are misspelt, left out, or those of another language: which statement is meant."""

from __future__ import annotations

from trace_dsl.syntax.messages.scene import Advice, Scene
from trace_dsl.vocabulary import LOSSES, closest

# What a declaration is given tells which one it is.
_GIVEN = {"self": "teacher", "model": "teacher", "policy": "rollouts", "cached": "rollouts"}
_ESTIMATORS = ("group", "loo")
_INSTEAD = {
    **dict.fromkeys(("label", "labels", "tags"), "spans"),
    **dict.fromkeys(("include", "inherit", "inherits", "use", "base", "load", "require"), "extends"),
}
_LONGEST_SHOWN = 60


def statement_meant(scene: Scene) -> Advice | None:
    """Of a line that is read as a route for want of a keyword: the statement that its shape is of; None where it may
    be a route.
    """
    word = scene.taken[0].text
    if len(scene.taken) != 1:
        return None
    if scene.kind == "EQUAL":
        return _of_value(scene, word)
    if scene.is_word and scene.next.kind == "EQUAL" and scene.found not in LOSSES:
        value = scene.ahead[1].text if len(scene.ahead) > 1 else ""
        return _written(scene, _GIVEN.get(value, "let"))
    if scene.kind == "STRING" and _means(word, "extends"):
        return _written(scene, "extends")
    if scene.is_word and scene.next.kind in ("LPAR", "COMMA", "") and not scene.colon_ahead and _means(word, "spans"):
        return _written(scene, "spans")
    return None


def _of_value(scene: Scene, word: str) -> Advice | None:
    """`Teacher = self(...)`, `big = model(...)`, `adv = group(...)`."""
    value = scene.next.text
    if value in _ESTIMATORS or (value == "none" and _means(word, "advantage")):
        return _written(scene, "advantage")
    keyword = _GIVEN.get(value)
    if keyword is None:
        return None
    return _written(scene, keyword, keeps_word=not (word.isalpha() and _means(word, keyword)))


def _means(word: str, keyword: str) -> bool:
    return _INSTEAD.get(word.lower()) == keyword or closest(word, (keyword,)) == keyword


def _written(scene: Scene, keyword: str, *, keeps_word: bool = False) -> Advice:
    """Advice to start the line with `keyword`, in place of its first word or before it."""
    first = scene.taken[0]
    rest = " ".join(scene.obstacle.text[first.start if keeps_word else first.end :].split())
    return Advice(
        message=f"`{first.text}` starts no statement: `{keyword}` does",
        fix=f"write `{keyword} {rest if len(rest) <= _LONGEST_SHOWN else '...'}`",
        at=first.start,
        length=len(first.text),
    )
