"""Words and habits of other systems are met with what is written here."""

from __future__ import annotations

import pytest

from tests.language import rules_of
from tests.language.resolving import errors_of
from trace_dsl.lint import lint_text, parse_spec


@pytest.mark.parametrize(
    ("text", "underlined", "fix"),
    [
        (
            "rest: grpo(beta=0.04)",
            "beta",
            "+ rkl(teacher=ref, w=0.04), with the line `teacher ref = self(frozen)`; or + k3(",
        ),
        ("rest: pg(adv=A, kl_coef=x)", "kl_coef", "or + k3(ref, w=0.01)"),
        ("rest: cispo(high=3, entropy_coeff=0.002)", "entropy_coeff", "cispo(...) + entropy(w=0.002)"),
        ("rest: grpo(loss_type=dapo)", "loss_type", "write per=token"),
        ('rest: grpo(loss_agg_mode="seq-mean-token-sum-norm")', "loss_agg_mode", "write per=const(n)"),
        ("rest: grpo(loss_agg_mode=seq-mean-token-sum)", "loss_agg_mode", "write per=const(1)"),
        ("rest: grpo(loss_type=x)", "loss_type", "per=sequence, token, selected, const(n)"),
        ("rest: grpo(scale_rewards=False)", "scale_rewards", "`advantage = group(scale=none)`"),
        ("rest: grpo(scale_rewards=True)", "scale_rewards", "`advantage = group(scale=std)`"),
        ("advantage = group(scale_rewards=False)\nrest: grpo()", "scale_rewards", "scale=none"),
        ("advantage = group(normalize_std=False)\nrest: grpo()", "normalize_std", "write scale=none"),
        ("rest: rkl(warmup_ratio=0.1)", "warmup_ratio", "`ramp=10%` rises linearly"),
        ("rest: grpo(warmup_steps=10)", "warmup_steps", "`warmup` is a hold here"),
        ("rest: grpo(beta=0.0)", "beta", "take it out"),
        ("key: rkl()\nrest: grpo(beta=0.1)", "beta", "name no teacher, `teacher = self(sync=10, sees=diagnosis)`"),
        ("rest: grpo(lam=0.95)", "lam", "there is no value model"),
        ("rest: grpo(lambd=0.95)", "lambd", "there is no value model"),
        ("rest: grpo(normalize_reward=False)", "normalize_reward", "`advantage = group(scale=none)`"),
        ("rest: grpo(clip=none)", "none", "write clip=(1, 1e6), which never acts"),
        ("rest: pg(clip=False, adv=gap)", "False", "write clip=(1, 1e6), which never acts"),
        ("rest: pg(clip=inf, adv=gap)", "inf", "write clip=(1, 1e6), which never acts"),
        ("rest: grpo(per=none)", "none", "write per=const(1): the sum over each response"),
        ("rest: grpo(per=sum)", "sum", "write per=const(1): the sum over each response"),
        ('rest: grpo(loss_type="sum")', "loss_type", "write per=const(1): the sum over each response"),
        ("rest: rkl(hold=10)", "hold", "did you mean `warmup`?"),
        ("advantage = gae(gamma=1)\nrest: grpo()", "gae", "there is no value model"),
        ("advantage = dr_grpo\nrest: grpo()", "dr_grpo", "write group(scale=none)"),
        ("advantage = reinforce_baseline\nrest: grpo()", "reinforce_baseline", "write group(scale=none)"),
        ("advantage = grpo\nrest: grpo()", "grpo", "did you mean `group`?"),
        ("rest: pg(adv=A/std(reward, over=group))", "std", "write sqrt(mean((x - m)*(x - m), over=group))"),
        ("rest: pg(adv=relu(gap))", "relu", "write max(x, 0)"),
        ("rest: pg(adv=clamp(gap, 0, 1))", "clamp", "write clip(x, lo, hi)"),
        ("rest: grpo(w=linear(0.5, 0, 30))", "linear", "schedule(0.5, anneal=linear(30))"),
        ("rest: grpo(w=cosine(0.5))", "cosine", "schedule(0.5, anneal=cos(30))"),
        ("rest: grpo(w=warmup(10))", "warmup", "schedule(0.5, ramp=10, warmup=10, anneal=linear(30))"),
        ("rest when R > 0.5: grpo()\nrest: none", "R", "did you mean `reward`?"),
        ("rest: grpo(gamma=0.95)", "gamma", "there is no value model"),
        ("rest: grpo(eps_low=0.1)", "eps_low", "clip=(0.1, 0.2)"),
        ("rest: grpo(eps_high=3e-1)", "eps_high", "clip=(0.2, 3e-1)"),
        ("rest: grpo(clip=0.1, clip_higher=0.3)", "clip_higher", "clip=(0.1, 0.3)"),
        ("rest: grpo(beta=1e-3)", "beta", "rkl(teacher=ref, w=1e-3)"),
        ("rest: grpo(beta=4%)", "beta", "k3(ref, w=4%)"),
        ("let b = 0.3\nrest: grpo(beta=b)", "beta", "k3(ref, w=b)"),
        ("rest: grpo(entropy_coeff=1e-2)", "entropy_coeff", "entropy(w=1e-2)"),
        ("rest: grpo(entropy_coeff=0)", "entropy_coeff", "take it out"),
        ("rest: grpo(use_kl_loss=False)", "use_kl_loss", "take it out"),
        ("rest: kl_penalty(w=0)", "kl_penalty", "take it out"),
        ("rest: k3(beta=0.04)", "beta", "k3(ref, w=0.04)"),
        ("rest: cispo(high=3, clip=(0.2, 0.3))", "clip", "high=0.3"),
        ("rest: cispo(high=3, epsilon_low=0.2)", "epsilon_low", "take it out"),
        ("rest: nll(warmup_steps=1e3)", "warmup_steps", "`ramp=1000`"),
        ("rest: nll(warmup_steps=0.5)", "warmup_steps", "`ramp=10`"),
        ("rest: nll(warmup_ratio=0.05)", "warmup_ratio", "`ramp=5%`"),
        ("rest: grpo(per=dr_grpo)", "dr_grpo", "write per=const(n) with n the longest response"),
        ("rest: grpo(per=gspo)", "gspo", "write level=sequence"),
        ("rest when epoch < 3: grpo()", "epoch", "optimizer steps and no epochs"),
        ("teacher = student\nrest: fkl()", "student", "write self(sync=10)"),
        ("rest: grpo(clip_higher=0.28)", "clip_higher", "clip=(0.2, 0.28)"),
        ("rest: grpo(eps_clip_high=0.28)", "eps_clip_high", "clip=(0.2, 0.28)"),
        ("rest: cispo(eps_clip_high=0.28)", "eps_clip_high", "`high`"),
        ("rest: fkl(direction=reverse)", "direction", "write rkl(...)"),
        ("rest: fkl(kl_type=x)", "kl_type", "the direction is the loss"),
        ("rest: grpo(mask_truncated_completions=True)", "mask_truncated_completions", "len < 4096"),
        ("teacher = self(update_every=10)\nrest: none", "update_every", "`sync`"),
        ("teacher = self(sync=1, context=solution)\nrest: none", "context", "`sees`"),
        ("spans error(max=25%)\nrest: none", "max", "`cap`"),
        ("rest: kl(ref, w=0.02)", "kl", "write rkl(teacher=ref, w=0.02), with the line"),
        ("rest: kl_penalty(w=0.02)", "kl_penalty", "k3(ref, w=0.02)"),
        ("rest: sdpo()", "sdpo", "`teacher = self(ema=0.05, sees=feedback)`"),
        ("rest: gkl(lambda=0.5, beta=0.5)", "gkl", "jsd(beta)"),
        ("rest: grpo(w=student_entropy)", "student_entropy", "`entropy`"),
        ("rest: grpo(w=H)", "H", "`entropy`"),
        ("rest: grpo(w=kl_div)", "kl_div", "a KL is a loss"),
        ("rest: grpo(w=kl_div(ref))", "kl_div", "a KL is a loss"),
        ("rest: grpo(clip=20)", "20", "write clip=20%"),
        ("rest: grpo(clip=(20, 28))", "20", "clip=(20%, 28%)"),
        ("rest: grpo(clip=1.2)", "1.2", "clip=0.2 keeps"),
        ("rest: grpo(clip=300)", "300", "clip=(0.2, 0.28)"),
        ("rest: grpo(tis=True)", "True", "tis=2"),
        ("rest: grpo(tis=false)", "false", "take it out"),
        ("rest: grpo(adv_estimator=rloo)", "adv_estimator", "`advantage = loo`"),
        ("rest: grpo(epsilon=0.2)", "epsilon", "`clip`"),
        ("rest: grpo(clip_ratio_high=0.28)", "clip_ratio_high", "clip=(0.2, 0.28)"),
        ("rest: cispo(clip_ratio_high=0.28)", "clip_ratio_high", "`high`"),
        ("rest: grpo(clip_ratio_c=3)", "clip_ratio_c", "`dual`"),
        ("rest: grpo(learning_rate=1)", "learning_rate", "optim.lr"),
        ("rest: fkl(beta=0.5)", "beta", "jsd(beta)"),
        ("rest: skl(alpha=0.1)", "alpha", "`a`"),
        ("teacher = self(decay=0.99)\nrest: none", "decay", "ema=1 - decay"),
        ("rest: grpo(w=schedule(1, warmup_steps=10))", "warmup_steps", "`ramp=10` rises linearly"),
        ("rest: dapo()", "dapo", "when mixed"),
        ("rest: gspo()", "gspo", "level=sequence"),
        ("rest: k1()", "k1", "k3(ref"),
        ("rest: grpo(w=is_correct)", "is_correct", "`correct`"),
        ("rest: grpo(w=avg(A, over=group))", "avg", "`mean`"),
        ("rest: grpo(w=sg(A))", "sg", "are detached"),
        ("rest: grpo(w=detach)", "detach", "are detached"),
    ],
)
def test_words_of_other_systems(text: str, underlined: str, fix: str) -> None:
    (found,) = parse_spec(text)[1]
    assert [words for _, words in errors_of(text)] == [underlined]
    assert fix in found.fix


@pytest.mark.parametrize(
    ("text", "underlined", "fix", "written"),
    [
        ('rest: grpo(w=mean(A, over="batch"))', '"batch"', "drop the quotes", "batch"),
        ('rest: fkl(topk=3, tail="bucket")', '"bucket"', "drop the quotes", "bucket"),
        ('rest: fkl(anneal="cos")', '"cos"', "drop the quotes", "cos"),
        ('rest: grpo(per="token-mean")', '"token-mean"', "`token`", "token"),
        ("rest: grpo(per=token-mean)", "token-mean", "`token`", "token"),
        ("rest: grpo(w=mean(A, over=prompt))", "prompt", "`group`", "group"),
        ("teacher = model(Qwen/Qwen3)\nrest: none", "Qwen/Qwen3", 'write "Qwen/Qwen3"', '"Qwen/Qwen3"'),
        ('teacher = model("")\nrest: none', '""', 'write "..."', None),
        ("rest: fkl(topk=3, tail=3)", "3", "bucket", None),
    ],
)
def test_quotes_and_dashes(text: str, underlined: str, fix: str, written: str | None) -> None:
    (found,) = parse_spec(text)[1]
    assert [words for _, words in errors_of(text)] == [underlined]
    assert fix in found.fix
    assert (found.replacement.text if found.replacement else None) == written


@pytest.mark.parametrize(
    ("predicate", "underlined", "fix"),
    [
        ("True", "True", "without `when`"),
        ("correct == True", "correct == True", "write `correct`"),
        ("correct != true", "correct != true", "write `not correct`"),
        ("False == correct", "False == correct", "write `not correct`"),
        ("correct > 0", "correct > 0", "write `correct`"),
        ("1 > correct", "1 > correct", "write `not correct`"),
        ("mixed >= 0", "mixed >= 0", "write `mixed` or `not mixed`"),
        ("reward == True", "True", "as a number write 1"),
        ("mean(correct, over=group) > 0.5", "correct", "where(correct, 1, 0)"),
        ("reward", "reward", "`reward > 0`"),
        ('source == "tool"', '"tool"', "write tool"),
        ("source == assistant", "assistant", "`model`"),
        ('"user" != source', '"user"', "known here: model, tool"),
        ("label == 3", "label", "a route starts with its labels"),
        ('"correct"', '"correct"', "drop the quotes: correct"),
        ('reward == "high"', '"high"', "model(...)"),
        ("top(entropy, 20, over=row)", "20", "write 20%"),
        ("top(entropy, 20%)", "top(entropy, 20%)", "over=row or over=group or over=batch"),
        ("random(300, over=row)", "300", "such as 20%"),
    ],
)
def test_predicates(predicate: str, underlined: str, fix: str) -> None:
    text = f"rest when {predicate}: none"
    (found,) = parse_spec(text)[1]
    assert [words for _, words in errors_of(text)] == [underlined]
    assert fix in found.fix


@pytest.mark.parametrize(
    "text",
    [
        "let True = 1\nrest when reward == True: none",
        "let correct_ = 1\nrest when reward == correct_: none",
        "rest when where(correct, 1, 0) == 1 and reward == 1 and source != tool: none",
        "rest when mean(where(correct, 1, 0), over=group) > 0.5 and top(entropy, 1, over=row): none",
        "let label = 3\nrest when len > label: none",
        "rest: skl(a=0.1) + jsd(beta=0.5)",
    ],
)
def test_what_only_looks_like_a_habit(text: str) -> None:
    assert errors_of(text) == []


@pytest.mark.parametrize(
    ("label", "meant"), [("Key", "key"), ("ERROR", "error"), ("REST", "rest"), ("else", "rest"), ("default", "rest")]
)
def test_labels_in_another_spelling(label: str, meant: str) -> None:
    text = f"{label}: nll()\nrest: none" if meant != "rest" else f"key: nll()\n{label}: none"
    (found,) = lint_text(text).diagnostics
    assert (found.rule, found.fix.split("`")[1]) == ("unknown-span", meant)
    assert found.replacement is not None
    assert found.replacement.text == meant
    declared = "spans Key, ERROR, REST, else, default\n"
    assert rules_of(f"{declared}{label}: nll()\nrest: none") == []


@pytest.mark.parametrize("label", ["key", "error", "Step", "keys", "restart"])
def test_labels_that_are_somebodys_own(label: str) -> None:
    assert rules_of(f"{label}: nll()\nrest: none") == []


def test_a_sync_of_zero_is_told_what_to_write() -> None:
    (found,) = parse_spec("teacher = self(sync=0)\nrest: none")[1]
    assert "`frozen`" in found.fix
    assert "sync=1" in found.fix


def test_a_teacher_of_the_start_gets_a_name_that_is_free() -> None:
    named = "".join(f"teacher {name} = self(sync={5 + i})\n" for i, name in enumerate(("ref", "start", "start_policy")))
    (found,) = (d for d in lint_text(f"{named}rest: grpo(beta=0.1)").diagnostics if d.rule == "unknown-argument")
    assert "teacher start_2 = self(frozen)" in found.fix


@pytest.mark.parametrize(
    "arguments",
    ["clip_ratio_low=0.1, clip_ratio_high=0.3", "epsilon=0.1, epsilon_high=0.3", "eps_high=0.3, eps_low=0.1"],
)
def test_both_sides_of_a_clip_are_taken_from_the_call(arguments: str) -> None:
    assert any("clip=(0.1, 0.3)" in found.fix for found in parse_spec(f"rest: grpo({arguments})")[1])


@pytest.mark.parametrize("call", ["teacher = self(sync=1, {})\nrest: none", "rest: grpo(w=mean(A, over=group, {}))"])
def test_a_warm_up_is_a_ramp_only_where_there_are_ramps(call: str) -> None:
    assert all("ramp" not in found.fix for found in parse_spec(call.format("warmup_steps=10"))[1])


def test_a_fourth_teacher_may_be_the_start_of_the_run() -> None:
    taken = "".join(f"teacher {name} = self(sync=1)\n" for name in ("ref", "start", "start_2"))
    (found,) = parse_spec(f"{taken}rest: grpo(beta=0.1)")[1]
    assert "`teacher start_3 = self(frozen)`" in found.fix
