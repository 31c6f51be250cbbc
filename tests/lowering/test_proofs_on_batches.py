"""Proofs against batches, read token by token: what is proved is never contradicted, and a counterexample is one.

Specs are drawn from a small set of labels, predicates, teachers and losses; the reading of a batch is `reading.py`,
which knows nothing of proofs.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace

from tests.lowering.cases import CONTEXTS, facts_of, random_batch, spec_of
from tests.lowering.plain import PlainBatch, PlainSpan
from tests.lowering.reading import read
from trace_dsl.checks.outcomes import Outcome
from trace_dsl.model import PLAIN_ROWS, Cispo, Divergence, PolicyGradient, Spec
from trace_dsl.prove import Counterexample, Untrained, covers, disjoint, implies
from trace_dsl.terms import Expr, Operation, Signal

FACTS = facts_of()
LENGTH, PLACE = 100, 60  # of a response that a counterexample is built in, and of its token
STEP = 3

_TEACHERS = ("self(sync=10, sees=diagnosis)", "self(frozen)", "self(ema=0.1, sees=solution)")
_ATOMS = ("correct", "wrong", "all_correct", "mixed", "all_wrong", "has(diagnosis)", "has(solution)")
_ATOMS += ("gap > 0.5", "gap <= 0.5", "gap(other) > 0.5", "gap(other) <= 0.5", "entropy > 1", "entropy <= 1")
_ATOMS += ("source == tool", "source == model")
_LOSSES = ("nll()", "nll(w=2)", "nll(w=0)", "grpo()", "grpo(clip=0.1)", "rkl()", "fkl(w=0.5)", "rkl(teacher=other)")
_LOSSES += ("entropy(w=0.01)", "pg(adv=gap)")


# How a spec ends: with nothing, or with what looks as if it took every token that is left.
_LAST = ([], [], ["rest: nll()"], ["rest when gap > 0.5: nll()", "rest when gap <= 0.5: grpo()"])
_LAST += (["rest when not (entropy <= 1): nll()", "rest when entropy <= 1: none"],)


def random_spec(rng: random.Random) -> Spec:
    caps = [rng.choice(("", "(cap=25%)", "(cap=50%)")) for _ in range(2)]
    lines = [
        f"spans key{caps[0]}, error{caps[1]}",
        f"teacher = {rng.choice(_TEACHERS)}",
        "teacher other = self(ema=0.3, sees=feedback)",
    ]
    lines += [] if rng.random() < 0.8 else ["advantage = loo"]
    again = rng.random() < 0.2
    lines += ["rollouts again = policy(n=2)"] * again
    for _ in range(rng.randint(1, 4)):
        selector = rng.choice(("key", "error", "key | error", "rest", "rest"))
        conditions = ([_predicate(rng)] if rng.random() < 0.6 else []) + ["rows == again"] * (
            again and rng.random() < 0.5
        )
        when = f" when {' and '.join(conditions)}" if conditions else ""
        losses = " + ".join(rng.sample(_LOSSES, rng.randint(1, 2))) if rng.random() < 0.7 else "none"
        lines.append(f"{selector}{when}: {losses}")
    lines += rng.choice(_LAST)
    return spec_of("\n".join(lines) + "\n")


def _predicate(rng: random.Random) -> str:
    atom = rng.choice(_ATOMS)
    roll = rng.random()
    if roll < 0.2:
        return f"not ({_predicate(rng)})"
    return f"({atom} {rng.choice(('and', 'or'))} {_predicate(rng)})" if roll < 0.4 else f"({atom})"


def changed(rng: random.Random, spec: Spec) -> Spec:
    """Another spec that has much in common with one: routes in another order, split, left out, with more losses; caps
    changed.
    """
    lines = spec.text.splitlines()
    head = [line for line in lines if line.startswith(("spans", "teacher", "rollouts", "advantage"))]
    routes = [line for line in lines if line not in head]
    if rng.random() < 0.3:
        head[0] = f"spans key(cap={rng.choice((25, 50))}%), error"
    if rng.random() < 0.6:
        rng.shuffle(routes)
    if rng.random() < 0.4:
        at = rng.randrange(len(routes))
        selector, losses = routes[at].split(": ")
        if " when " not in selector:
            either = rng.choice((("gap > 0.5", "gap <= 0.5"), ("entropy > 1", "entropy <= 1"), ("correct", "wrong")))
            routes[at : at + 1] = [f"{selector} when {predicate}: {losses}" for predicate in either]
    if rng.random() < 0.2:
        routes.pop(rng.randrange(len(routes)))
    if rng.random() < 0.3:
        routes = [f"{route} + entropy(w=0.3)" if not route.endswith("none") else route for route in routes]
    return spec_of("\n".join([*head, *routes]) + "\n")


# ------------------------------------------------------------------------------------------------------ what is trained


def trained(spec: Spec, batch: PlainBatch) -> tuple[list[int | None], list[set[object]]]:
    """The route of every token, and what it is trained with, in words that two specs share."""
    reading = read(spec, FACTS, batch, STEP)
    kinds: list[set[object]] = [set() for _ in reading.route]
    for (r, c), weights in reading.weight.items():
        for place, weight in enumerate(weights):
            if weight != 0:
                kinds[place].add(kind(spec, spec.routes[r].channels[c].kernel))
    return reading.route, kinds


def kind(spec: Spec, kernel: object) -> object:
    teachers = {teacher.name: (teacher.source, teacher.sees) for teacher in spec.teachers}
    if isinstance(kernel, Divergence):
        return kernel.kind, teachers[kernel.teacher]
    if isinstance(kernel, PolicyGradient | Cispo):
        signal = kernel.advantage
        assert isinstance(signal, Signal)
        origin = spec.advantage.kind if signal.name == "A" else teachers[signal.teacher]
        return type(kernel), signal.name, origin, getattr(kernel, "clip_low", None)
    return type(kernel)


def batch_of(rng: random.Random, spec: Spec) -> PlainBatch:
    """A random batch; where the spec declares rollouts, a prompt of it may have been rolled out again."""
    batch = random_batch(rng, longest=6, groups=3)
    again = sorted(set(batch.group))[-1]
    if spec.rollouts and len(set(batch.group)) > 1 and rng.random() < 0.5:
        return replace(batch, source=["again" if group == again else PLAIN_ROWS for group in batch.group])
    return batch


# ------------------------------------------------------------------------------------------------------ counterexamples


def built(
    labels: tuple[str, ...], other: tuple[str, ...], caps: dict, rows: str, case: Outcome, teacher: str = "teacher"
) -> PlainBatch:
    """The batch that a counterexample describes: its token stands at `PLACE` of the first response.

    teacher: how the case names the spec's teacher of that name.
    """
    spans = [
        PlainSpan(row=0, label=label, start=PLACE - _before(label, labels, other, caps), end=PLACE + 1)
        for label in dict.fromkeys((*labels, *other))
    ]
    two = case.group == "mixed"
    count = 2 if two else 1
    missing = {name for name in CONTEXTS if state_of(case, f"has_{name}") is False}
    logp = -1.0
    gaps = {name: 1.0 if gap_of(case, told) else 0.0 for name, told in (("teacher", teacher), ("other", "other"))}
    return PlainBatch(
        reward=[float(case.correct), float(not case.correct)][:count],
        correct=[case.correct, not case.correct][:count],
        group=[1] * count,
        source=[rows] * count,
        old_logp=[[-1.0] * LENGTH] * count,
        from_model=[[place != PLACE or case.source == 0.0 for place in range(LENGTH)]] * count,
        spans=spans,
        contexts={name: [name not in missing] * count for name in CONTEXTS},
        logp=[[logp] * LENGTH] * count,
        entropy=[[2.0 if entropy_of(case) else 0.5] * LENGTH] * count,
        teacher_logp={name: [[logp + gap] * LENGTH] * count for name, gap in gaps.items()},
        teacher_entropy={name: [[1.0] * LENGTH] * count for name in gaps},
    )


def _before(label: str, labels: tuple[str, ...], other: tuple[str, ...], caps: dict) -> int:
    """How many tokens with this label stand before: as many as the smaller cap has room for, where only one has."""
    return 0 if label in labels and label in other else int(min(caps[label]) * LENGTH)


def state_of(case: Outcome, name: str) -> bool | None:
    return next((state for fact, state in case.facts if isinstance(fact, Signal) and fact.name == name), None)


def gap_of(case: Outcome, teacher: str) -> bool:
    return any(state is True and _reads(fact, "gap", teacher) for fact, state in case.facts)


def entropy_of(case: Outcome) -> bool:
    return any(state is True and _reads(fact, "entropy", None) for fact, state in case.facts)


def _reads(fact: Expr, name: str, teacher: str | None) -> bool:
    return isinstance(fact, Operation) and any(
        isinstance(arg, Signal) and (arg.name, arg.teacher) == (name, teacher) for arg in fact.args
    )


def caps_of(*specs: Spec) -> dict[str, tuple[float, ...]]:
    found = [(label.name, 1.0 if label.cap is None else label.cap) for one in specs for label in one.labels]
    return {name: tuple(cap for label, cap in found if label == name) for name in ("key", "error")}


# --------------------------------------------------------------------------------------------------------------- tests


def test_coverage_and_disjointness_hold_on_batches() -> None:
    rng, told = random.Random(1), Counter()
    for _ in range(250):
        spec = random_spec(rng)
        covered, apart = covers(spec), disjoint(spec)
        assert covered is not None
        assert apart is not None
        told[bool(covered.counterexamples), bool(apart.counterexamples)] += 1
        for example in covered.counterexamples:
            assert route_in(spec, example) is None, (spec.text, example.token)
        for example in apart.counterexamples:
            assert fits(spec, example) >= set(map(spec.routes.index, example.routes)), (spec.text, example.token)
        if not covered.counterexamples:
            for batch in (batch_of(rng, spec) for _ in range(3)):
                route, _ = trained(spec, batch)
                by_model = [x for row in batch.from_model for x in row]
                assert all(r is not None for r, wrote in zip(route, by_model, strict=True) if wrote), spec.text
        if not apart.counterexamples:
            batch = batch_of(rng, spec)
            taken = [trained(replace(spec, routes=(route,)), batch)[0] for route in spec.routes]
            for j, second in enumerate(spec.routes):
                for i, first in enumerate(spec.routes[:j]):
                    left_over = second.is_rest and not first.is_rest
                    left_over |= second.when is None and bool(set(first.labels) & set(second.labels))
                    both = [a is not None and b is not None for a, b in zip(taken[i], taken[j], strict=True)]
                    assert left_over or not any(both), spec.text
    assert min(told.values()) >= 10, told


def route_in(spec: Spec, example: Counterexample) -> int | None:
    """Where the token of a counterexample goes."""
    batch = built(example.labels, example.labels, caps_of(spec), example.rows, example.outcome)
    return trained(spec, batch)[0][PLACE]


def fits(spec: Spec, example: Counterexample) -> set[int]:
    """The routes that the token of a counterexample fits, each tried alone."""
    alone = [replace(spec, routes=(route,)) for route in spec.routes]
    return {index for index, one in enumerate(alone) if route_in(one, example) is not None}


def test_implication_holds_on_batches() -> None:
    rng, told = random.Random(2), Counter()
    for number in range(600):
        spec = random_spec(rng)
        other = changed(rng, spec) if number % 7 else random_spec(rng)
        proof = implies(spec, other)
        assert proof is not None
        told[bool(proof.counterexamples)] += 1
        for example in proof.counterexamples:
            if is_real(spec, other, example):
                told["real"] += 1
            else:
                raise AssertionError(f"{spec.text}\n{other.text}\n{example.token}")
        if not proof.counterexamples:
            for batch in (batch_of(rng, spec) for _ in range(6)):
                _, mine = trained(spec, batch)
                _, theirs = trained(other, batch)
                assert all(a <= b for a, b in zip(mine, theirs, strict=True)), f"{spec.text}\n{other.text}"
    assert told[False] >= 100, told
    assert told["real"] >= 200, told


def is_real(spec: Spec, other: Spec, example: Untrained) -> bool:
    """Whether the batch that a counterexample describes shows it."""
    caps = caps_of(spec, other)
    case = (example.labels, example.other_labels, caps, example.rows, example.outcome)
    route, mine = trained(spec, built(*case))
    same = (spec.teachers[0].source, spec.teachers[0].sees) == (other.teachers[0].source, other.teachers[0].sees)
    other_route, theirs = trained(other, built(*case, "teacher" if same else "teacher of the other spec"))
    lost = {kind(spec, loss.kernel) for loss in example.losses}
    there = None if example.other_route is None else other.routes.index(example.other_route)
    return (
        route[PLACE] == spec.routes.index(example.route)
        and other_route[PLACE] == there
        and lost <= mine[PLACE]
        and not lost & theirs[PLACE]
    )
