"""Every published objective as a spec: clean, short, naming its paper, and meaning what the paper's formula says."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from tests.published.distillation import DISTILLATION
from tests.published.engine_column import FOLDER, demo_facts, engine_says, names, rows
from tests.published.golden import FOUR, Golden, Rollouts, golden_batch
from tests.published.policy_gradients import POLICY_GRADIENTS
from trace_dsl import lint_file
from trace_dsl.facts import RunFacts
from trace_dsl.lowering import lower
from trace_dsl.lowering.fused import DivergenceKernel, FusedKernel, NllKernel, PolicyGradientKernel
from trace_dsl.model import DEFAULT_TEACHER, Ema, Frozen, ModelTeacher, Sees, SelfTeacher, Sync
from trace_dsl.plan import Plan, compile_plan
from trace_dsl.syntax import parse_source
from trace_dsl.terms import Rank, Signal

torch.set_num_threads(1)

NAMES = names()
GOLDEN = (*POLICY_GRADIENTS, *DISTILLATION)
MOST_STATEMENTS = 10

# Held apart from the files and the page, which are both compared with it.
ARXIV = {
    "grpo": "2402.03300",
    "dapo": "2503.14476",
    "dr_grpo": "2503.20783",
    "gspo": "2507.18071",
    "cispo": "2506.13585",
    "high_entropy_20": "2506.01939",
    "tool_masking": "2503.09516",
    "gkd": "2306.13649",
    "distillm": "2402.03898",
    "distillm_reverse": "2402.03898",
    "opsd": "2601.18734",
    "sdpo": "2601.20802",
    "srpo": "2604.02288",
    "rlsd": "2604.03128",
    "rlrt": "2605.10781",
    "dgrpo": "2605.12227",
    "trrd": "2602.22495",
    "sdar": "2605.15155",
    "hdpo": "2603.23871",
    "reopold": "2603.11137",
    "g_opd": "2602.12125",
    "aopd": "2605.06387",
    "eopd": "2603.07079",
    "egrsd": "2605.13255",
    "fire_opd": "2606.02684",
    "scope": "2604.10688",
    "lightning_opd": "2604.13010",
    "antisd": "2605.11609",
    "prune_opd": "2605.07804",
    "credit": "2605.11613",
    "trace": "2605.10194",
}

OF_ANOTHER_MODEL = frozenset(
    ("gkd", "distillm", "distillm_reverse", "dgrpo", "trrd", "reopold", "g_opd", "aopd", "eopd", "fire_opd", "scope")
) | {"lightning_opd", "prune_opd"}
_CURRENT, _MOVING = SelfTeacher(Sync(1)), SelfTeacher(Ema(0.05))
_SEEING_THE_SOLUTION = {"teacher": (_CURRENT, Sees.SOLUTION)}
TEACHERS = {
    "opsd": {"teacher": (SelfTeacher(Frozen()), Sees.SOLUTION)},
    "sdpo": {"by_sibling": (_MOVING, Sees.SIBLING), "by_feedback": (_MOVING, Sees.FEEDBACK)},
    "srpo": {"teacher": (_MOVING, Sees.SIBLING)},
    **dict.fromkeys(("rlsd", "rlrt", "sdar", "hdpo", "egrsd", "antisd"), _SEEING_THE_SOLUTION),
    "credit": {**_SEEING_THE_SOLUTION, "other": (_CURRENT, Sees.MISMATCHED)},
    "trace": {"teacher": (SelfTeacher(Sync(10)), Sees.DIAGNOSIS)},
}


def run_facts(group_size: int = 8) -> RunFacts:
    """A run of 200 steps whose task can show a teacher everything."""
    contexts = tuple(sees.value for sees in Sees if sees is not Sees.NOTHING)
    return replace(demo_facts(), total_steps=200, group_size=group_size, teacher_contexts=contexts)


def plan_of(name: str) -> Plan:
    spec = lint_file(FOLDER / f"{name}.trace").spec
    assert spec is not None
    return compile_plan(spec, run_facts())


def test_every_objective_has_a_spec_and_a_golden_case() -> None:
    assert set(NAMES) == set(ARXIV) == {golden.spec for golden in GOLDEN}


@pytest.mark.parametrize("name", NAMES)
def test_lints_clean(name: str) -> None:
    path = FOLDER / f"{name}.trace"
    assert lint_file(path).diagnostics == ()
    assert lint_file(path, run_facts()).diagnostics == ()


@pytest.mark.parametrize("name", NAMES)
def test_is_short_and_names_its_paper(name: str) -> None:
    text = (FOLDER / f"{name}.trace").read_text(encoding="utf-8")
    assert len(parse_source(name, text).statements) <= MOST_STATEMENTS
    statement_lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    assert len(statement_lines) <= MOST_STATEMENTS
    assert f"arXiv {ARXIV[name]}" in text.partition("\n")[0]


@pytest.mark.parametrize("name", NAMES)
def test_plans_with_the_facts_of_a_run(name: str) -> None:
    assert len(plan_of(name).hash) == 16


# ------------------------------------------------------------------------------------------------------- golden meaning


def kernel_name(kernel: FusedKernel) -> str:
    """How a golden case names a kernel: pg, nll, fkl, jsd(by_sibling)."""
    match kernel:
        case PolicyGradientKernel():
            return "pg"
        case NllKernel():
            return "nll"
        case DivergenceKernel(kind=kind, teacher=teacher):
            return kind.value if teacher == DEFAULT_TEACHER else f"{kind.value}({teacher})"
        case _:
            return type(kernel).__name__.removesuffix("Kernel").lower()


def check(golden: Golden) -> None:
    plan = plan_of(golden.spec)
    routing = lower(plan, golden_batch(golden.rollouts), golden.step).routing
    found = {kernel_name(kernel): c for c, kernel in enumerate(routing.kernels)}
    assert len(found) == len(routing.kernels)
    with_weight = {name: weight for name, weight in golden.weights.items() if any(weight)}
    assert set(found) == set(with_weight)
    for name, expected in with_weight.items():
        weight_T = routing.weight_CT[found[name]].double()
        expected_T = torch.tensor(expected, dtype=torch.float64)
        torch.testing.assert_close(weight_T, expected_T, rtol=1e-6, atol=1e-9, msg=lambda m, n=name: f"{n}: {m}")
    for name, expected in golden.advantages.items():
        if name not in with_weight:
            continue
        routed_T = torch.tensor(golden.weights[name]) != 0
        advantage_T = routing.advantage_CT[found[name]].double()[routed_T]
        expected_T = torch.tensor(expected, dtype=torch.float64)[routed_T]
        torch.testing.assert_close(advantage_T, expected_T, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: golden.name)
def test_means_what_the_paper_says(golden: Golden) -> None:
    check(golden)


@pytest.mark.parametrize("name", NAMES)
def test_teachers_are_the_papers(name: str) -> None:
    spec = lint_file(FOLDER / f"{name}.trace").spec
    assert spec is not None
    found = {teacher.name: (teacher.source, teacher.sees) for teacher in spec.teachers}
    if name in OF_ANOTHER_MODEL:
        ((source, sees),) = found.values()
        assert isinstance(source, ModelTeacher)
        assert sees is Sees.NOTHING
    else:
        assert found == TEACHERS.get(name, {})


def test_extra_rollouts_are_the_papers() -> None:
    hinted, kept = (plan_of(name).rollouts[0] for name in ("hdpo", "lightning_opd"))
    assert (hinted.sees, hinted.n, hinted.cached) == (Sees.SOLUTION, 8, None)
    assert hinted.when == Signal(name="all_wrong", rank=Rank.GROUP)
    assert kept.cached == "rollouts.jsonl"
    assert [name for name in NAMES if plan_of(name).rollouts] == ["hdpo", "lightning_opd"]


def test_traces_spans_take_a_quarter_each() -> None:
    assert {label.name: label.cap for label in plan_of("trace").labels} == {"key": 0.25, "error": 0.25}


def test_the_gate_of_antisd_opens_and_closes_at_two_levels() -> None:
    """Medians of H_T over the steps of a run; open from 0.3, closed below 0.93 x 0.3 = 0.279."""
    plan, latches, opened = plan_of("antisd"), {}, []
    for step, median in enumerate((0.29, 0.31, 0.285, 0.275, 0.29, 0.301)):
        # 8 tokens: the median lies half-way between the fourth and the fifth
        spread = [0.0, 0.01, 0.02, median - 0.02, median + 0.02, 1.0, 1.5, 2.0]
        rollouts = Rollouts(
            **FOUR, has={"solution": [True] * 4}, measured={"gap": [1.0] * 8, "teacher_entropy": spread}
        )
        lowered = lower(plan, golden_batch(rollouts), step, latches=latches)
        latches = lowered.latches
        # prompt 1 has no advantage: what is left there is the term of the teacher
        opened.append(bool(lowered.routing.advantage_CT[0, 5] != 0))
    assert opened == [False, True, True, False, False, True]


@pytest.mark.parametrize("golden", [g for g in GOLDEN if g.constants], ids=lambda golden: golden.name)
def test_constants_are_the_papers(golden: Golden) -> None:
    channels = [channel for planned in plan_of(golden.spec).routes for channel in planned.route.channels]
    assert len(channels) == len(golden.constants)
    for channel, expected in zip(channels, golden.constants, strict=True):
        assert {name: getattr(channel.kernel, name) for name in expected} == expected


# ------------------------------------------------------------------------------------------------------------- the page


def test_the_page_lists_every_spec() -> None:
    table = rows()
    assert tuple(sorted(table)) == NAMES
    for name, row in table.items():
        assert re.search(rf"\b{re.escape(ARXIV[name])}\b", row["arxiv"]), name
        assert row["link"] == f"../specs/published/{name}.trace"


@pytest.mark.parametrize("name", NAMES)
def test_the_page_says_what_the_engine_does(name: str) -> None:
    found = rows()[name]["engine"]
    assert found == engine_says(name), "write the column anew: python -m tests.published.engine_column"
