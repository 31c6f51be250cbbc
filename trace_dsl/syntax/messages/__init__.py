"""Messages for text that does not parse: what was found, what belongs there, and what to write instead.

The parser says where it stopped, on what, behind which words, and which terminals it would have taken. From that the
place in the statement follows (`Slot`), and every slot has its messages; signs of other languages and brackets, which
are met everywhere, come first.
"""

from __future__ import annotations

from typing import assert_never

from trace_dsl.syntax.machine import Obstacle
from trace_dsl.syntax.messages import declarations, routes, values
from trace_dsl.syntax.messages.brackets import brackets
from trace_dsl.syntax.messages.foreign import foreign
from trace_dsl.syntax.messages.scene import Advice, Scene, Slot


def explain(obstacle: Obstacle) -> Advice:
    """The message for a place where parsing stopped."""
    scene = Scene(obstacle=obstacle)
    return foreign(scene) or brackets(scene) or _misplaced(scene)


def _misplaced(scene: Scene) -> Advice:
    """What was found is a word of the language in a wrong place, or nothing."""
    match scene.slot:
        case Slot.STATEMENT:
            return declarations.statement(scene)
        case Slot.LABEL:
            return routes.label(scene)
        case Slot.AFTER_SPAN:
            return declarations.after_span(scene)
        case Slot.AFTER_LABEL:
            return routes.after_label(scene)
        case Slot.NAME:
            return declarations.name(scene)
        case Slot.EQUALS:
            return declarations.equals(scene)
        case Slot.SOURCE:
            return declarations.source(scene)
        case Slot.AFTER_SOURCE:
            return declarations.after_source(scene)
        case Slot.PATH:
            return declarations.path(scene)
        case Slot.AFTER_PATH:
            return declarations.after_path(scene)
        case Slot.LOSS:
            return routes.loss(scene)
        case Slot.AFTER_LOSS:
            return routes.after_loss(scene)
        case Slot.VALUE:
            return values.value(scene)
        case Slot.AFTER_VALUE:
            return values.after_value(scene)
        case _:
            assert_never(scene.slot)


__all__ = ["Advice", "explain"]
