"""What the words of the language mean: arguments with their defaults, functions, kernels' formulas, one example each.

Names, ranks and which call takes which argument are in `trace_dsl.vocabulary`; here is what people are told about them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ArgumentText:
    """`takes`: what may be given; `default`: what stands when it is not, "" where it must be or nothing stands."""

    takes: str
    meaning: str
    default: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WordText:
    """A loss, function or statement: how it is written, what it gives, and an example that lints."""

    usage: str
    meaning: str
    example: str


def _argument(takes: str, meaning: str, default: str = "") -> ArgumentText:
    return ArgumentText(takes=takes, meaning=meaning, default=default)


def _word(usage: str, meaning: str, example: str) -> WordText:
    return WordText(usage=usage, meaning=meaning, example=example)


_LENGTH = "`30` or `30 steps`, `10%`, `2e6 tokens`"

LOSS_ARGUMENTS: dict[str, ArgumentText] = {
    "w": _argument("a number or an expression", "multiplies the loss; it is detached", "1"),
    "start": _argument(_LENGTH, "the weight is zero before", "0"),
    "ramp": _argument(_LENGTH, "goes linearly from 0 up to w, after start", "0"),
    "warmup": _argument(_LENGTH, "holds the weight at w, after ramp", "0"),
    "anneal": _argument(
        "`linear`, `cos`, `exp` or `step`, with a length as in `linear(30)`",
        "goes down from w to floor, after warmup; without a length until the end of the run",
        "none: w stays",
    ),
    "floor": _argument("a number", "where the anneal ends", "0"),
    "per": _argument(
        "`sequence`, `token`, `selected` or `const(n)`",
        "the denominator, over the global batch: each response then the mean of responses, all response tokens that "
        "the model wrote, the tokens the route takes, or n times the responses",
        "sequence",
    ),
    "topk": _argument("a whole number", "evaluates the divergence on the k likeliest tokens", "none: full vocabulary"),
    "of": _argument("`teacher` or `student`", "whose likeliest tokens topk takes", "teacher"),
    "tail": _argument(
        "`bucket`, `renorm` or `drop`",
        "what becomes of the tokens outside topk: one bucket, renormalised away, or dropped",
        "drop, with a finding: see the rule topk-without-tail",
    ),
    "temperature": _argument("a number above 0", "of both distributions", "the run's sampling temperature"),
    "pclip": _argument("a number above 0", "cuts off each vocabulary term; see the rule hard-pclip", "none"),
    "teacher": _argument("the name of a teacher", "which teacher the loss reads", "teacher"),
    "clip": _argument("`(lo, hi)`, or one number for both", "keeps the ratio within 1 - lo and 1 + hi", "(0.2, 0.2)"),
    "dual": _argument("a number above 1", "bounds the loss by -dual A where A is negative", "none"),
    "level": _argument("`token` or `sequence`", "whether the ratio is a token's or a whole response's", "token"),
    "anchor": _argument(
        "`old` or `mix(old, TEACHER, share)`",
        "what the ratio is taken to: the policy that wrote the rollout, or old^share teacher^(1 - share)",
        "old",
    ),
    "tis": _argument("a number above 0", "bounds the truncated importance weight of the rollout engine", "none"),
    "adv": _argument("a number or an expression", "the advantage; it is detached", "A"),
    "high": _argument("a number above 0", "the importance weight is kept at or below 1 + high"),
    "beta": _argument("a number between 0 and 1", "the teacher's share of the mixture, and of the sum"),
    "a": _argument("a number between 0 and 1", "the first distribution's share of the mixture"),
    "to": _argument("`ref`, `base` or `old`", "which policy the student is compared with", "ref"),
}

_SEES = _argument(
    "`nothing`, `diagnosis`, `solution`, `sibling`, `feedback` or `mismatched`",
    "what the prompt shows beside the problem (diagnosis: the type label of the spans, no text and no place)",
    "nothing",
)

STATEMENT_ARGUMENTS: dict[str, dict[str, ArgumentText]] = {
    "spans": {"cap": _argument("a share such as `25%`", "the largest part of one response the label may take", "none")},
    "teacher": {
        "sync": _argument("a whole number of steps", "self: copy the policy's weights every so many steps"),
        "ema": _argument("a number above 0, at most 1", "self: follow the policy's weights at this rate"),
        "frozen": _argument("nothing", "self: keep the weights the run started from"),
        "path": _argument("a text in double quotes", "model: a model's name or folder"),
        "sees": _SEES,
    },
    "advantage": {
        "center": _argument("`mean`", "group: what is subtracted from a reward", "mean"),
        "scale": _argument("`std` or `none`", "group: what the difference is divided by", "std"),
    },
    "rollouts": {
        "sees": _SEES,
        "when": _argument("a predicate of a prompt", "policy: which prompts are rolled out again", "every prompt"),
        "n": _argument("a whole number", "policy: extra rollouts a prompt", "1"),
        "file": _argument("a text in double quotes", "cached: where the rollouts are"),
    },
    "let": {},
    "extends": {},
    "route": {},
}

LOSS_TEXTS: dict[str, WordText] = {
    "fkl": _word("fkl(...)", "KL(teacher || student)", "key: fkl(w=0.5, warmup=10, anneal=linear(30))"),
    "rkl": _word("rkl(...)", "KL(student || teacher)", "error: rkl(w=0.5, warmup=10, anneal=linear(30))"),
    "jsd": _word(
        "jsd(beta, ...)",
        "beta KL(teacher || m) + (1 - beta) KL(student || m), m = beta teacher + (1 - beta) student",
        "key: jsd(0.5, anneal=linear(30))",
    ),
    "skl": _word("skl(a, ...)", "KL(teacher || a teacher + (1 - a) student)", "key: skl(0.1, anneal=linear(30))"),
    "srkl": _word("srkl(a, ...)", "KL(student || a student + (1 - a) teacher)", "key: srkl(0.1, anneal=linear(30))"),
    "grpo": _word(
        "grpo(...)", "-min(ratio A, clip(ratio, 1 - lo, 1 + hi) A)", "rest: grpo(clip=(0.2, 0.28), per=token)"
    ),
    "pg": _word(
        "pg(adv=..., ...)",
        "-min(ratio adv, clip(ratio, 1 - lo, 1 + hi) adv)",
        "key: pg(adv=A*clip(exp(gap), 0.8, 1.2))",
    ),
    "cispo": _word(
        "cispo(high=..., ...)",
        "-sg(min(ratio, 1 + high)) A logp",
        "rest: cispo(high=0.28)",
    ),
    "nll": _word("nll(...)", "-logp", "key when correct: nll(w=0.1)"),
    "entropy": _word(
        "entropy(...)", "-H(student): a positive weight rewards entropy", "rest: grpo() + entropy(w=0.001)"
    ),
    "k3": _word("k3(to, ...)", "exp(d) - d - 1, d = to_logp - logp", "rest: grpo() + k3(ref, w=0.001)"),
}

# What a trainer has to gather for a loss beside its own forward pass; "" for nothing.
_FULL_VOCABULARY = (
    "the full vocabulary of a teacher at the tokens it trains; with topk the teacher's likeliest tokens, or with "
    "of=student its log-probabilities of the student's likeliest tokens"
)
_OLD_LOGP = "the old log-probability of the sampled token"
LOSS_NEEDS: dict[str, str] = {
    **dict.fromkeys(("fkl", "rkl", "jsd", "skl", "srkl"), _FULL_VOCABULARY),
    **dict.fromkeys(
        ("grpo", "pg"),
        f"{_OLD_LOGP}; with level=sequence that of every token of the response; with anchor=mix(...) also a teacher's; "
        "with tis also the trainer's own",
    ),
    "cispo": _OLD_LOGP,
    "nll": "",
    "entropy": "",
    "k3": "the log-probability of the sampled token under the policy it compares with",
}
# The same for a signal, at every response token; a signal that is not here follows from rewards, lengths and spans.
_POLICY_PASS = "a forward pass of the policy before the step"
_TEACHER_PASS = "a forward pass of the teacher"
SIGNAL_NEEDS: dict[str, str] = {
    "logp": _POLICY_PASS,
    "entropy": _POLICY_PASS,
    "old_logp": "the old log-probabilities, kept from sampling",
    "ratio": f"{_POLICY_PASS} and the old log-probabilities",
    "teacher_logp": _TEACHER_PASS,
    "teacher_entropy": _TEACHER_PASS,
    "gap": f"{_POLICY_PASS} and one of the teacher",
    "overlap": f"the likeliest tokens of the policy and of the teacher: {_POLICY_PASS} and one of the teacher",
    "ref_logp": "a forward pass of the reference policy",
    "base_logp": "a forward pass of the base model",
}

FUNCTION_TEXTS: dict[str, WordText] = {
    "exp": _word("exp(x)", "e to the power of x", "rest: grpo(w=exp(-entropy))"),
    "log": _word("log(x)", "natural logarithm", "rest: grpo(w=log(len))"),
    "abs": _word("abs(x)", "x without its sign", "rest: grpo(w=abs(A))"),
    "sign": _word("sign(x)", "-1, 0 or 1", "rest: pg(adv=sign(A))"),
    "sqrt": _word("sqrt(x)", "square root", "rest: grpo(w=1/sqrt(len))"),
    "sigmoid": _word("sigmoid(x)", "1/(1 + exp(-x))", "key: grpo(w=sigmoid(gap))"),
    "softplus": _word("softplus(x)", "log(1 + exp(x))", "key: grpo(w=softplus(gap))"),
    "clip": _word("clip(x, lo, hi)", "x kept between lo and hi", "rest: grpo(w=clip(ratio, 0.8, 1.2))"),
    "min": _word("min(x, y, ...)", "the smallest of its arguments, element by element", "rest: grpo(w=min(ratio, 2))"),
    "max": _word(
        "max(x, y, ...) or max(x, over=SCOPE)",
        "the largest of its arguments, element by element; with over= the largest in a row, group or batch",
        "rest: grpo(w=entropy/max(entropy, over=row))",
    ),
    "where": _word(
        "where(p, a, b)", "a where the predicate p holds, b elsewhere", "rest: grpo(w=where(mixed, 1, 0.5))"
    ),
    "mean": _word(
        "mean(x, over=SCOPE)", "the mean in a row, group or batch", "rest when mean(gap, over=row) > 0: grpo()"
    ),
    "sum": _word(
        "sum(x, over=SCOPE)", "the sum in a row, group or batch", "rest: grpo(w=entropy/sum(entropy, over=row))"
    ),
    "quantile": _word(
        "quantile(x, share, over=SCOPE)",
        "the value below which a share lies, between neighbours interpolated linearly",
        "rest when len < quantile(len, 90%, over=batch): grpo()",
    ),
    "softmax": _word(
        "softmax(x, over=SCOPE)",
        "exp(x) divided by its sum in the scope, one value an element",
        "rest: grpo(w=softmax(reward, over=group))",
    ),
    "top": _word(
        "top(x, share, over=SCOPE)",
        "a predicate: x is among the largest, that share of them rounded up; earlier ones first among equals",
        "rest when top(entropy, 20%, over=row): grpo()",
    ),
    "random": _word(
        "random(share, over=SCOPE)",
        "a predicate: a share of the tokens drawn at random, anew every step, the same however the batch is cut",
        "rest when random(25%, over=row): grpo()",
    ),
    "cumcount": _word(
        "cumcount(p)",
        "at how many tokens of the response p has held so far, this one included",
        "rest when cumcount(entropy > 2) <= 10: grpo()",
    ),
    "window_min": _word(
        "window_min(x, n)",
        "the smallest over this token and the n - 1 before it",
        "rest when window_min(logp, 8) > -3: grpo()",
    ),
    "window_mean": _word(
        "window_mean(x, n)",
        "the mean over this token and the n - 1 before it, as far as there are",
        "rest when window_mean(entropy, 8) > 1: grpo()",
    ),
    "reward_to_go": _word(
        "reward_to_go(x, gamma)",
        "x here plus gamma times the same at the next token: a discounted sum to the end of the response",
        "key: pg(adv=reward_to_go(gap, 0.9))",
    ),
    "until": _word(
        "until(p)",
        "a predicate: holds before the first token of the response at which p holds",
        "rest when until(gap < -4): grpo()",
    ),
    "latch": _word(
        "latch(on, off)",
        "a predicate across steps: holds from a step where `on` does until one where `off` does; checkpoints keep it",
        "rest when latch(step >= 5, mean(entropy, over=batch) < 0.1): grpo()",
    ),
    "has": _word(
        "has(CONTEXT)",
        "a predicate of a rollout: there is a diagnosis, solution, sibling or feedback to show a teacher",
        "rest when has(diagnosis): rkl(w=0.5, anneal=linear(30)) + grpo()",
    ),
    "schedule": _word(
        "schedule(w, start=0, ramp=0, warmup=0, anneal=SHAPE(length), floor=0)",
        "a number of the step: zero before start, up to w during ramp, held during warmup, then down to floor",
        "rest: grpo(w=schedule(1, warmup=10, anneal=linear(30), floor=0.1))",
    ),
}

STATEMENT_TEXTS: dict[str, WordText] = {
    "spans": _word(
        "spans NAME(cap=SHARE), ...",
        "the labels an annotator may give; without the statement, those that routes use, uncapped",
        "spans key(cap=25%), error(cap=25%)",
    ),
    "teacher": _word(
        'teacher [NAME] = self(sync=N | ema=R | frozen, sees=X) or model("path", sees=X)',
        "where a distribution to learn from comes from; a spec without one has teacher = self(sync=10, sees=diagnosis)",
        "teacher = self(sync=10, sees=diagnosis)",
    ),
    "advantage": _word(
        "advantage = group(center=mean, scale=std | none), loo or none",
        "how A comes from rewards: against the group's mean, over its std; against the others' mean; or as they are",
        "advantage = group(scale=none)",
    ),
    "rollouts": _word(
        'rollouts NAME = policy(sees=X, when=PREDICATE, n=N) or cached("file")',
        "extra rollouts beside the plain ones; a route picks them with rows == NAME",
        "rollouts hinted = policy(sees=solution, when=all_wrong, n=2)",
    ),
    "let": _word(
        "let NAME = EXPRESSION", "names an expression, for the lines below", "let kl = schedule(0.5, anneal=cos)"
    ),
    "extends": _word(
        'extends "other.trace"',
        "starts from another spec: what has the same name replaces, the rest is added before `rest`",
        'extends "base.trace"',
    ),
    "route": _word(
        "LABEL [| LABEL ...] [when PREDICATE]: LOSS + LOSS ...",
        "takes the response tokens that carry a label (`rest`: every one) and meet the predicate; the first route that "
        "matches wins; `none` is no loss",
        "key | error when correct: fkl(w=0.5, anneal=linear(30)) + grpo()",
    ),
}
# Words that stand inside a route: they are explained with it.
PART_OF_ROUTE = ("rest", "when", "none", "rows")
