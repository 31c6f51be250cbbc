"""Rules about routes, weights, schedules and declarations: where each fires, and near misses."""

from __future__ import annotations

from tests.language import SHORTEST, facts
from tests.language.rule_cases.case import Case

DECAY = "let kl = schedule(0.5, warmup=10, anneal=linear(30))\n"

STATEMENTS = (
    Case(
        rule="shadowed-route",
        fires=(
            "rest: none\nkey: nll()",
            "key: none\nkey when correct: nll()\nrest: none",
            "key | error: none\nerror when wrong: nll()\nrest: none",
            "key when correct: none\nkey when correct: nll()\nrest: none",
            "key when correct: none\nkey when wrong: none\nkey: nll()\nrest: none",
            "key: none\nerror: none\nkey | error: nll()\nrest: none",
            "key when reward > 0: none\nkey when not reward <= 0: nll()\nrest: none",
            "rollouts r = policy()\nrest when rows == r: none\nkey when rows == r: nll()\nrest: none",
        ),
        misses=(
            "key: nll()\nrest: none",
            "key when correct: none\nkey: nll()\nrest: none",
            "error: none\nkey | error: nll()\nrest: none",
            "key when correct: none\nkey when wrong: nll()\nrest: none",
            "rollouts r = policy()\nrest when rows == r: none\nkey: nll()\nrest: none",
            "rest: grpo()\nrest when source == tool: nll()",
            "key when gap > 1: none\nkey when gap > 2: nll()\nrest: none",
            # where the teacher lacks what it sees, no comparison with its signals holds
            "key when gap > 1: none\nkey when not gap <= 1: nll()\nrest: none",
            "key when gap > 1: none\nkey when gap <= 1: none\nkey: nll()\nrest: none",
        ),
    ),
    Case(
        rule="no-default-route",
        fires=(
            "key: nll()",
            "key: nll()\nrest when correct: none",
            "rest when source == tool: nll()",
            "rest when gap > 0: nll()\nrest when gap <= 0: none",
            "rest when log(len) > 0: nll()\nrest when log(len) <= 0: none",
        ),
        misses=(
            "key: nll()\nrest: none",
            "rest when correct: none\nrest when wrong: grpo()",
            "rest when source == model: nll()",
            "teacher = self(frozen)\nrest when gap > 0: nll()\nrest when gap <= 0: none",
            "rest when has(diagnosis) and gap <= 0: nll()\nrest when gap > 0 or not has(diagnosis): none",
        ),
    ),
    Case(
        rule="nothing-trained",
        fires=("rest: none", "key: none\nerror when wrong: none\nrest: none", "let k = 1\nrest: none"),
        misses=("key: nll()\nrest: none", "rest: nll(w=0)", "key: nll(w=0)\nrest: none", "spans key"),
    ),
    Case(
        rule="route-falls-silent",
        fires=(
            "key: fkl(anneal=linear(30))\nrest: grpo()",
            "key: fkl(anneal=linear(50%)) + nll(w=schedule(1, anneal=step(10)))\nrest: grpo()",
            "key: nll(w=max(0, 1 - step/10))\nrest: grpo()",
            "key when step >= 5: nll(anneal=linear(30))\nrest: grpo()",
            "key when step < 40 or correct: nll(anneal=linear(30))\nrest: grpo()",
        ),
        misses=(
            "key: fkl(anneal=cos)\nrest: grpo()",
            "key: fkl(anneal=linear(30), floor=0.1)\nrest: grpo()",
            "key: fkl(anneal=linear(30)) + grpo()\nrest: grpo()",
            DECAY + "key: fkl(w=kl) + grpo(w=1 - kl/0.5)\nrest: grpo()",
            "key: fkl(anneal=linear(30)) + grpo(w=where(A > 0, 1, 0))\nrest: grpo()",
            "key: fkl(anneal=linear(2e6 tokens))\nrest: grpo()",
            "key: nll(w=0)\nrest: grpo()",
            "key: none\nrest: grpo()",
            "key when step < 30: nll(anneal=linear(30))\nrest: grpo()",  # from then on they fall through
        ),
        pedantic=True,
    ),
    Case(
        rule="unreachable-predicate",
        fires=(
            "key when correct and wrong: nll()\nrest: none",
            "key when all_wrong and correct: nll()\nrest: none",
            "key when mixed and (all_correct or all_wrong): nll()\nrest: none",
            "key when gap > 1 and gap <= 1: nll()\nrest: none",
            "key when 1 > 2: nll()\nrest: none",
            "rollouts r = policy(when=mixed and all_wrong)\nrest: none",
        ),
        misses=(
            "key when correct or wrong: nll()\nrest: none",
            "key when mixed and correct: nll()\nrest: none",
            "key when gap > 1 and gap <= 2: nll()\nrest: none",
        ),
    ),
    Case(
        rule="zero-weight",
        fires=(
            "rest: grpo(w=0)",
            "rest: grpo(w=schedule(0, warmup=10, anneal=linear))",
            "rest: grpo(w=step - step)",
            "rest: grpo(w=schedule(1, start=50))",
            "rest when step < 10: grpo(w=schedule(1, start=10))\nrest: nll()",
        ),
        misses=("rest: grpo(w=1e-9)", "rest: grpo(w=schedule(0, anneal=step(5), floor=1))", "rest: grpo(w=0*gap)"),
        run=facts(total_steps=50),
    ),
    Case(
        rule="undefined-weight",
        fires=(
            "rest: grpo(w=1/step)",
            "rest: grpo(w=log(10 - step))",
            "rest: grpo(w=exp(step*step))",
            # predicates, advantages, and what is measured in part
            "rest when 1/step > 0.25: grpo()\nrest: nll()",
            "rest when correct and 1/step > 0.25: grpo()\nrest: nll()",
            "rest when reward/step > 1: grpo()\nrest: nll()",
            "rest: grpo(w=where(A > 0, 1, 0)/step)",
            "rest: grpo(w=where(A > 0, 1/step, 0))",
            "rest: pg(adv=A/step)",
            "rest: nll(w=where(latch(step > 3, 1/step > 2), 1, 2))",
            "key when step == 5: nll()\nrest when 1/(step - 5) > 0: grpo()\nrest: nll()",
            "rest when step >= 3: grpo(w=1/(step - 3))\nrest: nll()",
        ),
        misses=(
            "rest: grpo(w=1/(step + 1))",
            "rest: grpo(w=where(step > 0, 1/step, 0))",
            "rest: grpo(w=1/reward)",
            "rest when step > 0: grpo(w=1/step)\nrest: grpo()",
            "rest when step > 0: grpo(w=where(A > 0, 1, 0)*(1/step))\nrest: nll()",
            "rest when step > 0: pg(adv=A/step)\nrest: nll()",
            "rest: pg(adv=A/step, start=1)",
            "rest when step > 0 and 1/step > 0.25: grpo()\nrest: nll()",
            "rest when 1/step > 0.25 and step > 0: grpo()\nrest: nll()",
            "rest when step == 0 or 1/step > 0.25: grpo()\nrest: nll()",
            "rest when step > 0 and reward/step > 0.1: grpo()\nrest: nll()",
            "rest: grpo(w=where(step > 0, A/step, 0))",
            "rest when step == 5: nll()\nrest when 1/(step - 5) > 0: grpo()\nrest: nll()",
        ),
    ),
    Case(
        rule="negative-kl-weight",
        fires=(
            "rest: fkl(w=-0.1)",
            "rest: k3(w=-0.1)",
            "rest: rkl(w=0.5, anneal=linear(30), floor=-0.1)",
            DECAY + "rest: fkl(w=0.4 - kl)",
            "rest: fkl(w=1 - schedule(1.001, ramp=100, anneal=step(1)))",
            "rest when step < 12: fkl(w=0.5 - step/20)\nrest: grpo()",
            "key when step >= 10: grpo()\nkey | error: fkl(w=0.5 - step/20)\nrest: grpo()",
        ),
        misses=(
            "rest: fkl(w=0.1)",
            DECAY + "rest: fkl(w=0.5 - kl)",
            DECAY + "rest: grpo(w=0.4 - kl)",
            "rest: entropy(w=-0.01)",
            "rest: fkl(w=max(0, 100 - step))",
            "rest when step < 10: fkl(w=0.5 - step/20)\nrest: grpo()",
            "key when step >= 10: grpo()\nkey: fkl(w=0.5 - step/20)\nrest: grpo()",
        ),
    ),
    Case(
        rule="negative-weight",
        fires=(
            "rest: grpo(w=-1)",
            "rest: entropy(w=-0.01)",
            "rest: nll(w=schedule(0.1, anneal=linear(5), floor=-0.1))",
            DECAY + "rest: grpo(w=0.4 - kl)",
        ),
        misses=(
            "rest: grpo(w=1)",
            DECAY + "rest: grpo(w=1 - kl/0.5)",
            "rest: fkl(w=-0.1)",
            "rest: grpo(w=where(A > 0, 1, -1))",
            "rest when step < 10: grpo(w=1 - step/20)\nrest: none",
        ),
    ),
    Case(
        rule="self-teacher-no-op",
        fires=("teacher = self(sync=1)\nrest: fkl()", "teacher = self(ema=1)\nrest: fkl()"),
        misses=(
            "teacher = self(sync=2)\nrest: fkl()",
            "teacher = self(sync=1, sees=solution)\nrest: fkl(anneal=cos)",
            "teacher = self(ema=0.9)\nrest: fkl()",
            "teacher = self(sync=1)\nrest: pg(adv=gap)",
        ),
    ),
    Case(
        rule="ema-rate-near-one",
        fires=("teacher = self(ema=0.999)\nrest: fkl()", "let r = 1 - 0.1\nteacher = self(ema=r)\nrest: fkl()"),
        misses=(
            "teacher = self(ema=0.001)\nrest: fkl()",
            "teacher = self(ema=0.89)\nrest: fkl()",
            "teacher = self(ema=1)\nrest: fkl()",
        ),
    ),
    Case(
        rule="unbounded-privileged-exposure",
        fires=(
            "rest: fkl()",
            "rest: fkl(w=0.5, warmup=10)",
            "rest: fkl(anneal=linear(30), floor=0.01)",
            "rest: fkl(w=sigmoid(gap))",
            DECAY + "rest: fkl(w=0.6 - kl)",
            "key when step < 20 or correct: fkl(w=0.5)\nrest: grpo()",
            "key when step >= 20: fkl(w=0.5)\nrest: grpo()",
        ),
        misses=(
            SHORTEST,
            "key when step < 20: fkl(w=0.5)\nkey: grpo()\nrest: grpo()",
            "key when step < 20 and correct: fkl(w=0.5)\nrest: grpo()",
            "key when step >= 2000: grpo()\nkey: fkl(w=0.5)\nrest: grpo()",
            DECAY + "rest: fkl(w=kl*sigmoid(gap))",
            "rest: fkl(warmup=5 tokens, anneal=cos(5 tokens))",
            "teacher = self(sync=10)\nrest: fkl()",
            "teacher = self(sync=10, sees=mismatched)\nrest: fkl()",
            "rest: fkl(w=where(step < 100, 1, 0))",
            "rest: pg(adv=gap)",
        ),
    ),
    Case(
        rule="teacher-unused",
        fires=(
            "teacher = self(sync=3)\nrest: grpo()",
            "teacher a = self(frozen)\nteacher b = self(frozen)\nrest: fkl(teacher=a)",
        ),
        misses=(
            "teacher = self(sync=3)\nrest: fkl()",
            "teacher a = self(frozen)\nrest: grpo(anchor=mix(old, a, .5))",
            "teacher a = self(frozen)\nrest when gap > 1: none\nrest: none",
            "teacher a = self(frozen)\nrest: pg(adv=gap(a))",
        ),
    ),
    Case(
        rule="unused-let",
        fires=("let a = 1\nrest: none", "let a = 1\nlet b = a\nrest: none"),
        misses=(
            "let a = 1\nrest: grpo(w=a)",
            "let a = 10%\nrest: grpo(w=1, warmup=a)",
            "let a = 1\nlet b = a\nrest: grpo(w=b)",
        ),
    ),
    Case(
        rule="cap-exceeds-one",
        fires=("spans key(cap=25)\nkey: none\nrest: none", "spans key(cap=101%)\nkey: none\nrest: none"),
        misses=(
            "spans key(cap=25%)\nkey: none\nrest: none",
            "spans key(cap=1)\nkey: none\nrest: none",
            "spans key\nkey: none\nrest: none",
        ),
    ),
    Case(
        rule="schedule-exceeds-run",
        fires=(
            DECAY + "rest: grpo(w=kl) + nll(w=kl)",
            "rest: grpo(w=schedule(1, ramp=39))",
            "rest: grpo(w=schedule(1, start=50))",
            "rest: pg(adv=A*schedule(1, ramp=100%))",
        ),
        misses=(
            "rest: grpo(w=schedule(1, warmup=9, anneal=linear(30)))",
            "rest: grpo(w=schedule(1, warmup=50%, anneal=cos))",
            "rest: grpo(w=schedule(1, warmup=1e9 tokens))",
            DECAY + "rest: grpo()",
        ),
        run=facts(total_steps=39),
    ),
    Case(
        rule="anneal-never-reached",
        fires=("rest: grpo(w=1, warmup=39, anneal=cos)", "rest: grpo(w=1, warmup=100, anneal=linear(30))"),
        misses=("rest: grpo(w=1, warmup=38, anneal=cos)", "rest: grpo(w=1, warmup=100)"),
        run=facts(total_steps=39),
    ),
)
