"""What a plan gathers, when: by kernel, by signal, and in agreement with what is measured at each step."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.language import facts
from trace_dsl.lint import parse_spec
from trace_dsl.plan import Plan, compile_plan
from trace_dsl.plan.measurements import measurements, signals_read
from trace_dsl.plan.plan import loss_names
from trace_dsl.plan.stretches import joined, stretches, stretches_text

PUBLISHED = Path(__file__).parents[2] / "specs" / "published"
STEPS = 60


def plan_of(text: str, path: str = "<text>") -> Plan:
    spec, errors = parse_spec(text, path=path)
    assert spec is not None, errors
    return compile_plan(spec, facts(total_steps=STEPS))


def gathered(text: str) -> list[tuple[str, str, tuple[tuple[int, int], ...]]]:
    """(payload, losses or "everywhere", steps) of everything a plan gathers."""
    plan = plan_of(text)
    names = loss_names(plan)
    return [
        (
            found.need.payload.text,
            "everywhere" if found.need.everywhere else " ".join(names[pair] for pair in found.losses),
            found.steps,
        )
        for found in plan.gathered
    ]


WHOLE = ((0, STEPS - 1),)
OLD = "old log-probability of the sampled token"
POLICY = "log-probability of the sampled token under the policy before the step"
TEACHER = "log-probability of the sampled token under teacher `teacher`"
RECOMPUTED = (
    "log-probability of the sampled token under the policy that wrote the rollout, computed again by the trainer"
)
FROZEN = "teacher = self(frozen)\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("rest: none", []),
        ("rest: nll() + entropy()", []),
        ("rest when correct and len > 3: nll(w=pos + A)", []),
        ("rest: grpo()", [(OLD, "rest/grpo", WHOLE)]),
        ("rest: cispo(high=1)", [(OLD, "rest/cispo", WHOLE)]),
        ("rest: k3(old)", [(OLD, "rest/k3", WHOLE)]),
        ("rest: k3()", [("log-probability of the sampled token under the reference policy", "rest/k3", WHOLE)]),
        ("rest: k3(base)", [("log-probability of the sampled token under the base model", "rest/k3", WHOLE)]),
        # a ratio of whole responses reads all of their tokens
        ("rest: grpo(level=sequence)", [(OLD, "everywhere", WHOLE)]),
        (
            f"{FROZEN}rest: grpo(anchor=mix(old, teacher, 0.5))",
            [(OLD, "rest/grpo", WHOLE), (TEACHER, "rest/grpo", WHOLE)],
        ),
        (
            "rest: grpo(tis=2)",
            [
                (OLD, "rest/grpo", WHOLE),
                (RECOMPUTED, "rest/grpo", WHOLE),
            ],
        ),
        # several losses share a payload; steps are joined
        (
            "key: grpo(w=schedule(1, warmup=10, anneal=step(5)))\nrest: grpo(start=40)",
            [(OLD, "key/grpo rest/grpo", ((0, 14), (40, 59)))],
        ),
        # a loss that never has weight needs nothing
        ("rest: grpo(w=0)", []),
        # signals are read at every token: by a predicate always, by a weight while it is not zero
        (f"{FROZEN}rest when gap > 0: nll()", [(POLICY, "everywhere", WHOLE), (TEACHER, "everywhere", WHOLE)]),
        (
            "rest: nll(w=ratio*schedule(1, anneal=linear(10)))",
            [(POLICY, "everywhere", ((0, 9),)), (OLD, "everywhere", ((0, 9),))],
        ),
        (
            f"{FROZEN}rest: pg(adv=teacher_logp, start=50)",
            [(OLD, "rest/pg", ((50, 59),)), (TEACHER, "everywhere", ((50, 59),))],
        ),
        # the same payload at some tokens and at all of them
        ("rest: grpo(w=old_logp)", [(OLD, "rest/grpo", WHOLE), (OLD, "everywhere", WHOLE)]),
        # a latch is evaluated while its loss has no weight
        (
            "rest: nll(w=where(latch(mean(entropy, over=batch) > 1, step > 9), 1, 0)*schedule(1, start=30))",
            [("entropy of the policy before the step", "everywhere", WHOLE)],
        ),
        (
            f"{FROZEN}rest: nll(w=overlap)",
            [
                ("which tokens are the likeliest of the policy before the step", "everywhere", WHOLE),
                ("which tokens are the likeliest of teacher `teacher`", "everywhere", WHOLE),
            ],
        ),
        # a schedule in tokens may have weight at any step
        ("rest: grpo(anneal=linear(2e6 tokens))", [(OLD, "rest/grpo", WHOLE)]),
    ],
)
def test_what_is_gathered_when(text: str, expected: list[tuple[str, str, tuple[tuple[int, int], ...]]]) -> None:
    assert gathered(text) == expected


_OF = {
    "sampled-logp": {"policy": "logp", "teacher": "teacher_logp"},
    "entropy": {"policy": "entropy", "teacher": "teacher_entropy"},
}


@pytest.mark.parametrize("path", sorted(PUBLISHED.glob("*.trace")), ids=lambda path: path.stem)
def test_what_is_gathered_is_what_is_measured_and_when_teachers_run(path: Path) -> None:
    plan = plan_of(path.read_text(encoding="utf-8"), str(path))
    last = dict.fromkeys((teacher.teacher.name for teacher in plan.teachers), -1)
    for step in range(STEPS):
        now = [g for g in plan.gathered if any(a <= step <= b for a, b in g.steps)]
        signals = {
            (_OF[g.need.payload.content.value][g.need.payload.origin.value], g.need.payload.teacher)
            for g in now
            if g.need.everywhere and g.need.payload.origin.value in _OF.get(g.need.payload.content.value, {})
        }
        assert {(signal.name, signal.teacher) for signal in measurements(plan, step)} == signals
        read = {signal.name for signal in signals_read(plan, step)}
        assert ("gap" in read) <= any(name == "teacher_logp" for name, _ in signals)
        for g in now:
            if g.need.payload.teacher is not None:
                last[g.need.payload.teacher] = step
    assert {teacher.teacher.name: teacher.last_step for teacher in plan.teachers} == last


def test_stretches() -> None:
    assert stretches([0, 1, 2, 5, 7, 8]) == ((0, 2), (5, 5), (7, 8))
    assert stretches([]) == ()
    assert joined([(5, 9), (0, 3), (4, 4), (7, 12)]) == ((0, 12),)
    assert stretches_text(()) == "no step"
    assert stretches_text(((4, 4),)) == "step 4"
    assert stretches_text(((0, 3), (5, 5))) == "steps 0-3, 5"
    assert stretches_text(tuple((i, i) for i in range(0, 20, 2))) == "steps 0, 2, 4, 6, 8, 10 and 4 more stretches"
