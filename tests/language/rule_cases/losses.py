"""Rules about kernels, advantages and what a run has: where each fires, and near misses."""

from __future__ import annotations

from pathlib import Path

from tests.language import SHORTEST, TRACE, facts
from tests.language.rule_cases.case import Case
from trace_dsl.facts import StoredTeacher

MODELS = Path(__file__).parents[1] / "models"
BIG = 'teacher big = model("Qwen/Qwen3-32B")\n'
OLD = BIG + 'rollouts old = cached("old.jsonl")\n'
WIDE = BIG + 'rollouts wide = cached("wide.jsonl")\n'

LOSSES = (
    Case(
        rule="dead-advantage",
        fires=("rest: grpo()", "advantage = loo\nrest: cispo(high=5)", "rest: pg(adv=A*gap)"),
        misses=("advantage = none\nrest: grpo()", "rest: pg(adv=reward)", "rest: nll()"),
        run=facts(group_size=1),
    ),
    Case(
        rule="span-never-annotated",
        fires=(
            "kye: nll()\nrest: none",
            "key | err: nll()\nrest: none",
            "kye when correct: nll()\nkye: none\nrest: none",
        ),
        misses=("key | error: nll()\nrest: none", "spans other\nrest: none"),
        run=facts(),
    ),
    Case(
        rule="teacher-context-missing",
        fires=(
            "teacher = self(sync=9, sees=solution)\nrest: fkl()",
            "rollouts r = policy(sees=solution)\nrest: none",
        ),
        misses=("teacher = self(sync=9, sees=diagnosis)\nrest: fkl()", "teacher = self(sync=9)\nrest: fkl()", SHORTEST),
        run=facts(),
    ),
    Case(
        rule="span-text-leak",
        fires=(
            "teacher = self(sync=9, sees=diagnosis)\nrest: fkl()",
            "rollouts r = policy(sees=diagnosis)\nrest: none",
        ),
        misses=("teacher = self(sync=9, sees=solution)\nrest: fkl()", "teacher = self(sync=9)\nrest: fkl()"),
        run=facts(
            contexts=("diagnosis", "solution"),
            context_fields=(("diagnosis", ("diagnosis", "span", "prompt")), ("solution", ("prompt", "solution"))),
        ),
    ),
    Case(
        rule="topk-without-tail",
        fires=("rest: fkl(topk=9)",),
        misses=("rest: fkl(topk=9, tail=drop)", "rest: fkl()"),
    ),
    Case(
        rule="rkl-on-teacher-topk",
        fires=("rest: rkl(topk=9)", "rest: srkl(0.1, topk=9, tail=bucket)"),
        misses=("rest: rkl(topk=9, of=student)", "rest: fkl(topk=9)", "rest: rkl()"),
    ),
    Case(rule="hard-pclip", fires=("rest: fkl(pclip=0.05)",), misses=("rest: fkl()",)),
    Case(
        rule="clip-bounds-as-ratios",
        fires=("rest: grpo(clip=(0.8, 1.28))", "let c = (0.9, 1.1)\nrest: pg(adv=A, clip=c)"),
        misses=(
            "rest: grpo(clip=(0.2, 0.28))",
            "rest: grpo(clip=0.8)",
            "rest: grpo(clip=(1, 2))",
            "rest: grpo(clip=(0.2, 1.28))",
            "rest: grpo(clip=(0.8, 5))",
        ),
    ),
    Case(
        rule="jsd-near-endpoint",
        fires=("rest: jsd(0.049)", "rest: jsd(0.951)"),
        misses=("rest: jsd(0.05)", "rest: jsd(0.95)", "rest: skl(0.01)"),
    ),
    Case(
        rule="state-only-advantage",
        fires=(
            "rest: pg(adv=entropy)",
            "rest: pg(adv=teacher_entropy)",
            "rest: pg(adv=overlap)",
            "rest: cispo(adv=overlap, high=5)",
            "rest: pg(adv=1)",
            "rest when mixed and pos < 100: pg(adv=1 - overlap)",
            "rest: pg(adv=entropy - mean(entropy, over=batch))",
            "rest: pg(adv=window_mean(teacher_entropy, 8), w=exp(-entropy))",
            "rest: pg(adv=where(pos > 3, overlap, 0), tis=2)",
        ),
        misses=(
            "rest: pg(adv=A*entropy)",
            "rest: pg(adv=gap)",
            "rest: pg(adv=reward)",
            "rest: pg(adv=reward_to_go(entropy, 1))",
            "rest: pg(adv=mean(entropy, over=row))",
            "rest when correct: pg(adv=1)\nrest: none",
            "key: pg(adv=overlap)\nrest: none",
            "rest: pg(adv=overlap, w=where(correct, 1, 0))",
            "rest: pg(adv=entropy, anchor=mix(old, teacher, 0.5))",
            "rollouts r = policy(sees=solution)\nrest when rows == r: pg(adv=entropy)\nrest: none",
            "rest: grpo(w=exp(-teacher_entropy))",
            "rest: entropy(w=0.01)",
        ),
    ),
    Case(
        rule="advantage-whitened-after-kl",
        fires=(
            "rest: pg(adv=(gap - mean(gap, over=group))/sqrt(mean(gap*gap, over=group)))",
            "let x = reward + 0.1*mean(gap, over=row)\n"
            "rest: pg(adv=(x - mean(x, over=group))/(sqrt(mean(x*x, over=group)) + 1e-6))",
            "rest: cispo(adv=(reward + ref_logp)/max(abs(ref_logp), over=batch), high=5)",
        ),
        misses=(
            "rest: pg(adv=A + 0.1*gap)",
            "rest: pg(adv=gap - mean(gap, over=group))",
            "rest: pg(adv=(reward - mean(reward, over=group))/sqrt(mean(reward*reward, over=group)) + gap)",
            "rest: pg(adv=gap/5)",
            "rest: pg(adv=gap/max(abs(gap), over=row))",
            "rest: nll(w=gap/max(abs(gap), over=group))",
            "rest: pg(adv=A/max(abs(gap), over=group))",
        ),
    ),
    Case(
        rule="teacher-independent-gradient",
        fires=(
            "rest: fkl(topk=1, tail=renorm)",
            "rest: rkl(topk=1, of=student, tail=renorm)",
            "rest: skl(0.99)",
            "rest: srkl(0.999)",
            "rest: grpo(anchor=mix(old, teacher, 0.99))",
            "rest: pg(adv=A + 0*gap)",
            "rest: pg(adv=A*clip(exp(gap), 1, 1))",
            "let a = teacher_logp - logp\nrest: pg(adv=A + (a - a))",
            "rest: pg(adv=A*where(correct, gap/gap, 1))",
            "rest: pg(adv=where(1 > 2, gap, A))",
            "rest: nll(w=where(min(teacher_entropy, teacher_entropy) > teacher_entropy, 1, 0))",
            "teacher = self(sync=1)\nrest: pg(adv=gap)",
            "teacher = self(sync=1)\nrest: grpo(w=exp(-teacher_entropy))",
        ),
        misses=(
            "rest: fkl(topk=1, tail=bucket)",
            "rest: fkl(topk=2, tail=renorm)",
            "rest: skl(0.9)",
            "rest: jsd(0.99)",
            "rest: grpo(anchor=mix(old, teacher, 0.9))",
            "rest: pg(adv=A + 0.01*gap)",
            "rest: pg(adv=A*clip(exp(gap), 0.8, 1.2))",
            "let L = schedule(0.5, anneal=linear(50))\nrest: pg(adv=A*((1 - L) + L*clip(exp(sign(A)*gap), .8, 1.2)))",
            "teacher = self(sync=2)\nrest: pg(adv=gap)",
            "teacher = self(sync=1, sees=solution)\nrest: pg(adv=gap)",
        ),
    ),
    Case(
        rule="vocab-mismatch",
        fires=(
            f'teacher = model("{MODELS}/other")\nrest: fkl()',
            f'teacher = model("{MODELS}/nested")\nrest: fkl()',
        ),
        misses=(
            f'teacher = model("{MODELS}/same")\nrest: fkl()',
            f'teacher = model("{MODELS}/silent")\nrest: fkl()',
            f'teacher = model("{MODELS}/broken")\nrest: fkl()',
            f'teacher = model("{MODELS}/absent")\nrest: fkl()',
            'teacher = model("Qwen/Qwen3-32B")\nrest: fkl()',
            "rest: fkl()",
        ),
        run=facts(),
    ),
    Case(
        rule="stop-token-mismatch",
        fires=(
            f'teacher = model("{MODELS}/chat")\nrest: fkl()',
            f'teacher = model("{MODELS}/nested")\nrest: fkl()',
        ),
        misses=(
            f'teacher = model("{MODELS}/same")\nrest: fkl()',
            f'teacher = model("{MODELS}/silent")\nrest: fkl()',
            f'teacher = model("{MODELS}/broken")\nrest: fkl()',
            'teacher = model("Qwen/Qwen3-32B")\nrest: fkl()',
            "rest: fkl()",
        ),
        run=facts(),
    ),
    Case(
        rule="payload-too-weak",
        fires=(
            OLD + "rest when rows == old: fkl(teacher=big)\nrest: grpo()",
            OLD + "rest when rows == old: rkl(teacher=big, topk=8, tail=bucket)\nrest: grpo()",
            OLD + "rest when rows == old: pg(adv=gap(big), w=exp(-teacher_entropy(big)))\nrest: grpo()",
            OLD + "rest when rows == old and overlap(big) > 0.5: pg(adv=gap(big))\nrest: grpo()",
            WIDE + "rest when rows == wide: jsd(0.5, teacher=big)\nrest: grpo()",
            WIDE + "rest when rows == wide: fkl(teacher=big, topk=65, tail=bucket)\nrest: grpo()",
            WIDE + "rest when rows == wide: rkl(teacher=big, topk=8, of=student, tail=bucket)\nrest: grpo()",
        ),
        misses=(
            OLD + "rest when rows == old: pg(adv=gap(big))\nrest: grpo()",
            OLD + "rest when rows == old: nll(w=teacher_logp(big))\nrest: grpo()",
            OLD + "teacher live = self(sync=9)\nrest when rows == old: fkl(teacher=live)\nrest: pg(adv=gap(big))",
            OLD + "rest when rows == old: none\nrest: fkl(teacher=big)",
            WIDE + "rest when rows == wide: fkl(teacher=big, topk=64, tail=bucket)\nrest: grpo()",
            BIG + 'rollouts full = cached("full.jsonl")\nrest when rows == full: fkl(teacher=big)\nrest: grpo()',
            BIG + 'rollouts other = cached("x.jsonl")\nrest when rows == other: fkl(teacher=big)\nrest: grpo()',
        ),
        run=facts(
            stored=(
                StoredTeacher(rollouts="old", teacher="big", top_k=0),
                StoredTeacher(rollouts="wide", teacher="big", top_k=64),
                StoredTeacher(rollouts="full", teacher="big", top_k=None),
            )
        ),
    ),
    Case(
        rule="stop-token-untrained",
        fires=(
            "key: nll()\nrest: none",
            "key: nll()",
            "key: nll()\nrest: grpo(w=0)",
            "key: nll()\nrest: grpo(w=schedule(1, start=300))",
            "key: nll()\nrest when source == tool: nll()\nrest: none",
        ),
        misses=(
            "key: none\nrest: nll()",
            "key: nll()\nrest when correct: grpo()\nrest: none",
            "key: nll()\nrest: grpo(w=schedule(1, start=299))",
            "rollouts r = policy()\nkey: nll()\nrest when rows == r: nll()\nrest: none",
            "rest: none",
            "key: nll()\nrest: grpo(w=0) + entropy(w=0.01)",
        ),
        run=facts(),
    ),
    Case(
        rule="mixed-denominator",
        fires=(
            "rest: grpo(per=token) + nll()",
            "key: nll(per=selected)\nrest: grpo()",
            "key: nll(per=const(10))\nrest: grpo(per=const(20))",
            "key: nll(per=selected)\nerror: nll()\nrest: grpo()",
        ),
        misses=(TRACE, "rest: grpo(per=token) + nll(per=token)", "key: nll(per=const(10))\nrest: grpo(per=const(10))"),
        pedantic=True,
    ),
    Case(
        rule="direction-vs-condition",
        fires=(
            "error when wrong: fkl()\nrest: grpo()",
            "rest when all_wrong: skl(0.1)\nrest: grpo()",
            "key when correct: rkl()\nrest: grpo()",
            "key when correct and has(sibling): srkl(0.1)\nrest: grpo()",
        ),
        misses=(
            "key when correct: fkl()\nerror when wrong: rkl()\nrest: grpo()",
            "error when wrong or pos > 3: fkl()\nrest: grpo()",
            "rest when mixed: rkl()\nrest: grpo()",
            "key when correct: jsd(0.5)\nrest: grpo()",
        ),
        pedantic=True,
    ),
    Case(
        rule="zero-variance-groups-kept",
        fires=(
            "rest: grpo(per=token)",
            "rest: grpo(per=selected)",
            "rest when mixed: grpo(per=token)\nrest: none",
            "rest when correct: cispo(high=5, per=selected)\nrest: none",
        ),
        misses=(
            "rest when mixed: grpo(per=selected)\nrest: none",
            "rest: grpo()",
            "rest: pg(adv=gap, per=token)",
            "advantage = none\nrest: grpo(per=token)",
            "rest: nll(per=token)",
        ),
        pedantic=True,
    ),
)
