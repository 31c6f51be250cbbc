"""What a spec says without writing it: how a weight goes over the run, which teacher is read when none is named."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from lsprotocol import types

from trace_dsl.lsp.course import course
from trace_dsl.lsp.document import Document
from trace_dsl.lsp.names import Role
from trace_dsl.lsp.positions import overlap
from trace_dsl.model import Channel, Divergence, Place
from trace_dsl.plan.wording import teacher_text
from trace_dsl.syntax.tree import Call, RouteStatement


def hints(document: Document, where: types.Range) -> list[types.InlayHint]:
    """The hints inside a range, in the order of the text."""
    channels = {
        (channel.place.line, channel.place.column): channel
        for route in document.spec.routes
        for channel in route.channels
        if not channel.place.path
    }
    return [
        hint
        for call in _losses(document)
        if (call.place.line, call.place.column) in channels
        for hint in _about(document, call, channels[call.place.line, call.place.column])
        if overlap(types.Range(start=hint.position, end=hint.position), where)
    ]


def _losses(document: Document) -> Iterator[Call]:
    for statement in document.parsed.statements:
        if isinstance(statement, RouteStatement):
            yield from (loss.value for loss in statement.losses if isinstance(loss.value, Call))


def _about(document: Document, call: Call, channel: Channel) -> Iterator[types.InlayHint]:
    given = {argument.name.name: argument for argument in call.arguments if argument.name is not None}
    kernel = channel.kernel
    if isinstance(kernel, Divergence):
        if "teacher" not in given:
            yield from _teacher(document, call, kernel.teacher)
        if kernel.top_k is not None and "of" not in given:
            yield _hint(document, _end(given["topk"].place), f", of={kernel.top_k.of.value}")
    words = course(channel.weight, document.total_steps)
    if words is not None:
        yield _hint(document, _end(call.place), words, apart=True)


def _teacher(document: Document, call: Call, name: str) -> Iterator[types.InlayHint]:
    """The teacher of a loss that names none, where more than one could be meant, or none is declared."""
    declared = {one.name for one in (*document.names, *document.base_names) if one.gives and one.role is Role.TEACHER}
    teacher = document.spec.teacher(name)
    if len(declared) == 1 or teacher is None:
        return
    text = f"teacher={name}" if declared else f"teacher: {teacher_text(teacher)}"
    if call.arguments:
        yield _hint(document, call.arguments[0].place, f"{text}, ")
    else:
        end = _end(call.place)
        yield _hint(document, replace(end, column=end.column - 1), text)


def _end(place: Place) -> Place:
    return Place(line=place.end_line, column=place.end_column, end_line=place.end_line, end_column=place.end_column)


def _hint(document: Document, at: Place, label: str, *, apart: bool = False) -> types.InlayHint:
    return types.InlayHint(position=document.lines.range(at).start, label=label, padding_left=apart or None)
