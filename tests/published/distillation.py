"""Golden numbers of the objectives with a divergence to a teacher, alone or beside a policy gradient."""

from __future__ import annotations

import math

from tests.published.golden import FOUR, HIGH, PER_SEQUENCE, PER_TOKEN, A, Golden, Rollouts, sigmoid
from trace_dsl.model import DivergenceKind, SupportOf, Tail, TopK

DAPO_CLIP = {"clip_low": 0.2, "clip_high": 0.28}
STUDENT = (-1.0, -1.2, -0.5, -0.2, -1.5, -0.7, -0.5, -2.0)
TEACHER = (-0.5, -1.2, -2.0, -0.1, -3.0, -0.4, -0.7, -1.5)
GAP = tuple(t - s for t, s in zip(TEACHER, STUDENT, strict=True))
H_T = (0.5, 1.0, 0.2, 0.9, 0.6, 0.81, 0.0, 0.8)
ALL = [True] * 4


def _sdpo() -> Golden:
    ratio = (1.0, 1.0, 0.5, 1.0, 3.0, 2.5, 1.0, 0.25)
    top = TopK(k=100, of=SupportOf.STUDENT, tail=Tail.BUCKET)
    constants = {"kind": DivergenceKind.JSD, "parameter": 0.5, "top_k": top}
    # The first rollout has neither: the other three have 6 tokens. The last has feedback only.
    return Golden(
        spec="sdpo",
        rollouts=Rollouts(
            **FOUR,
            has={"sibling": [False, True, True, False], "feedback": [False, True, False, True]},
            measured={"logp": [-1.0 + math.log(r) for r in ratio]},
        ),
        weights={
            "jsd(by_sibling)": (0, 0, 0.5 / 6, 1 / 6, 2 / 6, 2 / 6, 0, 0),
            "jsd(by_feedback)": (0, 0, 0, 0, 0, 0, 1 / 6, 0.25 / 6),
        },
        constants=[{**constants, "teacher": "by_sibling"}, {**constants, "teacher": "by_feedback"}],
    )


def _srpo(case: str, sibling: list[bool]) -> Golden:
    wrong = sibling[1]
    return Golden(
        spec="srpo",
        case=case,
        rollouts=Rollouts(**FOUR, has={"sibling": sibling}, measured={"teacher_entropy": H_T}),
        weights={
            "rkl": [math.exp(-H_T[at]) / 3 if wrong and 2 <= at < 5 else 0.0 for at in range(8)],
            "pg": [0.0 if 2 <= at < 5 else 1 / 5 for at in range(8)] if wrong else PER_TOKEN,
        },
        advantages={"pg": A},
        constants=[{"kind": DivergenceKind.RKL, "top_k": None}, {"clip_low": 0.2, "clip_high": 0.2}],
    )


def _scope() -> Golden:
    # In one prompt rows 0 and 1 are correct, rows 2 and 3 wrong; in the other there is one of each, of weight 1.
    student = (-1.0, -0.5, -0.3, -0.2, -0.9, -0.4, -0.7, -0.1)
    teacher = (-0.1, -0.2, -0.3, -1.0, -2.0, -0.6, -0.3, -1.4)
    # The student's perplexities of rows 0 and 1: exp(1), exp((0.5 + 0.3)/2).
    unsure = (math.exp(1.0), math.exp(0.4))
    both = sum(math.exp(x) for x in unsure)
    # One over the teacher's perplexities of rows 2 and 3: exp(-1), exp(-(2 + 0.6)/2).
    knows = (math.exp(-1.0), math.exp(-1.3))
    neither = sum(math.exp(x) for x in knows)
    first, second = (math.exp(x) / both / 8 for x in unsure)
    third, fourth = (math.exp(x) / neither / 8 for x in knows)
    return Golden(
        spec="scope",
        rollouts=Rollouts(
            lengths=(1, 2, 1, 2, 1, 1),
            rewards=(1.0, 1.0, 0.0, 0.0, 1.0, 0.0),
            prompts=(0, 0, 0, 0, 1, 1),
            measured={"logp": student, "teacher_logp": teacher},
        ),
        weights={
            "nll": (first, second, second, 0, 0, 0, 1 / 8, 0),
            "rkl": (0, 0, 0, third, fourth, fourth, 0, 1 / 8),
        },
        constants=[{}, {"kind": DivergenceKind.RKL, "top_k": None}],
    )


def _hdpo() -> Golden:
    # No rollout of prompt 0 is correct; with the solution in view one of two more is. Prompt 1 has one of each.
    # 8 plain tokens, 2 tokens in the rollout that is kept.
    return Golden(
        spec="hdpo",
        rollouts=Rollouts(
            lengths=(2, 3, 1, 2, 2, 1),
            rewards=(0.0, 0.0, 1.0, 0.0, 1.0, 0.0),
            prompts=(0, 0, 1, 1, 0, 0),
            sources=("policy",) * 4 + ("hinted",) * 2,
            has={"solution": [True] * 6},
        ),
        weights={"pg": [1 / 8] * 8 + [0.0] * 3, "jsd": [0.0] * 8 + [0.01 / 2] * 2 + [0.0]},
        advantages={"pg": [0.0] * 5 + [HIGH, -HIGH, -HIGH] + [0.0] * 3},
        constants=[
            {"kind": DivergenceKind.JSD, "parameter": 0.5, "top_k": TopK(k=64, tail=Tail.BUCKET)},
            {"clip_low": 0.2, "clip_high": 0.2},
        ],
    )


def _trace(step: int, strength: float) -> Golden:
    # Rollouts of 8 and 12 tokens, right and wrong; caps of 25% leave 2 and 3 tokens. The first has a key span (and an
    # error span, which a correct rollout does not route), the second an error span.
    rest = [1 / (8 * 2)] * 8 + [1 / (12 * 2)] * 12
    rho = 1 - strength / 0.5
    return Golden(
        spec="trace",
        case=f"step{step}",
        step=step,
        rollouts=Rollouts(
            lengths=(8, 12),
            rewards=(1.0, 0.0),
            prompts=(0, 0),
            has={"diagnosis": [True, True]},
            spans=[(0, "key", 2, 5), (0, "error", 6, 7), (1, "error", 1, 6)],
        ),
        weights={
            "fkl": [strength / (8 * 2) if at in (2, 3) else 0.0 for at in range(20)],
            "pg": [full * rho if at in (2, 3, 9, 10, 11) else full for at, full in enumerate(rest)],
        },
        advantages={"pg": [HIGH] * 8 + [-HIGH] * 12},
        constants=[{"kind": DivergenceKind.FKL, "top_k": None}, DAPO_CLIP, DAPO_CLIP, DAPO_CLIP],
    )


def _divergence(spec: str, kind: DivergenceKind, parameter: float) -> Golden:
    return Golden(
        spec=spec,
        rollouts=Rollouts(**FOUR),
        weights={kind.value: PER_TOKEN},
        constants=[{"kind": kind, "parameter": parameter, "top_k": None}],
    )


DISTILLATION: tuple[Golden, ...] = (
    _divergence("gkd", DivergenceKind.JSD, 0.5),
    _divergence("distillm", DivergenceKind.SKL, 0.1),
    _divergence("distillm_reverse", DivergenceKind.SRKL, 0.1),
    Golden(
        spec="opsd",
        rollouts=Rollouts(**FOUR, has={"solution": ALL}),
        weights={"jsd": PER_SEQUENCE},
        constants=[{"kind": DivergenceKind.JSD, "parameter": 0.5, "top_k": None}],
    ),
    _sdpo(),
    _srpo("sibling", [False, True, False, True]),
    _srpo("alone", [True, False, True, True]),
    Golden(
        spec="dgrpo",
        rollouts=Rollouts(**FOUR),
        weights={"pg": PER_TOKEN, "rkl": [0.5 / 8] * 8},
        advantages={"pg": A},
        constants=[{"clip_low": 0.2, "clip_high": 0.2}, {"kind": DivergenceKind.RKL, "top_k": None}],
    ),
    Golden(
        spec="sdar",
        rollouts=Rollouts(**FOUR, has={"solution": ALL}, measured={"gap": GAP}),
        weights={"pg": PER_TOKEN, "nll": [0.01 * sigmoid(5 * gap) / 8 for gap in GAP]},
        advantages={"pg": A},
        constants=[{"clip_low": 0.2, "clip_high": 0.2}, {}],
    ),
    _hdpo(),
    Golden(
        spec="aopd",  # the teacher's log-probability is the lower or equal one at places 1, 2, 4 and 6
        rollouts=Rollouts(**FOUR, measured={"logp": STUDENT, "teacher_logp": TEACHER}),
        weights={
            "fkl": [1 / 8 if at in (1, 2, 4, 6) else 0.0 for at in range(8)],
            "pg": [0.0 if at in (1, 2, 4, 6) else 1 / 8 for at in range(8)],
        },
        advantages={"pg": GAP},
        constants=[
            {"kind": DivergenceKind.FKL, "top_k": TopK(k=32, tail=Tail.BUCKET)},
            {"clip_low": 0.2, "clip_high": 0.2},
        ],
    ),
    Golden(
        spec="eopd",  # old log-probabilities are -1; H_T is above 0.8 at places 1, 3 and 5
        rollouts=Rollouts(**FOUR, measured={"teacher_logp": TEACHER, "teacher_entropy": H_T}),
        weights={"pg": PER_TOKEN, "fkl": [1 / 8 if at in (1, 3, 5) else 0.0 for at in range(8)]},
        advantages={"pg": [t + 1 for t in TEACHER]},
        constants=[
            {"clip_low": 0.2, "clip_high": 0.2},
            {"kind": DivergenceKind.FKL, "top_k": TopK(k=16, tail=Tail.BUCKET)},
        ],
    ),
    _scope(),
    _trace(0, 0.5),
    _trace(25, 0.25),  # 0.5 (1 - (25 - 10)/30)
    _trace(40, 0.0),
)
