"""What resolving carries along: the errors found so far and the names a spec declares."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from trace_dsl.model import DEFAULT_TEACHER, Diagnostic, OtherPlace, Place, Sees, SelfTeacher, Severity, Sync, Teacher
from trace_dsl.rules import LanguageRule
from trace_dsl.syntax.tree import Call, Name, Node, Number, Unit
from trace_dsl.terms import Expr
from trace_dsl.vocabulary import Suggestion, ValueKind, closest, did_you_mean

# The paper's teacher: the student's weights, copied every 10 steps, shown the diagnosis (arXiv 2605.10194, section 3).
DEFAULT_SYNC = 10
DEFAULT_TEACHER_LINE = f"teacher = self(sync={DEFAULT_SYNC}, sees={Sees.DIAGNOSIS.value})"
# Nobody reads more; each compares a name with all that are declared.
MOST_HINTS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """An expression and what it stands for."""

    expr: Expr
    kind: ValueKind


@dataclass(slots=True, kw_only=True)
class LetEntry:
    """A `let` while names are looked up. `node` is None when its statement does not parse."""

    name: str
    node: Node | None
    place: Place
    index: int
    value: Typed | None = None
    state: str = "waiting"  # waiting -> busy -> done
    uses: int = 0


@dataclass(slots=True, kw_only=True)
class Context:
    """One spec being resolved.

    `reads_default_teacher`: something may read a teacher without naming one. `broken` says that the statement at
    hand has an error, or reads something that has one. `index` counts statements, so that a let cannot be read
    before its line. `resolve_call` turns a call into an expression; it is handed in because the arguments of calls
    are expressions themselves.
    """

    resolve_call: Callable[[Context, Call], Typed | None]
    lets: dict[str, LetEntry] = field(default_factory=dict)
    teachers: dict[str, Teacher | None] = field(default_factory=dict)
    rollouts: dict[str, Place] = field(default_factory=dict)
    labels: dict[str, Place] = field(default_factory=dict)
    labels_declared: bool = False
    reads_default_teacher: bool = False
    index: int = 0
    broken: bool = False
    diagnostics: list[Diagnostic] = field(default_factory=list)
    default_teacher: Teacher | None = None
    hints_left: int = MOST_HINTS

    def error(
        self,
        rule: LanguageRule,
        place: Place,
        message: str,
        *,
        fix: str | Suggestion,
        consequence: str = "",
        others: tuple[OtherPlace, ...] = (),
    ) -> None:
        """Record an error of the statement at hand. A suggestion is about the whole of `place`."""
        self.broken = True
        words = fix if isinstance(fix, str) else fix.text
        assert words, f"{message}: what to write instead?"
        self.diagnostics.append(
            Diagnostic(
                rule=rule.value,
                severity=Severity.ERROR,
                place=place,
                message=message,
                fix=words,
                consequence=consequence,
                others=others,
                replacement=None if isinstance(fix, str) else fix.at(place),
            )
        )

    def closest(self, word: str, declared: Iterable[str], known: Iterable[str] = ()) -> str | None:
        """The name a spec declares that is nearest to a word, or else a known word; None once so many have been looked
        for."""
        self.hints_left -= 1
        return closest(word, known, own=declared) if self.hints_left >= 0 else None

    def did_you_mean(self, word: str, declared: Iterable[str], known: Iterable[str] = ()) -> Suggestion:
        """A hint at what `closest` finds."""
        self.hints_left -= 1
        if self.hints_left < 0:
            return Suggestion(near=None, words="check its spelling")
        return did_you_mean(word, known, own=declared)

    def teacher_named(self, name: str, place: Place) -> str | None:
        """`name` when a statement declares it, otherwise an error and None."""
        if name in self.teachers:
            return name
        if not self.teachers and name == DEFAULT_TEACHER:
            return self.teacher_by_default(place)
        declared = ", ".join(self.teachers) or "none"
        start = f"add `teacher {name} = self(frozen)`, the policy the run starts from" if name == "ref" else ""
        fix = self.did_you_mean(name, self.teachers) if self.teachers else f"add `teacher {name} = ...`"
        self.error(
            LanguageRule.TEACHER_UNDECLARED,
            place,
            f"no statement declares a teacher `{name}` (declared: {declared})",
            fix=start or fix,
            consequence="there would be no distribution to compare the student with",
        )
        return None

    def teacher_by_default(self, place: Place) -> str | None:
        """The teacher of a loss or signal that names none; without any `teacher` statement, the paper's."""
        if DEFAULT_TEACHER in self.teachers:
            return DEFAULT_TEACHER
        if len(self.teachers) == 1:
            return next(iter(self.teachers))
        if self.teachers:
            self.error(
                LanguageRule.TEACHER_UNDECLARED,
                place,
                f"which teacher? {', '.join(self.teachers)} are declared and none is the default",
                fix="name one, as in fkl(teacher=NAME) or gap(NAME), or declare one as `teacher = ...`",
            )
            return None
        if self.default_teacher is None:
            self.default_teacher = Teacher(
                name=DEFAULT_TEACHER,
                source=SelfTeacher(Sync(DEFAULT_SYNC)),
                sees=Sees.DIAGNOSIS,
                place=place,
            )
        return DEFAULT_TEACHER

    def through_lets(self, node: Node) -> Node:
        """A literal behind the names of lets, for arguments that take a length, a pair or a path."""
        seen: set[str] = set()
        current = node
        while True:
            entry = self.lets.get(current.name) if isinstance(current, Name) else None
            if entry is None or entry.node is None or entry.name in seen or not is_above(entry, current.place):
                return current
            seen.add(entry.name)
            entry.uses += 1
            current = entry.node


def is_above(entry: LetEntry, place: Place) -> bool:
    """Whether a `let` is given above a place of its file; one of another file may be read anywhere."""
    return entry.place.path != place.path or entry.place.line < place.line


def is_length(node: Node | None) -> bool:
    """Whether a node is a number with a unit of length."""
    return isinstance(node, Number) and node.unit in (Unit.STEPS, Unit.TOKENS)
