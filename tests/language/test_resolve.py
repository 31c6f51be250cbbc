"""Syntax tree -> Spec: what every construct becomes, and what is an error."""

from __future__ import annotations

import pytest

from tests.language import SHORTEST, TRACE, rules_of
from tests.language.resolving import channel_of, spec_of, value_of
from trace_dsl.expressions import is_known_before_run, signals_of, text_of, weight_at_step
from trace_dsl.model import (
    K3,
    AdvantageEstimator,
    Cispo,
    Divergence,
    DivergenceKind,
    Ema,
    EntropyBonus,
    EstimatorKind,
    Frozen,
    MixAnchor,
    ModelTeacher,
    Nll,
    Per,
    PerKind,
    PolicyGradient,
    RatioLevel,
    Sees,
    SelfTeacher,
    SupportOf,
    Sync,
    Tail,
    TopK,
)
from trace_dsl.schedules import Progress
from trace_dsl.terms import (
    Anneal,
    Constant,
    Operation,
    Rank,
    RunFraction,
    Schedule,
    Scheduled,
    Shape,
    Signal,
    Steps,
    Tokens,
)

# ---------------------------------------------------------------------------------------------------------- whole specs


def test_the_papers_spec() -> None:
    spec = spec_of(TRACE)
    assert [label.cap for label in spec.labels] == [0.25, 0.25]
    assert spec.spans_declared
    kl = Schedule(weight=0.5, warmup=Steps(10), anneal=Anneal(shape=Shape.LINEAR, length=Steps(30)))
    first = spec.routes[0]
    assert first.labels == ("key",)
    assert first.when == Signal(name="correct", rank=Rank.ROW)
    assert first.channels[0].kernel == Divergence(kind=DivergenceKind.FKL, top_k=TopK(k=100, tail=Tail.BUCKET))
    assert first.channels[0].weight == Scheduled(schedule=kl)
    assert text_of(first.channels[1].weight) == "1 - schedule(0.5, warmup=10, anneal=linear(30))/0.5"
    assert spec.routes[2].is_rest
    kernel = spec.routes[2].channels[0].kernel
    assert isinstance(kernel, PolicyGradient)
    assert (kernel.clip_low, kernel.clip_high) == (0.2, 0.28)
    assert [(let.name, let.uses) for let in spec.lets] == [("kl", 3)]
    assert (spec.teachers[0].sees, spec.teachers[0].source) == (Sees.DIAGNOSIS, SelfTeacher(Sync(10)))


def test_the_shortest_spec_has_the_papers_teacher() -> None:
    spec = spec_of(SHORTEST)
    (teacher,) = spec.teachers
    assert (teacher.name, teacher.source, teacher.sees) == ("teacher", SelfTeacher(Sync(10)), Sees.DIAGNOSIS)
    assert teacher.place == spec.routes[0].channels[0].place
    assert rules_of(SHORTEST) == []


def test_a_spec_that_needs_no_teacher_has_none() -> None:
    assert spec_of("rest: grpo()").teachers == ()


def test_a_signal_of_a_teacher_brings_the_default_teacher() -> None:
    assert [t.name for t in spec_of("rest: pg(adv=gap)").teachers] == ["teacher"]


OBJECTIVES = """\
rest: grpo(clip=(0.2, 0.28), per=token)
rest: pg(adv=reward - mean(reward, over=group), per=const(1024))
rest: grpo(level=sequence, clip=(3e-4, 4e-4))
rest: cispo(high=0.28, per=token)
rest when top(entropy, 20%, over=batch): grpo(per=selected)
rest when source == model: grpo(per=selected)
rest: jsd(0.5, per=token)
rest: skl(0.1) + srkl(0.1)
rest when has(sibling) or has(feedback): jsd(0.5, topk=100, tail=bucket, w=min(ratio, 2), per=selected)
rest when wrong and has(sibling): fkl(w=exp(-teacher_entropy))
rest: pg(adv=A*(1 - schedule(.5, anneal=linear(50)) + 0.5*clip(exp(sign(A)*gap), .8, 1.2)))
rest: grpo() + rkl(w=0.5)
rest: grpo(anchor=mix(old, teacher, .5))
rest: grpo() + pg(adv=0.01*sigmoid(5*gap)*gap)
rest: pg(adv=1.25*(teacher_logp - base_logp) - (old_logp - base_logp))
rest when teacher_logp <= logp: fkl(topk=32, tail=renorm)
rest when teacher_entropy > .8: pg(adv=teacher_logp - old_logp) + fkl(topk=16, tail=drop)
rest when mean(teacher_logp, over=row) > quantile(mean(teacher_logp, over=row), 20%, over=batch): rkl()
rest when correct: nll(w=softmax(-mean(logp, over=row), over=group))
rest when latch(mean(teacher_entropy, over=batch) > 0.1, step > 100): pg(adv=A - (softplus(gap) - log(2))/2)
rest: rkl(w=exp(-0.1*cumcount(overlap < 0.5)))
rest when until(window_mean(gap, 5) > 2): pg(adv=reward_to_go(gap, 0.9))
rest: k3(to=ref, w=0.01) + entropy(w=0.001)
rest when random(25%, over=row): rkl()
"""


@pytest.mark.parametrize("line", OBJECTIVES.splitlines())
def test_published_objectives_can_be_said(line: str) -> None:
    spec_of(line)


@pytest.mark.parametrize("line", OBJECTIVES.splitlines())
def test_formulas_read_back_as_the_same_expression(line: str) -> None:
    spec = spec_of(line)
    for expr in (spec.routes[0].when, *(channel.weight for channel in spec.routes[0].channels)):
        if expr is not None and expr.rank is not Rank.CONSTANT:
            predicate = expr is spec.routes[0].when
            text = f"rest when {text_of(expr)}: none" if predicate else f"rest: grpo(w={text_of(expr)})"
            again = spec_of(text).routes[0]
            assert (again.when if predicate else again.channels[0].weight) == expr


# ---------------------------------------------------------------------------------------------------------- expressions


@pytest.mark.parametrize(
    ("text", "rank"),
    [
        ("2", Rank.CONSTANT),
        ("step", Rank.STEP),
        ("schedule(1)", Rank.STEP),
        ("group_size", Rank.GROUP),
        ("reward + step", Rank.ROW),
        ("A*gap", Rank.TOKEN),
        ("mean(gap, over=row)", Rank.ROW),
        ("mean(gap, over=group)", Rank.GROUP),
        ("sum(gap, over=batch)", Rank.STEP),
        ("softmax(reward, over=group)", Rank.ROW),
        ("where(correct, 1, 0)", Rank.ROW),
        ("cumcount(gap > 1)", Rank.TOKEN),
    ],
)
def test_ranks(text: str, rank: Rank) -> None:
    assert value_of(text).rank is rank


@pytest.mark.parametrize(
    ("text", "value"),
    [("1 - 2/4", 0.5), ("-(3)", -3.0), ("50%", 0.5), ("min(3, 1, 2)", 1.0), ("exp(0) + log(1)", 1.0)],
)
def test_constants_are_folded(text: str, value: float) -> None:
    assert value_of(text) == Constant(value=value)


def test_operators_bind_as_written() -> None:
    assert text_of(value_of("step - (step - 1)")) == "step - (step - 1)"
    assert text_of(value_of("(step - step) - 1")) == "step - step - 1"
    assert text_of(value_of("-(step + 1)*2")) == "-(step + 1)*2"
    when = spec_of("rest when not (correct or mixed) and wrong: none").routes[0].when
    assert when is not None
    assert text_of(when) == "not (correct or mixed) and wrong"


def test_weights_at_a_step() -> None:
    weight = value_of("where(step >= 10, 1 - kl/0.5, abs(-2))", "let kl = schedule(0.5, anneal=linear(20))\n")
    assert [weight_at_step(weight, Progress(step=s, total_steps=100)) for s in (0, 10, 15, 20)] == [2, 0.5, 0.75, 1]
    assert signals_of(weight) == {"step"}
    with pytest.raises(ValueError, match="measured"):
        weight_at_step(value_of("gap"), Progress(step=0, total_steps=1))
    with pytest.raises(ValueError, match="division by zero"):
        weight_at_step(value_of("1/step"), Progress(step=0, total_steps=1))


def test_a_batch_mean_has_step_rank_but_is_not_known_before_the_run() -> None:
    weight = value_of("mean(gap, over=batch)")
    assert weight.rank is Rank.STEP
    assert not is_known_before_run(weight)
    with pytest.raises(ValueError, match="measured"):
        weight_at_step(weight, Progress(step=0, total_steps=1))


def test_signals_of_another_teacher() -> None:
    before = "teacher = self(sync=1, sees=solution)\nteacher off = self(sync=1, sees=mismatched)\n"
    expr = value_of("teacher_logp - gap(off)", before)
    assert isinstance(expr, Operation)
    assert expr.args == (
        Signal(name="teacher_logp", rank=Rank.TOKEN, teacher="teacher"),
        Signal(name="gap", rank=Rank.TOKEN, teacher="off"),
    )
    assert text_of(expr) == "teacher_logp - gap(off)"


# --------------------------------------------------------------------------------------------------------------- losses


def test_schedule_keywords_next_to_w() -> None:
    channel = channel_of("fkl(w=0.3, start=5, ramp=10%, warmup=30 steps, anneal=exp(20%), floor=0.01)")
    assert channel.weight == Scheduled(
        schedule=Schedule(
            weight=0.3,
            start=Steps(5),
            ramp=RunFraction(0.1),
            warmup=Steps(30),
            anneal=Anneal(shape=Shape.EXP, length=RunFraction(0.2)),
            floor=0.01,
        )
    )
    tokens = channel_of("fkl(warmup=2e6 tokens)").weight
    assert tokens == Scheduled(schedule=Schedule(weight=1.0, warmup=Tokens(2e6)))


def test_defaults_of_losses() -> None:
    channel = channel_of("grpo()")
    assert channel.kernel == PolicyGradient(advantage=Signal(name="A", rank=Rank.ROW))
    assert channel.weight == Constant(value=1.0)
    assert channel.per == Per(PerKind.SEQUENCE)


@pytest.mark.parametrize(
    ("loss", "kernel"),
    [
        ("rkl(topk=8, of=student, tail=renorm)", Divergence(
            kind=DivergenceKind.RKL, top_k=TopK(k=8, of=SupportOf.STUDENT, tail=Tail.RENORM))),
        ("jsd(beta=0.3, temperature=2, pclip=0.05)", Divergence(
            kind=DivergenceKind.JSD, parameter=0.3, temperature=2.0, pclip=0.05)),
        ("skl(0.1)", Divergence(kind=DivergenceKind.SKL, parameter=0.1)),
        ("nll()", Nll()),
        ("entropy()", EntropyBonus()),
        ("k3()", K3("ref")),
        ("cispo(high=5)", Cispo(advantage=Signal(name="A", rank=Rank.ROW), high=5.0)),
        ("grpo(clip=0.1, dual=3, tis=2, level=sequence)", PolicyGradient(
            advantage=Signal(name="A", rank=Rank.ROW), clip_low=0.1, clip_high=0.1, dual=3.0, tis=2.0,
            level=RatioLevel.SEQUENCE)),
        ("pg(adv=reward, anchor=mix(old, teacher, 0.5))", PolicyGradient(
            advantage=Signal(name="reward", rank=Rank.ROW), anchor=MixAnchor("teacher", 0.5))),
    ],
)  # fmt: skip
def test_kernels(loss: str, kernel: object) -> None:
    assert channel_of(loss).kernel == kernel


def test_lets_stand_for_lengths_and_pairs_too() -> None:
    before = "let hold = 10%\nlet both = (0.1, 0.3)\n"
    channel = channel_of("grpo(warmup=hold, clip=both)", before)
    assert channel.weight == Scheduled(schedule=Schedule(weight=1.0, warmup=RunFraction(0.1)))
    assert isinstance(channel.kernel, PolicyGradient)
    assert (channel.kernel.clip_low, channel.kernel.clip_high) == (0.1, 0.3)


# --------------------------------------------------------------------------------------------------------- declarations


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("self(sync=3)", SelfTeacher(Sync(3))),
        ("self(ema=0.05)", SelfTeacher(Ema(0.05))),
        ("self(frozen)", SelfTeacher(Frozen())),
        ('model("a/b")', ModelTeacher("a/b")),
    ],
)
def test_teachers(text: str, source: object) -> None:
    teacher = spec_of(f"teacher = {text}\nrest: fkl()").teachers[0]
    assert (teacher.source, teacher.sees) == (source, Sees.NOTHING)


@pytest.mark.parametrize(
    ("text", "kind", "by_std"),
    [
        ("group", EstimatorKind.GROUP, True),
        ("group(center=mean, scale=none)", EstimatorKind.GROUP, False),
        ("loo", EstimatorKind.LEAVE_ONE_OUT, False),
        ("none", EstimatorKind.NONE, False),
    ],
)
def test_advantages(text: str, kind: EstimatorKind, by_std: bool) -> None:
    advantage = spec_of(f"advantage = {text}\nrest: grpo()").advantage
    assert (advantage.kind, advantage.scale_by_std) == (kind, by_std)
    assert spec_of("rest: grpo()").advantage == AdvantageEstimator()


def test_rollout_sources_and_rows() -> None:
    spec = spec_of(
        "rollouts hint = policy(sees=solution, when=all_wrong, n=2)\n"
        'rollouts old = cached("old.jsonl")\n'
        "rest when correct and rows == hint and has(solution): nll()\n"
        "rest when rows == old: nll()\n"
        "rest: grpo()\n"
    )
    assert [(r.name, r.sees, r.n, r.cached) for r in spec.rollouts] == [
        ("hint", Sees.SOLUTION, 2, None),
        ("old", Sees.NOTHING, 1, "old.jsonl"),
    ]
    assert [route.rows for route in spec.routes] == ["hint", "old", "policy"]
    when = spec.routes[0].when
    assert when is not None
    assert text_of(when) == "correct and has(solution)"
    assert spec.routes[1].when is None
