"""The nouns of the language: what a checked spec is made of. Read this page first.

Everything here is frozen data. The parser turns text into a `syntax` tree, `resolve` turns that into a `Spec` of this
module, the checks read a `Spec`, and the plan resolves it against the facts of a run. Losses are described here,
never computed; directions live in names: `FKL` is KL(teacher || student), `RKL` is KL(student || teacher).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum

from trace_dsl.terms import Expr

# ------------------------------------------------------------------------------------------------ places, diagnostics


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Place:
    """Where something stands in a source file: 1-based lines and columns, `end_column` exclusive.

    `path` is empty for the spec's own file; it names the file when the place is in a spec that this one extends.
    """

    line: int
    column: int
    end_line: int
    end_column: int
    path: str = ""


class Severity(StrEnum):
    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherPlace:
    """A second place a diagnostic speaks of, with what it says there ("the first route takes every key token")."""

    place: Place
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Replacement:
    """What to write instead of the text that stands at a place."""

    place: Place
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnostic:
    """One finding: which rule, where, what, what it would cost a run, and how to fix it.

    `replacement` is the fix as a change of the text, where one word for another is all there is to it.
    """

    rule: str
    severity: Severity
    place: Place
    message: str
    consequence: str = ""
    fix: str = ""
    others: tuple[OtherPlace, ...] = ()
    replacement: Replacement | None = None


# ----------------------------------------------------------------------------------------------------------- teachers


class Sees(StrEnum):
    """What a teacher is shown beside the problem."""

    NOTHING = "nothing"
    DIAGNOSIS = "diagnosis"
    SOLUTION = "solution"
    SIBLING = "sibling"
    FEEDBACK = "feedback"
    MISMATCHED = "mismatched"


@dataclass(frozen=True, slots=True)
class Sync:
    """Copy the student's weights at every step that `every` divides."""

    every: int


@dataclass(frozen=True, slots=True)
class Ema:
    """After every step: teacher <- (1 - rate) teacher + rate student."""

    rate: float


@dataclass(frozen=True, slots=True)
class Frozen:
    """The weights the run started from."""


@dataclass(frozen=True, slots=True)
class SelfTeacher:
    update: Sync | Ema | Frozen


@dataclass(frozen=True, slots=True)
class ModelTeacher:
    path: str


DEFAULT_TEACHER = "teacher"


@dataclass(frozen=True, slots=True, kw_only=True)
class Teacher:
    """`written` names the arguments that its statement gives; the default teacher, without a statement, has none."""

    name: str
    source: SelfTeacher | ModelTeacher
    sees: Sees
    place: Place
    written: tuple[str, ...] = ()


# ------------------------------------------------------------------------------------------------------------ kernels


class DivergenceKind(StrEnum):
    """fkl: KL(teacher||student); rkl: KL(student||teacher); jsd(b): generalised JSD; skl(a)/srkl(a): skewed."""

    FKL = "fkl"
    RKL = "rkl"
    JSD = "jsd"
    SKL = "skl"
    SRKL = "srkl"


class SupportOf(StrEnum):
    TEACHER = "teacher"
    STUDENT = "student"


class Tail(StrEnum):
    BUCKET = "bucket"
    RENORM = "renorm"
    DROP = "drop"


@dataclass(frozen=True, slots=True, kw_only=True)
class TopK:
    """Evaluate a divergence on the k likeliest tokens of one side; `tail` says what becomes of the others."""

    k: int
    of: SupportOf = SupportOf.TEACHER
    tail: Tail | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Divergence:
    """A divergence between teacher and student at each token; `top_k` of None is the full vocabulary.

    `parameter` is beta of jsd, a of skl and srkl. `temperature` None means the sampling temperature of the run.
    """

    kind: DivergenceKind
    teacher: str = DEFAULT_TEACHER
    parameter: float | None = None
    top_k: TopK | None = None
    temperature: float | None = None
    pclip: float | None = None


class RatioLevel(StrEnum):
    TOKEN = "token"
    SEQUENCE = "sequence"


@dataclass(frozen=True, slots=True)
class OldAnchor:
    """The ratio is taken to the policy that wrote the rollout."""


@dataclass(frozen=True, slots=True)
class MixAnchor:
    """The ratio is taken to old^share * teacher^(1 - share)."""

    teacher: str
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyGradient:
    """-min(ratio A, clip(ratio, 1 - clip_low, 1 + clip_high) A); `advantage` is an expression, `A` by default."""

    advantage: Expr
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual: float | None = None
    level: RatioLevel = RatioLevel.TOKEN
    anchor: OldAnchor | MixAnchor = OldAnchor()
    tis: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cispo:
    """-stopgrad(min(ratio, 1 + high)) A log-prob."""

    advantage: Expr
    high: float


@dataclass(frozen=True, slots=True)
class Nll:
    """-log-prob of the sampled token."""


@dataclass(frozen=True, slots=True)
class EntropyBonus:
    """-H(student): a positive weight rewards entropy."""


@dataclass(frozen=True, slots=True)
class K3:
    """exp(d) - d - 1 with d = log-prob of `to` minus log-prob of the student, at the sampled token."""

    to: str = "ref"


Kernel = Divergence | PolicyGradient | Cispo | Nll | EntropyBonus | K3


# ---------------------------------------------------------------------------------------------------- routes and spec


class PerKind(StrEnum):
    SEQUENCE = "sequence"
    TOKEN = "token"
    SELECTED = "selected"
    CONST = "const"


@dataclass(frozen=True, slots=True)
class Per:
    """The denominator of a loss, counted over the whole global batch; `constant` is the n of const(n)."""

    kind: PerKind
    constant: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One loss of one route. `weight` is detached when it is evaluated; `text` is the call as written, and `written`
    names the arguments it gives: all others have their defaults.
    """

    kernel: Kernel
    weight: Expr
    per: Per
    place: Place
    text: str
    written: tuple[str, ...] = ()


REST = "rest"
PLAIN_ROWS = "policy"
# The rollout source of responses without a verdict. No route can name it: they take no part in groups, reductions, spans
# or losses.
UNJUDGED_ROWS = "(unjudged)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """`labels` of ("rest",) takes every response token; `channels` of () is `none`; `rows` names a rollout source."""

    labels: tuple[str, ...]
    when: Expr | None
    channels: tuple[Channel, ...]
    place: Place
    rows: str = PLAIN_ROWS
    text: str = ""

    @property
    def is_rest(self) -> bool:
        return self.labels == (REST,)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanLabel:
    """A label the annotator may emit; `cap` is the largest fraction of a response's tokens it may take.

    `cap_in_percent`: it is written with a `%`.
    """

    name: str
    cap: float | None
    place: Place
    cap_in_percent: bool = False


class EstimatorKind(Enum):
    GROUP = "group"
    LEAVE_ONE_OUT = "loo"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class AdvantageEstimator:
    """How `A` comes from rewards: group mean (and std), leave-one-out mean, or the reward itself.

    `place` is None without an `advantage` statement; `written` names the arguments that it gives.
    """

    kind: EstimatorKind = EstimatorKind.GROUP
    scale_by_std: bool = True
    place: Place | None = None
    written: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutSource:
    """Extra rollouts: sampled from the policy under a privileged prompt, or read from a file (`cached`).

    `written` names the arguments that the statement gives.
    """

    name: str
    sees: Sees = Sees.NOTHING
    when: Expr | None = None
    n: int = 1
    cached: str | None = None
    place: Place
    written: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Let:
    """A named expression; `uses` counts the places that read it (0: unused)."""

    name: str
    value: Expr
    place: Place
    uses: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """A resolved spec: names looked up, lets put in place, units and ranks typed.

    `spans_declared` is False when the spec has no `spans` statement: then the labels are those its routes use,
    uncapped.
    `mentioned` holds the names read by statements with errors (empty for a spec without): whatever the rest of the
    spec says about them, they may be in use. `broken` are the places of routes of which a label is wrong: with it they
    would take other tokens.
    """

    path: str
    text: str
    labels: tuple[SpanLabel, ...]
    spans_declared: bool
    teachers: tuple[Teacher, ...]
    advantage: AdvantageEstimator
    rollouts: tuple[RolloutSource, ...]
    lets: tuple[Let, ...]
    routes: tuple[Route, ...]
    mentioned: frozenset[str] = frozenset()
    broken: frozenset[Place] = frozenset()

    def teacher(self, name: str) -> Teacher | None:
        return next((teacher for teacher in self.teachers if teacher.name == name), None)
