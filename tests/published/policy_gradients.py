"""Golden numbers of the objectives that are policy gradients, reshaped or not."""

from __future__ import annotations

import math

from tests.published.golden import (
    FOUR,
    HIGH,
    PER_SEQUENCE,
    PER_TOKEN,
    ROW_OF,
    A,
    Golden,
    Rollouts,
    clip,
    sign,
    softplus,
)
from trace_dsl.model import MixAnchor, RatioLevel

SYMMETRIC = {"clip_low": 0.2, "clip_high": 0.2}
DAPO_CLIP = {"clip_low": 0.2, "clip_high": 0.28}
GAP = (0.4, -0.5, 0.3, -0.1, 0.0, 2.0, -3.0, 0.05)
H_T = (0.5, 1.0, 0.2, 0.9, 0.6, 0.4, 0.0, 2.0)


def rlsd(at: int, direction: float, strength: float) -> float:
    """A [(1 - L) + L clip(exp(direction sign(A) gap), .8, 1.2)]"""
    return A[at] * ((1 - strength) + strength * clip(math.exp(direction * sign(A[at]) * GAP[at]), 0.8, 1.2))


def _g_opd() -> Golden:
    teacher = (-0.5, -1.0, -2.0, -0.1, -3.0, -0.4, -0.7, -1.5)
    base = (-1.5, -1.1, -1.0, -0.3, -2.0, -0.8, -0.6, -2.5)
    old = (-1.0, -1.25, -0.5, -0.25, -1.5, -0.75, -0.5, -2.0)
    return Golden(
        spec="g_opd",
        rollouts=Rollouts(**FOUR, old_logp=old, measured={"teacher_logp": teacher, "base_logp": base}),
        weights={"pg": PER_TOKEN},
        advantages={"pg": [1.25 * (t - b) - (o - b) for t, b, o in zip(teacher, base, old, strict=True)]},
        constants=[SYMMETRIC],
    )


def _fire_opd() -> Golden:
    lengths, row_of = (2, 2, 1, 1, 1, 1), (0, 0, 1, 1, 2, 3, 4, 5)
    teacher = (-1.0, -2.0, -2.5, -3.5, -0.5, -4.0, -2.0, -1.0)
    student_entropy = (0.5, 1.0, 0.2, 0.4, 0.6, 0.3, 0.8, 0.1)
    # mean lT of the rows: -1.5, -3, -0.5, -4, -2, -1. In order -4, -3, -2, ...; the 20th percentile is at place
    # 0.2 x 5 = 1, so -3: the fourth row is dropped and the second is not, 7 tokens are left.
    raw = [h * math.exp(-t) for h, t in zip(student_entropy, H_T, strict=True)]
    mean = [sum(r for r, of in zip(raw, row_of, strict=True) if of == row) / lengths[row] for row in range(6)]
    return Golden(
        spec="fire_opd",
        rollouts=Rollouts(
            lengths=lengths,
            rewards=(1.0, 0.0, 1.0, 0.0, 1.0, 1.0),
            prompts=(0, 0, 1, 1, 2, 2),
            measured={
                "teacher_logp": teacher,
                "logp": [t - g for t, g in zip(teacher, GAP, strict=True)],
                "entropy": student_entropy,
                "teacher_entropy": H_T,
            },
        ),
        weights={"pg": [0.0 if row == 3 else r / mean[row] / 7 for r, row in zip(raw, row_of, strict=True)]},
        advantages={"pg": GAP},
        constants=[SYMMETRIC],
    )


def _credit() -> Golden:
    seeing = (-0.5, -1.0, -2.0, -0.1, -3.0, -0.4, -0.7, -1.5)
    other = (-0.9, -1.1, -1.0, -0.3, -2.0, -0.8, -0.6, -2.5)
    student = (-1.0, -1.2, -0.5, -0.2, -1.5, -0.7, -0.5, -2.0)
    return Golden(
        spec="credit",
        rollouts=Rollouts(
            **FOUR,
            has={"solution": [True] * 4},
            measured={"teacher_logp": seeing, "teacher_logp(other)": other, "logp": student},
        ),
        weights={"pg": PER_TOKEN},
        advantages={"pg": [z - 0.5 * x - p for z, x, p in zip(seeing, other, student, strict=True)]},
        constants=[SYMMETRIC],
    )


def _reopold(step: int, keeps: tuple[int, ...], case: str) -> Golden:
    floor = math.log(0.1 / 0.9)  # about -2.2: the rewards of tokens 6 and 8 lie below it
    gaps = (*GAP, -2.5, -2.1)
    return Golden(
        spec="reopold",
        case=case,
        step=step,
        rollouts=Rollouts(
            lengths=(2, 3, 1, 4),
            rewards=(1.0, 0.0, 1.0, 1.0),
            prompts=(0, 0, 1, 1),
            measured={"gap": gaps, "entropy": (0.1, 0.3, 0.2, 0.5, 0.1, 0.0, 0.9, 0.4, 0.3, 0.2)},
        ),
        weights={"pg": [1 / 10 if at in keeps else 0.0 for at in range(10)]},
        advantages={"pg": [max(gap, floor) for gap in gaps]},
        constants=[{"clip_low": 1.0, "clip_high": 1e6}] * 2,
    )


def _antisd(case: str, teacher_entropy: tuple[float, ...], strength: float) -> Golden:
    return Golden(
        spec="antisd",
        case=case,
        rollouts=Rollouts(
            **FOUR, has={"solution": [True] * 4}, measured={"gap": GAP, "teacher_entropy": teacher_entropy}
        ),
        weights={"pg": PER_TOKEN},
        advantages={"pg": [a - strength / 2 * (softplus(g) - math.log(2)) for a, g in zip(A, GAP, strict=True)]},
        constants=[SYMMETRIC],
    )


def _egrsd() -> Golden:
    largest = (1.0, 0.9, 0.4, 2.0)  # of H_T in each response
    sure = [clip(1 - h / largest[row], 0.1, 1.0) for h, row in zip(H_T, ROW_OF, strict=True)]
    return Golden(
        spec="egrsd",
        step=25,  # L = 0.5 (1 - 25/50) = 0.25
        rollouts=Rollouts(**FOUR, has={"solution": [True] * 4}, measured={"gap": GAP, "teacher_entropy": H_T}),
        weights={"pg": PER_SEQUENCE},
        advantages={"pg": [rlsd(at, 1, 0.25) * sure[at] for at in range(8)]},
        constants=[SYMMETRIC],
    )


POLICY_GRADIENTS: tuple[Golden, ...] = (
    Golden(
        spec="grpo",
        rollouts=Rollouts(**FOUR),
        weights={"pg": PER_SEQUENCE},
        advantages={"pg": A},
        constants=[{**SYMMETRIC, "level": RatioLevel.TOKEN, "dual": None}],
    ),
    Golden(
        spec="dapo",  # the second prompt is dropped: 5 tokens are left
        rollouts=Rollouts(**FOUR),
        weights={"pg": [1 / 5] * 5 + [0.0] * 3},
        advantages={"pg": A},
        constants=[DAPO_CLIP],
    ),
    Golden(
        spec="dr_grpo",  # R - mean; a response's sum over 3000, the mean over 4 responses
        rollouts=Rollouts(**FOUR),
        weights={"pg": [1 / 3000 / 4] * 8},
        advantages={"pg": [(0.5, -0.5, 0.0, 0.0)[row] for row in ROW_OF]},
        constants=[SYMMETRIC],
    ),
    Golden(
        spec="gspo",
        rollouts=Rollouts(**FOUR),
        weights={"pg": PER_SEQUENCE},
        advantages={"pg": A},
        constants=[{"level": RatioLevel.SEQUENCE, "clip_low": 3e-4, "clip_high": 4e-4}],
    ),
    Golden(
        spec="cispo",
        rollouts=Rollouts(**FOUR),
        weights={"cispo": PER_TOKEN},
        advantages={"cispo": A},
        constants=[{"high": 4.0}],
    ),
    Golden(
        spec="high_entropy_20",  # 20% of 10 tokens: those at places 1 and 4
        rollouts=Rollouts(
            lengths=(2, 3, 1, 4),
            rewards=(1.0, 0.0, 1.0, 1.0),
            prompts=(0, 0, 1, 1),
            measured={"entropy": (0.1, 0.9, 0.2, 0.3, 0.8, 0.1, 0.2, 0.4, 0.7, 0.1)},
        ),
        weights={"pg": [1 / 2 if at in (1, 4) else 0.0 for at in range(10)]},
        advantages={"pg": (*A, 0.0, 0.0)},
        constants=[DAPO_CLIP],
    ),
    Golden(
        spec="tool_masking",  # a tool wrote tokens 3 and 7: 6 are left
        rollouts=Rollouts(**FOUR, by_tool=(3, 7)),
        weights={"pg": (1 / 6, 1 / 6, 1 / 6, 0.0, 1 / 6, 1 / 6, 1 / 6, 0.0)},
        advantages={"pg": A},
        constants=[SYMMETRIC],
    ),
    Golden(
        spec="rlsd",
        step=10,  # L = 0.5 (1 - 10/50) = 0.4
        rollouts=Rollouts(**FOUR, has={"solution": [True] * 4}, measured={"gap": GAP}),
        weights={"pg": PER_SEQUENCE},
        advantages={"pg": [rlsd(at, 1, 0.4) for at in range(8)]},
        constants=[SYMMETRIC],
    ),
    Golden(
        spec="rlrt",
        step=10,  # only the first prompt has an advantage, and only its first rollout is correct
        rollouts=Rollouts(**FOUR, has={"solution": [True] * 4}, measured={"gap": GAP}),
        weights={"pg": PER_SEQUENCE},
        advantages={"pg": [rlsd(at, -1, 0.4) if row != 1 else -HIGH for at, row in enumerate(ROW_OF)]},
        constants=[SYMMETRIC, SYMMETRIC],
    ),
    Golden(
        spec="rlrt",
        case="after",
        step=50,  # L = 0: GRPO
        rollouts=Rollouts(**FOUR, has={"solution": [True] * 4}, measured={"gap": GAP}),
        weights={"pg": PER_SEQUENCE},
        advantages={"pg": A},
    ),
    Golden(
        spec="trrd",
        rollouts=Rollouts(**FOUR),
        weights={"pg": PER_TOKEN},
        advantages={"pg": A},
        constants=[{**SYMMETRIC, "anchor": MixAnchor("teacher", 0.5)}],
    ),
    _reopold(99, (0, 1, 2, 3, 4, 5, 7, 9), "rewards"),
    _reopold(100, (3, 6), "entropy"),
    _g_opd(),
    _egrsd(),
    _fire_opd(),
    Golden(
        spec="lightning_opd",  # 4 tokens in the kept rollouts, nothing on the others
        rollouts=Rollouts(**FOUR, sources=("policy", "kept", "kept", "policy"), measured={"gap": GAP}),
        weights={"pg": (0.0, 0.0, 1 / 4, 1 / 4, 1 / 4, 1 / 4, 0.0, 0.0)},
        advantages={"pg": GAP},
        constants=[SYMMETRIC],
    ),
    _antisd("unsure", (0.1, 0.9, 0.4, 0.3, 0.8, 0.1, 0.2, 0.6), 0.5),  # median (0.3 + 0.4)/2 = 0.35, above 0.3
    _antisd("sure", (0.1, 0.2, 0.1, 0.3, 0.2, 0.1, 0.2, 0.1), 0.0),
    Golden(
        spec="prune_opd",  # overlaps below 1/2 at places 1, 3, 4 and 6, counted along each response
        rollouts=Rollouts(**FOUR, measured={"gap": GAP, "overlap": (0.9, 0.4, 0.5, 0.2, 0.3, 0.8, 0.1, 1.0)}),
        weights={"pg": [math.exp(-0.1 * count) / 8 for count in (0, 1, 0, 1, 2, 0, 1, 1)]},
        advantages={"pg": GAP},
        constants=[SYMMETRIC],
    ),
    _credit(),
)
