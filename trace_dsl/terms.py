"""What weights and predicates are made of: units of length, schedules, expressions. Frozen data; nothing is computed
here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

# ------------------------------------------------------------------------------------------------ schedules and units


@dataclass(frozen=True, slots=True)
class Steps:
    """A number of optimizer steps."""

    count: int


@dataclass(frozen=True, slots=True)
class RunFraction:
    """A share of the run's optimizer steps, 0.1 for `10%`."""

    fraction: float


@dataclass(frozen=True, slots=True)
class Tokens:
    """A number of trained response tokens."""

    count: float


Length = Steps | RunFraction | Tokens


class Shape(StrEnum):
    LINEAR = "linear"
    COS = "cos"
    EXP = "exp"
    STEP = "step"


@dataclass(frozen=True, slots=True, kw_only=True)
class Anneal:
    """The way down: `length` of None means "to the end of the run"."""

    shape: Shape
    length: Length | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """schedule(weight, start, ramp, warmup, anneal, floor): zero, linear up, hold, then down to `floor`."""

    weight: float
    start: Length = Steps(0)
    ramp: Length = Steps(0)
    warmup: Length = Steps(0)
    anneal: Anneal | None = None
    floor: float = 0.0


# -------------------------------------------------------------------------------------------------------- expressions


class Rank(IntEnum):
    """How finely a value varies; an operation takes the highest rank of its operands."""

    CONSTANT = 0
    STEP = 1
    GROUP = 2
    ROW = 3
    TOKEN = 4


class Scope(StrEnum):
    """What a reduction runs over."""

    ROW = "row"
    GROUP = "group"
    MICRO = "micro"
    BATCH = "batch"


class Operator(StrEnum):
    NEG = "neg"
    ADD = "+"
    SUB = "-"
    MUL = "*"
    DIV = "/"
    LT = "<"
    LE = "<="
    GT = ">"
    GE = ">="
    EQ = "=="
    NE = "!="
    AND = "and"
    OR = "or"
    NOT = "not"


class Function(StrEnum):
    """Element-wise functions."""

    EXP = "exp"
    LOG = "log"
    ABS = "abs"
    SIGN = "sign"
    SQRT = "sqrt"
    SIGMOID = "sigmoid"
    SOFTPLUS = "softplus"
    CLIP = "clip"
    MIN = "min"
    MAX = "max"
    WHERE = "where"


class Reduction(StrEnum):
    """Reductions with an explicit `over=` scope. TOP and RANDOM give a predicate, SOFTMAX a value per element."""

    MEAN = "mean"
    MAX = "max"
    SUM = "sum"
    QUANTILE = "quantile"
    SOFTMAX = "softmax"
    TOP = "top"
    RANDOM = "random"


class Scan(StrEnum):
    """Scans along a response, first token to last; LATCH carries state across steps instead."""

    CUMCOUNT = "cumcount"
    WINDOW_MIN = "window_min"
    WINDOW_MEAN = "window_mean"
    REWARD_TO_GO = "reward_to_go"
    UNTIL = "until"
    LATCH = "latch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    value: float
    rank: Rank = field(default=Rank.CONSTANT, init=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scheduled:
    """A schedule used as a value."""

    schedule: Schedule
    rank: Rank = field(default=Rank.STEP, init=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A named measurement, for example `reward`, `gap` or `A`; `has(x)` is the signal named "has_x".

    `teacher` says which teacher a signal such as `gap` reads; None for signals that read no teacher.
    """

    name: str
    rank: Rank
    teacher: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    op: Operator
    args: tuple[Expr, ...]
    rank: Rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Apply:
    function: Function
    args: tuple[Expr, ...]
    rank: Rank


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduce:
    """`amount` is the quantile of QUANTILE, the fraction of TOP and RANDOM; RANDOM has no value."""

    reduction: Reduction
    value: Expr | None
    over: Scope
    rank: Rank
    amount: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scanned:
    """`amount` is the window of WINDOW_*, the gamma of REWARD_TO_GO."""

    scan: Scan
    args: tuple[Expr, ...]
    rank: Rank
    amount: float | None = None


Expr = Constant | Scheduled | Signal | Operation | Apply | Reduce | Scanned
