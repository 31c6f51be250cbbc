"""A plan as text for people: what each route takes, each loss, its weight over the run, what is gathered, teachers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.text import Text

from trace_dsl.model import PLAIN_ROWS
from trace_dsl.plan.description import (
    DescribedLoss,
    DescribedPayload,
    DescribedRollouts,
    DescribedSpan,
    DescribedTeacher,
    PlanDescription,
    mark,
)
from trace_dsl.plan.stretches import stretches_text

_LABEL = 9
# Settings that the rows `teacher` and `support` tell.
_ELSEWHERE = frozenset({"teacher", "topk", "of", "tail", "temperature"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A line of the table: `head`, then `parts` with commas between them. A narrow screen breaks it between parts, and
    what follows stands under the first.
    """

    head: Text
    parts: tuple[str, ...] = ()

    @property
    def plain(self) -> str:
        return self.head.plain + ", ".join(self.parts)


def table_rows(plan: PlanDescription) -> Iterator[Row]:
    """The plan, row by row."""
    run = f"{plan.total_steps} steps, groups of {plan.group_size}, sampled at temperature {plan.temperature:g}"
    yield _heading(f"plan {plan.hash}: {run}")
    settings = tuple(setting.text for setting in plan.advantage.settings)
    yield Row(head=Text(f"advantage A: {plan.advantage.formula}; "), parts=settings)
    if plan.spans:
        yield Row(head=Text("spans: "), parts=tuple(_span(span) for span in plan.spans))
    yield Row(head=Text("rollouts: "), parts=tuple(_rollouts(source) for source in plan.rollouts))
    for route in plan.routes:
        place = f"line {route.line}" if not route.file else f"{route.file}:{route.line}"
        yield Row(head=Text())
        yield _heading(f"route {route.number} ({place}): {route.takes}")
        if not route.losses:
            yield Row(head=Text("  no loss"))
        for loss in route.losses:
            yield Row(head=Text().append(f"  {loss.name}", style="cyan").append(f": {loss.formula}"))
            yield from _loss_rows(plan, loss)
    yield Row(head=Text())
    nothing = "the trainer gathers nothing beside tokens and rewards"
    yield _heading("the trainer gathers, beside tokens and rewards" if plan.payloads else nothing)
    for payload in plan.payloads:
        yield Row(head=Text(f"  {payload.text}: "), parts=_where(payload))
    for teacher in plan.teachers:
        yield Row(head=Text(f"teacher `{teacher.name}`{mark(teacher.default)}: "), parts=_teacher(teacher))
    if not plan.teachers:
        yield Row(head=Text("no teacher is run"))
    if plan.signals:
        yield Row(head=Text("signals: "), parts=plan.signals)
    for refusal in plan.refused:
        message = f"note: line {refusal.line}: {refusal.message}; this engine version would refuse to train it"
        yield Row(head=Text(message, style="yellow"))


def _heading(text: str) -> Row:
    return Row(head=Text(text, style="bold"))


def _loss_rows(plan: PlanDescription, loss: DescribedLoss) -> Iterator[Row]:
    weight = loss.weight
    yield _row("weight", f"{weight.text}{mark(weight.default)}")
    known = (f"{at.step}: {'known when it runs' if at.weight is None else f'{at.weight:.4g}'}" for at in weight.at)
    yield _row("at step", *known)
    sums = [f"of weights {weight.sum:.6g}", f"of squares {weight.sum_of_squares:.6g}"] if weight.sum is not None else []
    active = f"active at {stretches_text(weight.active)}" if weight.active else "never active"
    yield _row("sums", *(sums or ["known when it runs"]), active)
    told = {setting.name: setting for setting in loss.settings}
    if loss.teacher is not None and "teacher" in told:
        sees = next(teacher.sees for teacher in plan.teachers if teacher.name == loss.teacher)
        rows = (f"where has({loss.context})",) if loss.context else ()
        yield _row("teacher", f"`{loss.teacher}`{mark(told['teacher'].default)}", f"sees {sees}", *rows)
    if loss.support is not None:
        truncated = (told["of"].text,) if "of" in told and told["of"].default else ()
        support = f"{loss.support.text}{mark(loss.support.default)}"
        yield _row("support", support, *truncated, told["temperature"].text)
    yield _row("settings", *(setting.text for setting in loss.settings if setting.name not in _ELSEWHERE))
    if loss.signals:
        yield _row("signals", *loss.signals)
    if loss.needs:
        yield _row("needs", *loss.needs)


def _row(label: str, *parts: str) -> Row:
    return Row(head=Text(f"    {label:<{_LABEL}}", style="dim"), parts=parts)


def _span(span: DescribedSpan) -> str:
    cap = f"no cap{mark(True)}" if span.cap is None else f"up to {span.cap * 100:g}% of a response"
    return f"{span.label} {cap}"


def _rollouts(source: DescribedRollouts) -> str:
    if source.name == PLAIN_ROWS:
        return f"{source.a_prompt} a prompt from {source.what}"
    count = "" if source.a_prompt is None else f" {source.a_prompt} a prompt"
    settings = "".join(f", {setting.text}" for setting in source.settings if setting.name != "n")
    n = "".join(mark(setting.default) for setting in source.settings if setting.name == "n")
    return f"{source.name}{count}{n} from {source.what}{settings}"


def _teacher(teacher: DescribedTeacher) -> tuple[str, ...]:
    way, sees = teacher.settings
    when = "never run" if teacher.last_step < 0 else f"last run at step {teacher.last_step}"
    return (f"{teacher.what}{mark(way.default)}", f"sees {sees.value}{mark(sees.default)}; {when}")


def _where(payload: DescribedPayload) -> tuple[str, ...]:
    tokens = ("at every response token",) if payload.everywhere else payload.losses
    at = tokens if payload.everywhere else (f"at the tokens of {tokens[0]}", *tokens[1:])
    rows = (f"where has({payload.context})",) if payload.context else ()
    return (*at, *rows, stretches_text(payload.steps))
