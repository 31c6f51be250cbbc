"""What the word below the pointer means."""

from __future__ import annotations

from pathlib import Path

from lsprotocol import types

from trace_dsl.checks import RULES
from trace_dsl.explain import Kind
from trace_dsl.expressions import text_of
from trace_dsl.lsp.course import course, values_at
from trace_dsl.lsp.document import Document
from trace_dsl.lsp.names import Named, Role
from trace_dsl.lsp.pages import argument_page, code, pages
from trace_dsl.model import Place
from trace_dsl.plan.compile import formula_of
from trace_dsl.plan.describe import describe_teacher
from trace_dsl.plan.wording import cap_text, rollouts_text, route_name, teacher_text
from trace_dsl.terms import Expr
from trace_dsl.vocabulary import RANK_WORDS


def hover(document: Document, position: types.Position) -> types.Hover | None:
    """A page about the word at a position; None where there is nothing to say."""
    line, column = document.lines.column(position)
    suppressed = _rule_at(document, line, column)
    if suppressed is not None:
        rule, place = suppressed
        return _shown(document, pages(rule, Kind.RULE), place)
    named = document.name_at(line, column)
    return None if named is None else _shown(document, _page(document, named), named.place)


def _shown(document: Document, text: str, place: Place) -> types.Hover | None:
    if not text:
        return None
    content = types.MarkupContent(kind=types.MarkupKind.Markdown, value=text)
    return types.Hover(contents=content, range=document.lines.range(place))


def _rule_at(document: Document, line: int, column: int) -> tuple[str, Place] | None:
    """The rule that an ignore comment names at a place."""
    for suppression in document.parsed.suppressions:
        for rule, place in zip(suppression.rules, suppression.rule_places, strict=True):
            if place.line == line and place.column <= column <= place.end_column and rule in RULES:
                return rule, place
    return None


def _page(document: Document, named: Named) -> str:
    match named.role:
        case Role.LET:
            return _let(document, named.name)
        case Role.TEACHER:
            return _teacher(document, named.name)
        case Role.ROLLOUTS:
            return _rollouts(document, named.name)
        case Role.LABEL:
            return _label(document, named.name)
        case Role.LOSS:
            return "\n\n".join(part for part in (_this_loss(document, named), pages(named.name, Kind.LOSS)) if part)
        case Role.STATEMENT:
            return pages(named.name, Kind.STATEMENT)
        case Role.ARGUMENT:
            return _argument(named, named.name)
        case Role.WORD:
            return _word(named)
        case Role.SOURCE:
            return pages(named.slot.statement, Kind.STATEMENT)
        case Role.VALUE:
            return pages(named.name, Kind.SIGNAL, Kind.FUNCTION)
        case Role.UNKNOWN:
            return ""


def _argument(named: Named, name: str) -> str:
    return argument_page(name, named.slot.owner) or pages(named.slot.call, Kind.FUNCTION)


def _word(named: Named) -> str:
    """The page that lists a word with the others that may stand in its place."""
    if named.slot.call == "has":
        return pages("has", Kind.FUNCTION)
    return _argument(named, named.slot.argument) if named.slot.argument else pages("source", Kind.SIGNAL)


# ---------------------------------------------------------------------------------------------------- names of the spec


def _let(document: Document, name: str) -> str:
    value = document.let_value(name)
    parts = [f"**{name}** — let", code(document.written(name))]
    if value is not None:
        parts += [f"`{text_of(value)}`: {RANK_WORDS[value.rank]}", *_over_run(document, value)]
    return "\n\n".join(parts)


def _over_run(document: Document, weight: Expr) -> list[str]:
    """How a value goes over the run: in words, and a few of its values."""
    total = document.total_steps
    words, values = course(weight, total), values_at(weight, total)
    found = [words] if words is not None else []
    if values:
        rows = ([name for name, _ in values], ["---"] * len(values), [f"{value:.4g}" for _, value in values])
        found.append("\n".join(f"| {' | '.join(row)} |" for row in rows))
    return found


def _teacher(document: Document, name: str) -> str:
    teacher = document.spec.teacher(name)
    if teacher is None:
        return ""
    head = "teacher" if name == "teacher" else f"teacher {name}"
    declared = any(one.role is Role.TEACHER and one.gives for one in (*document.names, *document.base_names))
    notes = [] if declared else ["No statement declares it: this is what a spec without a teacher has."]
    return "\n\n".join(
        [f"**{name}** — teacher", code([f"{head} = {teacher_text(teacher)}"]), describe_teacher(teacher), *notes]
    )


def _rollouts(document: Document, name: str) -> str:
    found = [source for source in document.spec.rollouts if source.name == name]
    return "".join(f"**{name}** — rollouts\n\n{code([f'rollouts {name} = {rollouts_text(one)}'])}" for one in found)


def _label(document: Document, name: str) -> str:
    label = next((label for label in document.spec.labels if label.name == name), None)
    if label is None:
        return ""
    routes = [
        f"- {Path(route.place.path or document.path).name}:{route.place.line}: `{route_name(route)}`"
        for route in document.spec.routes
        if name in route.labels
    ]
    taken = "\n".join(["Taken, first match first, by", *routes]) if routes else "No route takes it by name."
    return f"**{name}** — span label, {cap_text(label)}\n\n{taken}"


def _this_loss(document: Document, named: Named) -> str:
    """The loss at a place with its own numbers; empty when it has errors."""
    for route in document.spec.routes:
        for channel in route.channels:
            place = channel.place
            if (place.path, place.line, place.column) == ("", named.place.line, named.place.column):
                weight = "\n\n".join([f"weight `{text_of(channel.weight)}`", *_over_run(document, channel.weight)])
                return f"{code([formula_of(channel.kernel)])}\n\n{weight}"
    return ""
