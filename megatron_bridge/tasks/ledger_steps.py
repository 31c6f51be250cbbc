"""Ledger problems and their right steps: chained two-digit arithmetic modulo 100, one step per line.

    34 | +47 | -38 | if odd +7 else -5 | -(-12) | +5 * 6 =
    34 + 47 carry 81
    81 - 38 borrow 43
    43 odd + 07 carry 50
    50 + 12 = 62
    5 * 6 = 30
    62 + 30 = 92
    answer 92

Each step commits to a word (`carry`, `borrow`, `odd`, the sign) before its result, so a mistake starts at
one token. The words `carry` and `borrow` speak of the units digits. Results keep two digits: a sum drops
the hundreds and a difference wraps around (12 - 30 gives 82).
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never


class OpKind(StrEnum):
    """The operations. `SWAP` exchanges the two digits; only the SFT corpus and the ood split have it."""

    ADD = "add"
    SUBTRACT = "subtract"
    SUBTRACT_NEGATIVE = "subtract_negative"
    IF_ODD = "if_odd"
    ADD_PRODUCT = "add_product"
    SWAP = "swap"


class StepType(StrEnum):
    """What a step can get wrong: the span kinds, and the diagnoses a teacher may be shown."""

    CARRY = "carry"
    BORROW = "borrow"
    SIGN = "sign"
    CASE_SPLIT = "case_split"
    ORDER = "order"


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One operation: operand `a`, and `b`, the else-operand of `IF_ODD` or second factor of `ADD_PRODUCT`."""

    kind: OpKind
    a: int = 0
    b: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """A problem's own description: the start value (0..99) and its operations in order."""

    start: int
    ops: tuple[Op, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One right line of a response.

    `roles[i]` is the type of mistake that a wrong word `i` shows (None: a slip of no type); `types` are the
    types of decision the line really takes, `hard` those it takes in a context where the corpus is often
    wrong.
    """

    text: str
    roles: tuple[StepType | None, ...]
    types: tuple[StepType, ...]
    hard: tuple[StepType, ...]

    @property
    def terse(self) -> str:
        """The same line as a policy with the style leak may write it: its result alone."""
        return terse(self.text)


def terse(line: str) -> str:
    """The result of a line alone, its last word."""
    return line.rsplit(" ", 1)[-1]


# How often each operation is drawn.
OP_SHARES = {
    OpKind.ADD: 0.30,
    OpKind.SUBTRACT: 0.30,
    OpKind.SUBTRACT_NEGATIVE: 0.13,
    OpKind.IF_ODD: 0.13,
    OpKind.ADD_PRODUCT: 0.14,
}
END_TOKEN = "<end>"
LABEL_TOKENS = tuple(f"<{step_type}>" for step_type in StepType)
# The words of prompts and responses: each is one token with its spaces, as a digit is one token without any.
WORDS = (
    *(" | ", " =\n", "if odd ", " else ", "(-", "swap"),
    *(" + ", " - ", " * ", " = ", " carry ", " borrow ", " odd", " even", " swap ", "answer "),
)


def draw_ledger(rng: random.Random, *, ops: int, swaps: int) -> Ledger:
    """A random problem of `ops` operations, `swaps` of them digit swaps at random places."""
    start = rng.randint(0, 99)
    row = [_draw_op(rng) for _ in range(ops)]
    for place in rng.sample(range(ops), swaps):
        row[place] = Op(kind=OpKind.SWAP)
    return Ledger(start=start, ops=tuple(row))


def _draw_op(rng: random.Random) -> Op:
    kind = rng.choices(list(OP_SHARES), list(OP_SHARES.values()))[0]
    match kind:
        case OpKind.IF_ODD:
            return Op(kind=kind, a=rng.randint(1, 9), b=rng.randint(1, 9))
        case OpKind.ADD_PRODUCT:
            return Op(kind=kind, a=rng.randint(2, 9), b=rng.randint(2, 9))
        case _:
            return Op(kind=kind, a=rng.randint(1, 99))


def op_text(op: Op) -> str:
    """The operation as the prompt shows it."""
    match op.kind:
        case OpKind.ADD:
            return f"+{op.a:02d}"
        case OpKind.SUBTRACT:
            return f"-{op.a:02d}"
        case OpKind.SUBTRACT_NEGATIVE:
            return f"-(-{op.a:02d})"
        case OpKind.IF_ODD:
            return f"if odd +{op.a} else -{op.b}"
        case OpKind.ADD_PRODUCT:
            return f"+{op.a} * {op.b}"
        case OpKind.SWAP:
            return "swap"
        case _:
            assert_never(op.kind)


def prompt_text(ledger: Ledger) -> str:
    """The prompt. It ends with a line break, which starts no token of a response, so the two never merge."""
    return " | ".join([f"{ledger.start:02d}", *map(op_text, ledger.ops)]) + " =\n"


def operand(value: int, op: Op) -> tuple[str, int]:
    """The sign and operand that `op` really applies to `value` (not for `SWAP`)."""
    match op.kind:
        case OpKind.ADD | OpKind.SUBTRACT_NEGATIVE:
            return "+", op.a
        case OpKind.SUBTRACT:
            return "-", op.a
        case OpKind.IF_ODD:
            return ("+", op.a) if value % 2 else ("-", op.b)
        case OpKind.ADD_PRODUCT:
            return "+", op.a * op.b
        case OpKind.SWAP:
            raise ValueError("swap has no operand; allowed are the other operations")
        case _:
            assert_never(op.kind)


def apply(value: int, op: Op) -> int:
    """The value (0..99) after `op`."""
    if op.kind is OpKind.SWAP:
        return value % 10 * 10 + value // 10
    sign, amount = operand(value, op)
    return (value + amount if sign == "+" else value - amount) % 100


def answer(ledger: Ledger) -> int:
    """The right final value, 0..99."""
    value = ledger.start
    for op in ledger.ops:
        value = apply(value, op)
    return value


def flag(value: int, sign: str, amount: int) -> str:
    """The word before a result: `carry`, `borrow`, or `=` where the units digits need neither."""
    if sign == "+":
        return "carry" if value % 10 + amount % 10 >= 10 else "="
    return "borrow" if value % 10 < amount % 10 else "="


def step_types(value: int, op: Op) -> tuple[StepType, ...]:
    """The decisions `op` takes at `value`, in the order in which the step writes them."""
    if op.kind is OpKind.SWAP:
        return ()
    structural = {
        OpKind.SUBTRACT_NEGATIVE: (StepType.SIGN,),
        OpKind.IF_ODD: (StepType.CASE_SPLIT,),
        OpKind.ADD_PRODUCT: (StepType.ORDER,),
    }.get(op.kind, ())
    flagged = {"carry": (StepType.CARRY,), "borrow": (StepType.BORROW,)}.get(flag(value, *operand(value, op)), ())
    return structural + flagged


def is_hard(value: int, op: Op, step_type: StepType) -> bool:
    """Whether the context is one in which the SFT corpus often makes this type of mistake."""
    match step_type:
        case StepType.CARRY:
            return value % 10 == 9
        case StepType.BORROW:
            return value % 10 == 0
        case StepType.SIGN:
            return op.a >= 70
        case StepType.CASE_SPLIT:
            return value >= 70
        case StepType.ORDER:
            return op.b >= 8
        case _:
            assert_never(step_type)


def can_take(kind: OpKind, step_type: StepType) -> bool:
    """Whether some step of this operation takes this type of decision, at some value."""
    adds = (OpKind.ADD, OpKind.SUBTRACT_NEGATIVE, OpKind.IF_ODD, OpKind.ADD_PRODUCT)
    return {
        StepType.CARRY: kind in adds,
        StepType.BORROW: kind in (OpKind.SUBTRACT, OpKind.IF_ODD),
        StepType.SIGN: kind is OpKind.SUBTRACT_NEGATIVE,
        StepType.CASE_SPLIT: kind is OpKind.IF_ODD,
        StepType.ORDER: kind is OpKind.ADD_PRODUCT,
    }[step_type]


def problem_types(ledger: Ledger) -> tuple[StepType, ...]:
    """Every decision on the right path, in order, with repeats."""
    found: list[StepType] = []
    value = ledger.start
    for op in ledger.ops:
        found += step_types(value, op)
        value = apply(value, op)
    return tuple(found)


def right_lines(value: int, op: Op) -> tuple[Line, ...]:
    """The right lines of one step: two for a product, one for anything else."""
    result = f"{apply(value, op):02d}"
    if op.kind is OpKind.SWAP:
        return (Line(text=f"{value:02d} swap {result}", roles=(None,) * 3, types=(), hard=()),)
    sign, amount = operand(value, op)
    word = flag(value, sign, amount)
    flag_role = StepType.CARRY if sign == "+" else StepType.BORROW
    result_role = flag_role if word != "=" else None
    types = step_types(value, op)
    hard = tuple(step_type for step_type in types if is_hard(value, op, step_type))
    head, head_roles = [f"{value:02d}"], [None]
    sign_role = StepType.SIGN if op.kind is OpKind.SUBTRACT_NEGATIVE else None
    amount_role = None
    if op.kind is OpKind.IF_ODD:
        head, head_roles = [*head, "odd" if value % 2 else "even"], [None, StepType.CASE_SPLIT]
        sign_role = amount_role = StepType.CASE_SPLIT
    sum_line = Line(
        text=" ".join([*head, sign, f"{amount:02d}", word, result]),
        roles=(*head_roles, sign_role, amount_role, flag_role, result_role),
        types=tuple(step_type for step_type in types if step_type is not StepType.ORDER),
        hard=tuple(step_type for step_type in hard if step_type is not StepType.ORDER),
    )
    if op.kind is not OpKind.ADD_PRODUCT:
        return (sum_line,)
    product_line = Line(
        text=f"{op.a} * {op.b} = {amount:02d}",
        roles=(StepType.ORDER, None, None, None, None),
        types=(StepType.ORDER,),
        hard=(StepType.ORDER,) if StepType.ORDER in hard else (),
    )
    return product_line, sum_line


def right_response(ledger: Ledger) -> tuple[Line, ...]:
    """The lines of the right response, without the answer line."""
    lines: list[Line] = []
    value = ledger.start
    for op in ledger.ops:
        lines += right_lines(value, op)
        value = apply(value, op)
    return tuple(lines)
