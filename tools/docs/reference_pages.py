"""The generated pages of the site: the tables that the checker reads and `trace-dsl explain` prints, as Markdown.

Nothing here says what a word means: every sentence about one comes from `trace_dsl.explain.entries`, weights come from
`trace_dsl.schedules`, options from the command line itself.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Iterator, Sequence

import typer

from trace_dsl.cli.main import app
from trace_dsl.explain import Entry, Kind, entries
from trace_dsl.explain.entries import Argument
from trace_dsl.reference import PART_OF_ROUTE
from trace_dsl.schedules import Progress, weight_at
from trace_dsl.terms import Anneal, Function, Rank, Reduction, Scan, Schedule, Shape, Steps
from trace_dsl.vocabulary import HAS, LOSSES, RANK_WORDS, ValueKind

FOLDER = "reference"


def reference_pages() -> dict[str, str]:
    """Every generated page about the language, by its place in the site."""
    pages = {
        "statements": _page("Statements", _statements()),
        "losses": _page("Losses", _losses()),
        "arguments": _page("Arguments", _arguments()),
        "schedules": _page("Schedules and units", _schedules()),
        "signals": _page("Signals", _signals()),
        "functions": _page("Functions", _functions()),
        "commands": _page("Commands", _commands()),
    }
    return {f"{FOLDER}/{name}.md": text for name, text in pages.items()}


def rule_table() -> str:
    """Every rule with its severity, when it speaks, and what it finds; each links to its section of the rules page."""
    rows = [(f"[{entry.name}](#{entry.name})", _text(entry.aside), _text(entry.meaning)) for entry in _of(Kind.RULE)]
    return _table(("rule", "", "finds"), rows)


def rule_badges(rule: str) -> str:
    """What stands under the heading of a rule: its severity, and what it needs in order to speak."""
    (entry,) = (entry for entry in _of(Kind.RULE) if entry.name == rule)
    words = entry.aside.split(", ")
    marks = " ".join(f'<span class="badge {word.split()[0]}">{word}</span>' for word in words)
    return f'<p class="badges">{marks}</p>'


def lead_in(rule: str) -> str:
    """How the text of a rule starts in docs/rules.md, where there are no badges: "Warning, with a run file."."""
    (entry,) = (entry for entry in _of(Kind.RULE) if entry.name == rule)
    return f"{entry.aside.capitalize()}."


# ---------------------------------------------------------------------------------------------------------- the pages


def _statements() -> Iterator[str]:
    yield "A spec is a list of these, one a line. [The language](../language.md) says how they work together."
    for entry in _of(Kind.STATEMENT):
        yield f"## {entry.name}"
        if entry.name == "route":
            yield f"With {', '.join(f'`{word}`' for word in PART_OF_ROUTE)}."
        yield from _word(entry)


def _losses() -> Iterator[str]:
    yield "What trains a token. The engine [refuses](../rules.md#what-the-engine-refuses) what it does not run."
    listed = _of(Kind.LOSS)
    shared = [argument for argument in listed[0].arguments if all(argument in entry.arguments for entry in listed)]
    yield _table(
        ("loss", "value at a token"), [(f"[{entry.name}](#{entry.name})", _code(entry.meaning)) for entry in listed]
    )
    yield "Every loss takes these; those of a schedule are [explained together](schedules.md)."
    yield _arguments_table(shared, required=())
    for entry in listed:
        yield f"## {entry.name}"
        yield f"{_code(entry.usage)}: {_code(entry.meaning)}" + (f", {_text(entry.aside)}" if entry.aside else "")
        yield _fence("trace part", entry.example)
        own = [argument for argument in entry.arguments if argument not in shared]
        if own:
            yield _arguments_table(own, required=LOSSES[entry.name].required)


def _arguments() -> Iterator[str]:
    yield "Of losses first, then of statements."
    for entry in _of(Kind.ARGUMENT):
        of = entry.aside.removeprefix("of ")
        yield f"## {entry.name} {{ #{entry.name if of not in _STATEMENTS else f'{of}-{entry.name}'} }}"
        yield _gloss(f"{entry.aside}: {entry.meaning}")
        yield "\n".join(f"- {_text(note)}" for note in entry.notes)


def _schedules() -> Iterator[str]:
    (entry,) = (entry for entry in _of(Kind.FUNCTION) if entry.name == "schedule")
    yield _gloss(entry.meaning)
    yield _fence("text", entry.usage)
    yield "The same words stand inside a loss, next to `w=`."
    yield _arguments_table(entry.arguments, required=("w",))
    yield "[The language](../language.md#schedules) has the formulas, the units and what holds at the boundaries."
    yield "## Weights, step by step"
    shape = Schedule(weight=1.0, start=Steps(2), ramp=Steps(4), warmup=Steps(4), floor=0.1)
    yield f"`schedule(1, start=2, ramp=4, warmup=4, anneal=SHAPE({_ANNEAL}), floor=0.1)` in a run of {_STEPS} steps:"
    yield _chart(shape)
    steps = (0, 1, 2, 3, 5, 6, 9, 10, 13, 15, 17, 19, 20, _STEPS - 1)
    rows = [(anneal.value, *(f"{weight:.3g}" for weight in _weights(shape, anneal, steps))) for anneal in Shape]
    yield _table(("step", *map(str, steps)), rows)


def _signals() -> Iterator[str]:
    yield "What a predicate, a weight or an advantage can read, by how finely it varies."
    listed = _of(Kind.SIGNAL)
    for rank in dict.fromkeys(entry.aside for entry in listed):
        yield f"## {rank.capitalize()}"
        rows = [
            (f'<span id="{entry.name}"></span>{_code(entry.name)}', _noted(entry.meaning, "; ".join(entry.notes)))
            for entry in listed
            if entry.aside == rank
        ]
        if rank == _ROW:
            rows += [(_code(f"has({word})"), _noted(info.summary, _HAS_NOTE)) for word, info in HAS.items()]
        yield _table(("signal", ""), rows)


def _functions() -> Iterator[str]:
    yield "In expressions: of weights, advantages and predicates."
    element_wise, reductions, scans = ({member.value for member in kind} for kind in (Function, Reduction, Scan))
    listed = _of(Kind.FUNCTION)
    for title, wanted in (
        ("Element by element", element_wise),
        ("Over a scope", reductions - element_wise),
        ("Along a response, and across steps", scans),
        ("Others", {entry.name for entry in listed} - element_wise - reductions - scans),
    ):
        yield f"## {title}"
        for entry in listed:
            if entry.name in wanted:
                yield f"### {entry.name}"
                yield from _word(entry)


def _commands() -> Iterator[str]:
    yield "What `trace-dsl COMMAND --help` says."
    for name, command in typer.main.get_command(app).commands.items():
        arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
        options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
        yield f"## {name}"
        text, _, example = (command.help or "").partition("\n\nExample: ")
        yield _text(text)
        yield _fence("bash", example)
        rows = [(_code(argument.metavar or argument.name.upper()), _text(argument.help)) for argument in arguments]
        rows += [(_code(", ".join((*o.opts, *o.secondary_opts))), _text(o.help)) for o in options]
        yield _table(("takes", ""), rows)


_STATEMENTS = frozenset(entry.name for entry in entries() if entry.kind is Kind.STATEMENT)
_ROW = "row rank"
_HAS_NOTE = f"{ValueKind.PREDICATE.value}, {RANK_WORDS[Rank.ROW]}"

# ------------------------------------------------------------------------------------------------------------- pieces


def _of(kind: Kind) -> list[Entry]:
    return [entry for entry in entries() if entry.kind is kind]


def _page(title: str, blocks: Iterable[str]) -> str:
    return "\n\n".join((f"# {title}", *blocks)) + "\n"


def _word(entry: Entry) -> Iterator[str]:
    """What `explain` says of a statement or function."""
    yield f"{_code(entry.usage)}: {_text(entry.meaning)}"
    yield _fence("trace part", entry.example)
    if entry.name == "schedule":
        yield "[Its arguments](schedules.md)."
    elif entry.arguments:
        yield _arguments_table(entry.arguments, required=(), of=entry.name)


def _arguments_table(arguments: Sequence[Argument], *, required: Sequence[str], of: str = "") -> str:
    def row(argument: Argument) -> tuple[str, ...]:
        text, place = argument.text, f"{of}-{argument.name}" if of in _STATEMENTS else argument.name
        default = "needed" if argument.name in required else _text(text.default)
        return (f"[{argument.name}](arguments.md#{place})", _text(text.takes), default, _text(text.meaning))

    return _table(("argument", "takes", "default", ""), [row(argument) for argument in arguments])


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _fence(info: str, text: str) -> str:
    return f"```{info}\n{text}\n```"


def _gloss(text: str) -> str:
    """The meaning of a word, as a line of its own below its heading."""
    return f'<p class="gloss">{_text(text)}</p>'


def _noted(text: str, note: str) -> str:
    return f'{_text(text)}<br><span class="gloss">{_text(note)}</span>'


def _code(text: str) -> str:
    return f"<code>{html.escape(text, quote=False).replace('|', '&#124;')}</code>"


def _text(text: str) -> str:
    """A sentence of the tables as it is; what stands in backticks is code."""
    parts = text.split("`")
    return "".join(
        _code(part) if index % 2 else html.escape(part, quote=False).replace("|", "&#124;").replace("*", "&#42;")
        for index, part in enumerate(parts)
    )


# ------------------------------------------------------------------------------------------------- the schedules' chart

_STEPS, _ANNEAL = 24, 10
_WIDTH, _HEIGHT = 24, 160


def _weights(schedule: Schedule, shape: Shape, steps: Sequence[int]) -> list[float]:
    whole = Schedule(
        weight=schedule.weight,
        start=schedule.start,
        ramp=schedule.ramp,
        warmup=schedule.warmup,
        anneal=Anneal(shape=shape, length=Steps(_ANNEAL)),
        floor=schedule.floor,
    )
    return [weight_at(whole, Progress(step=step, total_steps=_STEPS)) for step in steps]


def _chart(schedule: Schedule) -> str:
    """A line a shape, drawn with the page's own colours."""
    width, lines = _WIDTH * (_STEPS - 1), []
    for shape in Shape:
        weights = _weights(schedule, shape, range(_STEPS))
        points = " ".join(f"{_WIDTH * step},{_HEIGHT * (1 - weight):.1f}" for step, weight in enumerate(weights))
        lines.append(f'<polyline class="{shape.value}" points="{points}"/>')
    names = " ".join(f'<span class="{shape.value}">{shape.value}</span>' for shape in Shape)
    return (
        f'<figure class="schedules"><svg viewBox="-4 -6 {width + 8} {_HEIGHT + 12}" role="img" '
        f'aria-label="weights of the four shapes over {_STEPS} steps">{"".join(lines)}</svg>'
        f"<figcaption>{names}</figcaption></figure>"
    )
