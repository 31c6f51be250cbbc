"""What a case says about its batch, checked against its spec."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from trace_dsl.checks.reading import contexts_of
from trace_dsl.errors import ExpectationError
from trace_dsl.expect.compare import ROUTE_CHARACTERS
from trace_dsl.expect.file import EVERY, Case, ExpectationFile, Rollout
from trace_dsl.expressions import text_of
from trace_dsl.model import DEFAULT_TEACHER, PLAIN_ROWS, Spec
from trace_dsl.plan.measurements import signals_read
from trace_dsl.plan.plan import Plan, advantage_of, loss_names
from trace_dsl.terms import Rank, Signal
from trace_dsl.vocabulary import SIGNALS, did_you_mean

# Token signals that follow from the rollouts themselves.
_KNOWN = frozenset({"pos", "source"})
# What a signal can be computed from, when it is not given itself.
_PARTS = {"gap": ("logp", "teacher_logp"), "ratio": ("logp", "old_logp")}


def signal_named(text: str, spec: Spec) -> Signal:
    """The signal that `gap` or `teacher_logp(NAME)` means in a spec: without a name, that of its only teacher or of the
    one called `teacher`.
    """
    word, _, teacher = text.removesuffix(")").partition("(")
    if not teacher and word in SIGNALS and SIGNALS[word].of_teacher:
        teacher = spec.teachers[0].name if len(spec.teachers) == 1 else DEFAULT_TEACHER
    return Signal(name=word, rank=Rank.TOKEN, teacher=teacher or None)


def is_measured(signal: Signal) -> bool:
    """Whether a signal is told of a rollout by its `signals`: it does not follow from rewards, lengths and spans."""
    info = SIGNALS.get(signal.name)
    return info is not None and info.rank is Rank.TOKEN and signal.name not in _KNOWN


def check_cases(file: ExpectationFile, plan: Plan) -> None:
    """Everything in the cases must mean something for the spec. Raises ExpectationError with all that does not."""
    cases = range(len(file.expectations.cases))
    found = [file.located(loc, message) for index in cases for loc, message in _problems(file, plan, index)]
    if found:
        raise ExpectationError("\n".join(dict.fromkeys(found)))


Problem = tuple[tuple[int | str, ...], str]


def _problems(file: ExpectationFile, plan: Plan, index: int) -> Iterator[Problem]:
    case = file.expectations.cases[index]
    at: tuple[int | str, ...] = ("cases", index)
    rollouts = file.expectations.batch_of(case)
    if case.step >= file.expectations.steps:
        yield (*at, "step"), f"{case.step} is past the run, whose last step is {file.expectations.steps - 1}"
    if not rollouts:
        yield at, "there are no rollouts: give some here, or at the top for all cases"
    if case.name in (other.name for other in file.expectations.cases[:index]):
        yield (*at, "name"), f"another case is named {case.name!r} too"
    batch_at = ("rollouts",) if case.rollouts is None else (*at, "rollouts")
    for name, rollout in rollouts.items():
        yield from _rollout_problems(file, rollout, (*batch_at, name))
        for signal in sorted(signals_read(plan, case.step), key=text_of):
            if _is_missing(file.spec, rollout, signal):
                asked = text_of(signal)
                yield (*batch_at, name), f"the spec reads {asked} at step {case.step}: give signals: {{{asked}: ...}}"
    yield from _expected_problems(plan, case, rollouts, at)


def _rollout_problems(file: ExpectationFile, rollout: Rollout, at: tuple[int | str, ...]) -> Iterator[Problem]:
    spec, tokens = file.spec, rollout.tokens
    labels = [label.name for label in spec.labels]
    for label, stretches in rollout.spans.items():
        if label not in labels:
            yield (*at, "spans", label), f"the spec has no label {label!r}; {did_you_mean(label, labels).text}"
        yield from _outside(stretches, tokens, (*at, "spans", label))
    yield from _outside(rollout.tool, tokens, (*at, "tool"))
    sources = [PLAIN_ROWS, *(source.name for source in spec.rollouts)]
    if rollout.rows not in sources:
        yield (*at, "rows"), f"the spec has no rollouts {rollout.rows!r}; {did_you_mean(rollout.rows, sources).text}"
    teachers = [teacher.name for teacher in spec.teachers]
    for name, values in rollout.signals.items():
        signal, place = signal_named(name, spec), (*at, "signals", name)
        if not is_measured(signal):
            known = [n for n, info in SIGNALS.items() if is_measured(Signal(name=n, rank=info.rank))]
            yield place, f"{signal.name!r} is no measurement; {did_you_mean(signal.name, known).text}"
        elif signal.teacher is not None and signal.teacher not in teachers:
            yield place, f"the spec has no teacher {signal.teacher!r}; {did_you_mean(signal.teacher, teachers).text}"
        context = contexts_of(spec).get(signal.teacher or "")
        if context is not None and context not in rollout.has:
            yield place, f"the teacher sees the {context} and the rollout has none: add has: [{context}] or take it out"
        yield from _of_another_length(values, tokens, place)


def _outside(stretches: Iterable[list[int]], tokens: int, at: tuple[int | str, ...]) -> Iterator[Problem]:
    for start, end in stretches:
        if not start <= end <= tokens:
            yield at, f"[{start}, {end}] is no stretch of a response of {tokens} tokens: 0 <= start <= end <= {tokens}"


def _of_another_length(values: float | list[float], tokens: int, at: tuple[int | str, ...]) -> Iterator[Problem]:
    if isinstance(values, list) and len(values) != tokens:
        yield at, f"{len(values)} numbers for {tokens} tokens"


def _is_missing(spec: Spec, rollout: Rollout, signal: Signal) -> bool:
    """Whether a response lacks a measurement that is read. A teacher measures none where it lacks what it sees."""
    if not is_measured(signal) or not rollout.tokens:
        return False
    context = contexts_of(spec).get(signal.teacher or "")
    if context is not None and context not in rollout.has:
        return False
    given = {signal_named(name, spec) for name in rollout.signals}
    parts = [
        Signal(name=part, rank=Rank.TOKEN, teacher=signal.teacher if SIGNALS[part].of_teacher else None)
        for part in _PARTS.get(signal.name, ())
    ]
    return signal not in given and not (parts and given.issuperset(parts))


def _expected_problems(
    plan: Plan, case: Case, batch: Mapping[str, Rollout], at: tuple[int | str, ...]
) -> Iterator[Problem]:
    channels = {name: plan.routes[r].losses[c].channel for (r, c), name in loss_names(plan).items()}
    known = list(channels)
    with_advantage = [name for name, channel in channels.items() if advantage_of(channel) is not None]
    for key, losses, there_are in (("weights", case.weights, known), ("advantages", case.advantages, with_advantage)):
        for loss, by_rollout in (losses or {}).items():
            place = (*at, key, loss)
            if loss not in there_are:
                what = "it has no advantage" if loss in known else "the spec has no such loss"
                yield place, f"{what}; {did_you_mean(loss, there_are).text}".removesuffix("; ")
            yield from _unknown_rollouts(by_rollout, batch, place)
            for name, values in by_rollout.items():
                if name in batch:
                    yield from _of_another_length(values, batch[name].tokens, (*place, name))
                elif name == EVERY and isinstance(values, list):
                    yield place, "a list has one number a token: give it for each rollout by name"
    if case.routes and len(plan.routes) > len(ROUTE_CHARACTERS):
        yield (*at, "routes"), f"a spec of more than {len(ROUTE_CHARACTERS)} routes has too many for one character each"
    for key, named in (("routes", case.routes), ("A", case.A)):
        yield from _unknown_rollouts(named or {}, batch, (*at, key))
    for name, text in (case.routes or {}).items():
        if name in batch and len(text) != batch[name].tokens:
            yield (*at, "routes", name), f"{len(text)} characters for {batch[name].tokens} tokens"


def _unknown_rollouts(named: Iterable[str], batch: Iterable[str], at: tuple[int | str, ...]) -> Iterator[Problem]:
    for name in named:
        if name != EVERY and name not in batch:
            yield (*at, name), f"there is no rollout {name!r}; {did_you_mean(name, batch).text}"
