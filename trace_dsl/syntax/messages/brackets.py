"""Brackets that are never closed or never opened, and what cannot stand in them."""

from __future__ import annotations

from trace_dsl.syntax.messages.scene import Advice, Scene, Slot


def brackets(scene: Scene) -> Advice | None:
    """Advice about a bracket, where one is what is wrong."""
    if scene.at_end and scene.open:
        return _unclosed(scene)
    if scene.kind == "RPAR" and not scene.open:
        return scene.say("`)` closes no bracket", "take it out")
    if scene.kind == "COLON" and scene.open:
        return _colon(scene)
    return None


def _unclosed(scene: Scene) -> Advice:
    last = scene.previous
    complete = scene.slot is Slot.AFTER_VALUE or scene.accepts("RPAR")
    fix = "close it with `)`" if complete else f"give a value after `{last.text}`, and close the bracket with `)`"
    return Advice(message="this bracket is never closed", fix=fix, at=scene.open[-1].at)


def _colon(scene: Scene) -> Advice:
    before = scene.taken[-2].kind if len(scene.taken) > 1 else ""
    if scene.in_call and scene.previous.kind == "NAME" and before in ("LPAR", "COMMA"):
        # The colon of `:=` goes with the sign; the value is what stands behind it.
        value = next((word.text for word in scene.ahead if word.kind != "EQUAL"), "...")
        return scene.say("arguments are written with `=`, not `:`", f"write `{scene.previous.text}={value}`")
    return Advice(
        message="`:` stands inside a bracket that is not closed",
        fix="close the bracket before `:`",
        at=scene.obstacle.at,
        opened_at=scene.open[-1].at,
    )
