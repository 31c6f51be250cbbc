"""What may be written at the cursor. The line that is asked about rarely parses, so its words are read one by one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from lsprotocol import types

from trace_dsl.checks import RULES
from trace_dsl.explain import Kind
from trace_dsl.lsp.document import Document
from trace_dsl.lsp.files import path_written, paths_after
from trace_dsl.lsp.names import Role
from trace_dsl.lsp.pages import argument_meaning, argument_page, pages, summary_of
from trace_dsl.lsp.slots import MAKERS, ROUTE, Slot, SlotKind, ValueOf, arguments_of, slot_after
from trace_dsl.model import DEFAULT_TEACHER, PLAIN_ROWS, REST
from trace_dsl.rules import LANGUAGE_RULES
from trace_dsl.syntax.lines import split_lines
from trace_dsl.vocabulary import (
    ARGUMENT_WORDS,
    FUNCTIONS,
    HAS,
    LOSSES,
    NO_LOSS,
    ROWS,
    SIGNALS,
    SOURCES,
    STATEMENTS,
)

TRIGGERS = (" ", "(", ",", "=", ":", "+", "|", "[", '"', "/")
_PREFIX = re.compile(r"[A-Za-z_]\w*\Z")
_RULE_PREFIX = re.compile(r"#\s*trace\s*:\s*ignore\s*\[(?:[^\]]*,)?\s*(?P<prefix>[\w-]*)\Z")
_K = types.CompletionItemKind


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """One word to write, with a line and a page about it."""

    text: str
    kind: types.CompletionItemKind
    meaning: str = ""
    page: str = ""


def completion(document: Document, position: types.Position) -> list[types.CompletionItem]:
    """The words that may stand at a position, best first; nothing in other strings than the path of an
    `extends`, and in ordinary comments.
    """
    before = document.lines.before(position)
    prefix, offers = _offers(document, before)
    line, column = document.lines.column(position)
    start = document.lines.position(line, column - len(prefix))
    where = types.Range(start=start, end=document.lines.position(line, column))
    return [_item(offer, where, index) for index, offer in enumerate(_once(offers))]


def _item(offer: Offer, where: types.Range, index: int) -> types.CompletionItem:
    page = types.MarkupContent(kind=types.MarkupKind.Markdown, value=offer.page) if offer.page else None
    return types.CompletionItem(
        label=offer.text,
        kind=offer.kind,
        detail=offer.meaning or None,
        documentation=page,
        sort_text=f"{index:04d}",
        text_edit=types.TextEdit(range=where, new_text=offer.text),
    )


def _once(offers: Iterable[Offer]) -> Iterable[Offer]:
    """The first offer of each text."""
    found: dict[str, Offer] = {}
    for offer in offers:
        found.setdefault(offer.text, offer)
    return found.values()


def _offers(document: Document, before: str) -> tuple[str, Iterable[Offer]]:
    """(what is written of the word already, the words it may become)."""
    number = before.count("\n") + 1
    cut = split_lines(before)
    if cut.comments and cut.comments[-1].place.line == number:
        match = _RULE_PREFIX.search(before)
        return (match["prefix"], _rules()) if match else ("", ())
    path = path_written(before)
    if path is not None:
        return path, (Offer(text=found, kind=_K.File) for found in paths_after(document.path, path))
    written = _PREFIX.search(before)
    prefix = written.group() if written else ""
    slot = _slot(before[: len(before) - len(prefix)], number)
    return prefix, _for_slot(document, slot, number)


def _slot(before: str, number: int) -> Slot:
    """What may stand at the end of a text whose last line has this number."""
    statements = split_lines(before).statements
    if statements:
        last = statements[-1]
        on_line = last.first_line + last.text.count("\n") == number and before.rsplit("\n", 1)[-1].strip()
        if last.opened is not None or on_line:
            return slot_after(last.text)
    return slot_after("")


def _for_slot(document: Document, slot: Slot, line: int) -> Iterator[Offer]:
    match slot.kind:
        case SlotKind.STATEMENT:
            yield from _labels(document)
            yield _word(REST, Kind.STATEMENT, _K.Keyword)
            yield from (_word(name, Kind.STATEMENT, _K.Keyword) for name in STATEMENTS)
        case SlotKind.LABEL:
            yield from _labels(document)
        case SlotKind.NEW_LABEL:
            labels = [one for one in document.names if one.role is Role.LABEL]
            declared = {one.name for one in labels if one.gives}
            yield from (_label(one.name) for one in labels if one.name not in declared)
        case SlotKind.AFTER_LABEL:
            yield _word("when", Kind.STATEMENT, _K.Keyword)
        case SlotKind.SOURCE:
            yield from (Offer(text=name, kind=_K.Function) for name in MAKERS[slot.statement])
        case SlotKind.LOSS:
            yield from (_word(name, Kind.LOSS, _K.Function) for name in LOSSES)
            yield _word(NO_LOSS, Kind.STATEMENT, _K.Keyword)
        case SlotKind.ARGUMENT:
            yield from _arguments(slot)
            if slot.argument or not (slot.owner or slot.call in LOSSES or slot.call == "schedule"):
                yield from _values(document, slot, line)
        case SlotKind.VALUE | SlotKind.EXPRESSION:
            yield from _values(document, slot, line)
        case SlotKind.OPERATOR:
            yield from (Offer(text=word, kind=_K.Operator) for word in ("and", "or"))
        case SlotKind.NEW_NAME | SlotKind.NOTHING:
            return


def _arguments(slot: Slot) -> Iterator[Offer]:
    """The arguments of a call that are not given yet."""
    for name in arguments_of(slot):
        if name not in slot.given:
            text = name if name == "frozen" else f"{name}="
            meaning, page = argument_meaning(name, slot.owner), argument_page(name, slot.owner)
            yield Offer(text=text, kind=_K.Property, meaning=meaning, page=page)


def _values(document: Document, slot: Slot, line: int) -> Iterator[Offer]:
    match slot.value:
        case ValueOf.WORD:
            words = ("frozen",) if slot.argument == "frozen" else ARGUMENT_WORDS[slot.argument]
            yield from (Offer(text=word, kind=_K.EnumMember) for word in words if word != slot.call)
        case ValueOf.CONTEXT:
            yield from (Offer(text=word, kind=_K.EnumMember, meaning=info.summary) for word, info in HAS.items())
        case ValueOf.TEACHER:
            names = _given(document, Role.TEACHER) or (DEFAULT_TEACHER,)
            yield from (Offer(text=name, kind=_K.Variable, meaning="teacher") for name in names)
        case ValueOf.EXPRESSION:
            yield from _operands(document, slot, line)
        case ValueOf.TEXT:
            return


def _operands(document: Document, slot: Slot, line: int) -> Iterator[Offer]:
    """Names that are values: what is compared with `source` or `rows` first."""
    if slot.compared == "source":
        yield from (Offer(text=word, kind=_K.EnumMember) for word in SOURCES)
        return
    if slot.compared == ROWS:
        names = (PLAIN_ROWS, *_given(document, Role.ROLLOUTS))
        yield from (Offer(text=name, kind=_K.Variable, meaning="rollouts") for name in names)
        return
    for name in _given(document, Role.LET, above=line):
        yield Offer(text=name, kind=_K.Variable, meaning=" ".join(document.written(name)))
    yield from (_word(name, Kind.SIGNAL, _K.Field) for name in SIGNALS)
    yield from (_word(name, Kind.FUNCTION, _K.Function) for name in FUNCTIONS)
    if slot.statement == ROUTE and not slot.call:
        yield Offer(text=ROWS, kind=_K.Keyword, meaning="which rollouts the route reads: rows == NAME")
        yield Offer(text="not", kind=_K.Operator)


def _labels(document: Document) -> Iterator[Offer]:
    """Declared labels; without a `spans` statement, those that routes use."""
    yield from (_label(label.name) for label in document.spec.labels)


def _label(name: str) -> Offer:
    return Offer(text=name, kind=_K.EnumMember, meaning="span label")


def _given(document: Document, role: Role, *, above: int | None = None) -> tuple[str, ...]:
    """The names that the document and what it extends give; `above`: those before a line only."""
    own = (one for one in document.names if above is None or one.place.line < above)
    return tuple(dict.fromkeys(one.name for one in (*own, *document.base_names) if one.gives and one.role is role))


def _rules() -> Iterator[Offer]:
    """The rules that can be ignored."""
    language = {rule.name for rule in LANGUAGE_RULES}
    for name, info in RULES.items():
        if name not in language and name != "unused-suppression":
            yield Offer(text=name, kind=_K.EnumMember, meaning=info.summary, page=pages(name, Kind.RULE))


def _word(name: str, kind: Kind, shown: types.CompletionItemKind) -> Offer:
    return Offer(text=name, kind=shown, meaning=summary_of(name, kind), page=pages(name, kind))
