"""What a page is told: the numbers of a preview as JSON, curves and columns apart, one object a rollout.

None is `null`; what JSON has no number for is "nan", "inf" or "-inf". Long runs of equal values are told once.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

from trace_dsl.certainty import follows_from_step
from trace_dsl.expressions import text_of
from trace_dsl.model import PLAIN_ROWS, PerKind, Route
from trace_dsl.plan.plan import advantage_of
from trace_dsl.plan.wording import estimator_text, per_text, route_name, teacher_text
from trace_dsl.preview.batch import Column
from trace_dsl.preview.elementwise import Known
from trace_dsl.preview.evaluate import measured
from trace_dsl.preview.preview import LossPreview, Preview, denominator_at, disagreements, written_tokens
from trace_dsl.preview.quantities import Quantity, Variants
from trace_dsl.terms import Rank

REST_HUE = 7  # of the theme's hues; those before it are for other routes
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
# (prompt, what the teacher sees, the text of it) -> the teacher's prompt
TeacherPrompt = Callable[[str, str, str], str]


def route_letter(index: int) -> str:
    """What stands for a route where colours do not: A to Z, then A2 and so on."""
    again, place = divmod(index, len(LETTERS))
    return LETTERS[place] + (str(again + 1) if again else "")


def takes_what_is_left(route: Route) -> bool:
    """Whether a route is the plain `rest`, which is the ground that the others stand out from."""
    return route.is_rest and route.when is None and route.rows == PLAIN_ROWS


def route_hue(routes: Sequence[Route], index: int) -> int:
    """Which of the theme's hues a route has, on every page and on a terminal: the plain `rest` is grey."""
    if takes_what_is_left(routes[index]):
        return REST_HUE
    return sum(not takes_what_is_left(route) for route in routes[:index]) % REST_HUE


def page_data(found: Preview, *, run: str, notes: Sequence[str], start: int) -> dict[str, Any]:
    """Everything but the rollouts. start: the step that the page opens at."""
    plan, batch = found.plan, found.batch
    differing = disagreements(found)
    return {
        "spec": {"name": Path(found.spec.path).name or "spec", "text": found.spec.text, "hash": plan.hash},
        "rollouts_file": Path(found.file.path).name,
        "run": run,
        "total_steps": plan.facts.total_steps,
        "stops": [] if found.all_steps else list(found.stops),
        "start": found.stop_of(start),
        "written_at": found.file.step,
        "agreement": None if differing is None else {"rollouts": batch.rows, "differing": len(differing)},
        "words": found.file.made_of_words,
        "notes": list(notes),
        "advantage": estimator_text(plan.advantage),
        "tokens": batch.tokens,
        "responses": batch.rows,
        "routes": [
            {
                "name": route_name(planned.route),
                "letter": route_letter(r),
                "line": planned.route.place.line,
                "text": planned.route.text,
                "labels": list(planned.route.labels),
                "rest": planned.route.is_rest,
                "quiet": takes_what_is_left(planned.route),
                "hue": route_hue([one.route for one in plan.routes], r),
                "when": planned.predicate_text,
                "rows": planned.route.rows,
            }
            for r, planned in enumerate(plan.routes)
        ],
        "losses": [_loss(found, loss) for loss in found.losses],
        "routings": [
            {"choices": routing.choices, "counts": _counts(routing.choice_T, len(routing.choices))}
            for routing in found.routings
        ],
        "routing_of_stop": _runs(found.routing_of_stop),
        "labels": [_label(found, name) for name in (label.name for label in plan.labels)],
        "teachers": [
            {"name": one.teacher.name, "text": teacher_text(one.teacher), "sees": one.teacher.sees.value}
            for one in plan.teachers
        ],
        "rows": list(_headers(found, frozenset(differing or ()))),
    }


def rollout_data(found: Preview, row: int, teacher_prompt: TeacherPrompt) -> dict[str, Any]:
    """One rollout: its texts, tokens, spans, what differs by token, and what its teachers are shown."""
    one, batch = found.file.rollouts[row], found.batch
    first, length = batch.start_R[row], batch.length_R[row]
    last = first + length
    choices = [routing.choice_T[first:last] for routing in found.routings]
    distinct = list(dict.fromkeys(map(tuple, choices)))
    return {
        "prompt": one.prompt,
        "response": one.response,
        "intervals": _packed(_in_browser(one.response, one.intervals)),
        "spans": [[s.label, s.kind, s.start, s.end] for s in batch.spans if s.row == row],
        "capped": {
            label: _runs(mask[first:last]) for label, mask in found.labelled.mask_T.items() if any(mask[first:last])
        },
        "tool": [n for n in range(length) if not batch.from_model_T[first + n]],
        "routes": [_runs(choice) for choice in distinct],
        "of_routing": [distinct.index(tuple(choice)) for choice in choices],
        "weights": [_values(loss.weight, row, first, last) for loss in found.losses],
        "advantages": [
            None if loss.advantage is None else _values(loss.advantage, row, first, last) for loss in found.losses
        ],
        "signals": {text_of(signal): _numbers(column[first:last]) for signal, column in measured(batch).items()},
        "contexts": dict(one.contexts),
        "teachers": _teachers(found, row, teacher_prompt),
        "note": one.note,
    }


def _loss(found: Preview, loss: LossPreview) -> dict[str, Any]:
    planned = found.plan.routes[loss.route].losses[loss.loss]
    advantage = advantage_of(loss.channel)
    per = loss.channel.per
    selected = per.kind is PerKind.SELECTED
    batch, route = found.batch, found.plan.routes[loss.route].route
    return {
        "route": loss.route,
        "name": loss.name,
        "text": loss.channel.text,
        "formula": planned.formula,
        "weight": planned.weight_text,
        "by_step": follows_from_step(loss.channel.weight),
        "per": per_text(per),
        "kind": per.kind.value,
        "constant": per.constant,
        "responses": max(sum(source == route.rows for source in batch.source_R), 1),
        "written": max(written_tokens(batch, route), 1),
        "selected": [
            denominator_at(found, loss, list(found.routing_of_stop).index(n), 0) if selected else None
            for n in range(len(found.routings))
        ],
        "teacher": planned.teacher,
        "context": loss.context,
        "advantage": None if advantage is None else text_of(advantage),
        "active": _runs(loss.active),
        "quantity": _curves(loss.weight),
        "advantage_quantity": None if loss.advantage is None else _curves(loss.advantage),
        "peak": _peak(loss.weight),
        "extent": _extent(found, loss),
        "nought": _is_nought(loss.weight),
        "unknown": None in _values_taken(found, loss),
    }


def _curves(quantity: Quantity) -> dict[str, Any]:
    if isinstance(quantity, Variants):
        return {"of_step": _runs(quantity.of_step)}
    return {"terms": [_runs([_number(value) for value in term.by_step]) for term in quantity]}


def _values(quantity: Quantity, row: int, first: int, last: int) -> list[Any]:
    """Of each term or variant: null for 1 everywhere, a number for the rollout, or a list by token."""
    if isinstance(quantity, Variants):
        return [_part(column, quantity.rank, row, first, last) for column in quantity.columns]
    return [1 if term.values is None else _part(term.values, term.rank, row, first, last) for term in quantity]


def _part(column: Column, rank: Rank, row: int, first: int, last: int) -> Any:
    if rank is not Rank.TOKEN:
        return _number(column[row])
    values = column[first:last]
    return _number(values[0]) if values and len(set(values)) == 1 else _numbers(values)


def _peak(quantity: Quantity) -> float:
    """The largest magnitude at any step, to shade by."""
    if isinstance(quantity, Variants):
        return max((_largest(column) for column in quantity.columns), default=0.0)
    largest = [1.0 if term.values is None else _largest(term.values) for term in quantity]
    steps = zip(*(term.by_step for term in quantity), strict=True)
    sizes = (sum(abs(f or 0.0) * x for f, x in zip(step, largest, strict=True)) for step in steps)
    return max((size for size in sizes if math.isfinite(size)), default=0.0)


def _extent(found: Preview, loss: LossPreview) -> list[float] | None:
    """The smallest and the largest of what the curve of a weight is multiplied with, over the tokens its route may
    take; None for weights of other forms, and where only the run can tell.
    """
    if isinstance(loss.weight, Variants) or len(loss.weight) != 1 or loss.weight[0].values is None:
        return None
    values = _values_taken(found, loss)
    known = [value for value in values if value is not None and math.isfinite(value)]
    return [min(known), max(known)] if known and len(known) == len(values) else None


def _values_taken(found: Preview, loss: LossPreview) -> set[Known]:
    """What the columns of a weight are at the tokens that its route may take."""
    columns, tokens = _columns(loss.weight), set[int]()
    for routing in found.routings if columns else ():
        may = {n for n, choice in enumerate(routing.choices) if loss.route in choice}
        tokens |= {t for t, choice in enumerate(routing.choice_T) if choice in may}
    rows = {found.batch.row_T[t] for t in tokens}
    return {column[n] for rank, column in columns for n in (tokens if rank is Rank.TOKEN else rows)}


def _columns(quantity: Quantity) -> list[tuple[Rank, Column]]:
    """The columns of a quantity, by rollout or by token; none for what follows from the step."""
    if isinstance(quantity, Variants):
        return [(quantity.rank, column) for column in quantity.columns]
    return [(term.rank, term.values) for term in quantity if term.values is not None]


def _is_nought(quantity: Quantity) -> bool:
    """Whether a quantity is surely 0, at every step and token."""
    if isinstance(quantity, Variants):
        return all(value == 0.0 for column in quantity.columns for value in column)
    factors = [(term.by_step, [1.0] if term.values is None else term.values) for term in quantity]
    return all(None not in (*steps, *values) and (not any(steps) or not any(values)) for steps, values in factors)


def _largest(column: Sequence[Known]) -> float:
    return max((abs(x) for x in column if x is not None and math.isfinite(x)), default=0.0)


def _counts(choice_T: Sequence[int], choices: int) -> list[int]:
    counted = Counter(choice_T)
    return [counted[n] for n in range(choices)]


def _label(found: Preview, name: str) -> dict[str, Any]:
    """How much of the responses a label covers, against its cap."""
    batch = found.batch
    before, after = found.labelled.covered[name]
    cap = next(label.cap for label in found.plan.labels if label.name == name)
    shares = [count / batch.length_R[row] for row, count in _marked(found, name).items()]
    return {
        "name": name,
        "cap": cap,
        "tokens": after,
        "cut": before - after,
        "responses": len(shares),
        "mean": sum(shares) / len(shares) if shares else 0.0,
        "largest": max(shares, default=0.0),
    }


def _marked(found: Preview, name: str) -> Mapping[int, int]:
    mask = found.labelled.mask_T[name]
    return Counter(row for row, marked in zip(found.batch.row_T, mask, strict=True) if marked)


def _headers(found: Preview, differing: frozenset[int]) -> Iterator[dict[str, Any]]:
    batch = found.batch
    labels: dict[int, Counter[str]] = {}
    for span in batch.spans:
        labels.setdefault(span.row, Counter())[span.label] += 1
    for row, one in enumerate(found.file.rollouts):
        yield {
            "line": one.line,
            "group": one.group_name,
            "correct": one.correct,
            "judged": one.judged,
            "reward": one.reward,
            "A": _number(batch.advantage_R[row]),
            "tokens": batch.length_R[row],
            "characters": len(one.response),
            "lines": one.response.count("\n"),
            "labels": dict(labels.get(row, Counter())),
            "rows": one.rows,
            "differs": row in differing,
            "contexts": [None if loss.context_R is None else loss.context_R[row] for loss in found.losses],
        }


def _teachers(found: Preview, row: int, teacher_prompt: TeacherPrompt) -> list[dict[str, Any]]:
    """What each teacher is given in place of the prompt: `prompt` is null where that is not known or not there."""
    shown = []
    for planned in found.plan.teachers:
        teacher, sees = planned.teacher, planned.teacher.sees.value
        texts = found.batch.contexts.get(sees)
        prompt = found.file.rollouts[row].prompt
        if texts is None:
            told: dict[str, Any] = {"known": sees == "nothing", "prompt": prompt if sees == "nothing" else None}
        else:
            text = texts[row]
            told = {"known": True, "prompt": None if text is None else teacher_prompt(prompt, sees, text)}
        shown.append({"name": teacher.name, "sees": sees, **told})
    return shown


def _in_browser(text: str, intervals: Sequence[tuple[int, int]]) -> Sequence[tuple[int, int]]:
    """Intervals as a browser counts: a character past U+FFFF, such as most emoji, is two of its units."""
    if text.isascii():
        return intervals
    place = list(accumulate((1 + (character > "\uffff") for character in text), initial=0))
    return [(place[start], place[end]) for start, end in intervals]


def _packed(intervals: Sequence[tuple[int, int]]) -> dict[str, Any]:
    """Tokens one behind the other are told by their ends."""
    ends = [end for _, end in intervals]
    if [start for start, _ in intervals] == [0, *ends][: len(ends)]:
        return {"ends": ends}
    return {"pairs": [list(pair) for pair in intervals]}


def _runs(values: Sequence[Any]) -> list[Any]:
    """Equal neighbours as [count, value]; as they are, behind a 0, where that is shorter."""
    runs = [[sum(1 for _ in same), value] for value, same in groupby(values)]
    return runs if 2 * len(runs) < len(values) else [0, *values]


def _number(value: Known) -> Any:
    if value is None or math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"


def _numbers(column: Sequence[Known]) -> list[Any]:
    return [_number(value) for value in column]
