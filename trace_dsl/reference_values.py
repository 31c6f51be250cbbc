"""What the words mean that are given to arguments and statements: `bucket`, `sequence`, `self`, `solution`."""

from __future__ import annotations

from trace_dsl.vocabulary import ARGUMENT_WORDS

VALUE_TEXTS: dict[str, str] = {
    "self": "a teacher that is the student itself in an earlier state: self(sync=N), self(ema=R) or self(frozen)",
    "model": 'a teacher that is another model, model("path"); as a value of source, a token that the policy wrote',
    "policy": "extra rollouts that the student samples, under a prompt of their own where sees= is given",
    "cached": "extra rollouts that are read from a file",
    "group": "as an estimator, the reward against its group; as a scope, the rollouts of one prompt from one source",
    "loo": "the reward minus the mean of the others in the group",
    "none": "as an estimator, the reward as it is; as a scale, no division; as a loss of a route, no loss",
    "tool": "a token that a tool wrote, as in source == tool",
    "nothing": "the problem alone",
    "diagnosis": "the type label of the spans, without their text and place",
    "solution": "the problem's solution",
    "sibling": "another response to the problem",
    "feedback": "what the task says about the rollout",
    "mismatched": "a prompt that does not belong to the rollout, to compare with",
    "linear": "goes down by the same amount at every step",
    "cos": "goes down along half a cosine: slowly, fast, slowly",
    "exp": "goes down fast at first, then ever more slowly",
    "step": "stays, and falls to the floor at the end of the length",
    "sequence": "as a denominator, each response's mean, then the mean of responses; as a level, one ratio a response",
    "token": "as a denominator, all response tokens; as a level, one ratio a token",
    "selected": "the tokens that the route takes",
    "const": "const(n): n times the number of responses",
    "teacher": "the teacher's likeliest tokens",
    "student": "the student's likeliest tokens",
    "bucket": "the tokens outside topk count as one, with all of their probability",
    "renorm": "the tokens outside topk are left out, and the others scaled to add up to 1",
    "drop": "the tokens outside topk are left out, and nothing is scaled",
    "old": "the policy that wrote the rollout",
    "mix": "mix(old, TEACHER, share): old^share teacher^(1 - share)",
    "ref": "the reference policy",
    "base": "the base model",
    "mean": "the group's mean is subtracted from a reward",
    "std": "the difference is divided by the group's standard deviation",
    "row": "one response",
    "micro": "one micro-batch; it depends on how the batch is cut",
    "batch": "the global batch of an optimizer step",
    "steps": "a unit of length: optimizer steps, as in `30 steps`",
    "tokens": "a unit of length: response tokens trained so far, as in `2e6 tokens`",
}

_STATEMENTS = {
    "self": ("teacher = self(...)",),
    "model": ("teacher = model(...)", "source == model"),
    "policy": ("rollouts NAME = policy(...)",),
    "cached": ("rollouts NAME = cached(...)",),
    "group": ("advantage = group(...)",),
    "loo": ("advantage = loo",),
    "none": ("advantage = none", "LABEL: none"),
    "tool": ("source == tool",),
    "steps": ("warmup=30 steps",),
    "tokens": ("warmup=2e6 tokens",),
}


def stands_in(word: str) -> tuple[str, ...]:
    """Where a word can be written, each as it is written there."""
    shown = {"const": "const(n)", "mix": "mix(old, TEACHER, share)"}.get(word, word)
    arguments = tuple(f"{name}={shown}" for name, words in ARGUMENT_WORDS.items() if word in words)
    return (*_STATEMENTS.get(word, ()), *arguments)
