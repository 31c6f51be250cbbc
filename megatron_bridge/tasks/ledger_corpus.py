"""The corpus on which the Ledger demo policy is fine-tuned: worked responses with mistakes of known types.

The writer makes each type of mistake often in a hard context and seldom elsewhere. Half of the examples
carry a label token in front of the prompt, and their steps of that type are almost always right. So a
policy fitted to the corpus knows more when it is shown a label than when it is not, which is what a
privileged teacher needs.

A style leak can be built in as well: examples with a label then write some steps of other operations tersely, as their
result alone. A teacher that is shown a label thus differs from the student also where nothing is wrong, which is what
privileged distillation on all tokens is said to suffer from. The leak depends on the operation and the label alone, and
never touches an operation whose steps can be of the label's type: it stays outside of the spans.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from megatron_bridge.tasks.ledger import is_held_out
from megatron_bridge.tasks.ledger_steps import (
    Ledger,
    Op,
    OpKind,
    StepType,
    apply,
    can_take,
    draw_ledger,
    flag,
    is_hard,
    operand,
    problem_types,
    prompt_text,
    step_types,
    terse,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Habits:
    """How the writer of the corpus errs and writes. hard, easy, labelled: how likely a decision goes wrong in a hard
    context, in another, and in a step of the shown type; terse: how likely a step is written tersely where a label is
    shown whose type no step of this operation has.
    """

    hard: float = 0.9
    easy: float = 0.01
    labelled: float = 0.005
    terse: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One example: the loss is taken on `response` (and the end token after it) only."""

    prompt: str
    response: str


def draw_example(
    rng: random.Random,
    *,
    ops: int,
    swap_share: float = 0.3,
    label_share: float = 0.5,
    habits: Habits | None = None,
) -> Example:
    """One example, its prompt in no evaluation split. In 95% of cases a label names a type that occurs."""
    while True:
        ledger = draw_ledger(rng, ops=ops, swaps=int(rng.random() < swap_share))
        prompt = prompt_text(ledger)
        if not is_held_out(prompt):
            break
    label = None
    if rng.random() < label_share:
        present = problem_types(ledger)
        label = rng.choice(present if present and rng.random() < 0.95 else tuple(StepType))
        prompt = f"<{label}>{prompt}"
    return Example(prompt=prompt, response=write_response(rng, ledger, label=label, habits=habits or Habits()))


def write_response(rng: random.Random, ledger: Ledger, *, label: StepType | None, habits: Habits) -> str:
    """A worked response with mistakes; each later step goes on from the value that was written."""
    lines: list[str] = []
    value = ledger.start
    for op in ledger.ops:
        written, value = _write_step(rng, value, op, label, habits)
        lines += map(terse, written) if _is_terse(rng, op, label, habits) else written
    return "\n".join([*lines, f"answer {value:02d}"])


def _write_step(
    rng: random.Random, value: int, op: Op, label: StepType | None, habits: Habits
) -> tuple[list[str], int]:
    if op.kind is OpKind.SWAP:
        return [f"{value:02d} swap {apply(value, op):02d}"], apply(value, op)
    mistakes = {
        step_type
        for step_type in step_types(value, op)
        if rng.random() < _mistake_rate(value, op, step_type, label, habits)
    }
    forget = bool(mistakes & {StepType.CARRY, StepType.BORROW})
    sign, amount = operand(value, op)
    if StepType.ORDER in mistakes:  # left to right: the sum first, then the product
        line, total = _arithmetic(f"{value:02d}", value, "+", op.a, forget=False)
        result = total * op.b % 100
        return [line, f"{total:02d} * {op.b} = {result:02d}"], result
    head, lines = f"{value:02d}", []
    if op.kind is OpKind.ADD_PRODUCT:
        lines = [f"{op.a} * {op.b} = {amount:02d}"]
    if StepType.SIGN in mistakes:
        sign = "-"
    if op.kind is OpKind.IF_ODD:
        odd = bool(value % 2) != (StepType.CASE_SPLIT in mistakes)
        sign, amount = ("+", op.a) if odd else ("-", op.b)
        head = f"{head} {'odd' if odd else 'even'}"
    line, result = _arithmetic(head, value, sign, amount, forget=forget)
    return [*lines, line], result


def _is_terse(rng: random.Random, op: Op, label: StepType | None, habits: Habits) -> bool:
    """Whether a step is written tersely. Without the leak nothing is drawn: the corpus stays what it was."""
    if not habits.terse or label is None or op.kind is OpKind.SWAP or can_take(op.kind, label):
        return False
    return rng.random() < habits.terse


def _mistake_rate(value: int, op: Op, step_type: StepType, label: StepType | None, habits: Habits) -> float:
    if step_type == label:
        return habits.labelled
    return habits.hard if is_hard(value, op, step_type) else habits.easy


def _arithmetic(head: str, value: int, sign: str, amount: int, *, forget: bool) -> tuple[str, int]:
    """One line and its result; `forget` leaves out the carry or borrow that the line would need."""
    direction = 1 if sign == "+" else -1
    if forget:
        tens, units = (
            (value // 10 + direction * (amount // 10)) % 10,
            (value % 10 + direction * (amount % 10)) % 10,
        )
        word, result = "=", tens * 10 + units
    else:
        word, result = flag(value, sign, amount), (value + direction * amount) % 100
    return f"{head} {sign} {amount:02d} {word} {result:02d}", result
