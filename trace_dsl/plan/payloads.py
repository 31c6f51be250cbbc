"""What a trainer has to gather for a loss or an expression, beside the tokens, the rewards and its own forward pass.

A kernel reads what it needs at the tokens it trains; a measured signal is read at every response token, before anything
is routed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from trace_dsl.expressions import walk
from trace_dsl.model import (
    K3,
    Cispo,
    Divergence,
    EntropyBonus,
    Kernel,
    MixAnchor,
    Nll,
    PolicyGradient,
    RatioLevel,
    SupportOf,
)
from trace_dsl.terms import Expr, Signal


class Origin(StrEnum):
    """Whose distribution a payload is about."""

    POLICY = "policy"  # as it is before the step, in a forward pass of its own
    ROLLOUT = "rollout"  # the policy that wrote the rollout, kept from sampling
    RECOMPUTED = "recomputed"  # the same policy, computed by the trainer and not by the sampler
    TEACHER = "teacher"
    REF = "ref"
    BASE = "base"


class Content(StrEnum):
    """How much of a distribution a payload holds at each token."""

    SAMPLED = "sampled-logp"  # the log-probability of the token that was sampled
    ENTROPY = "entropy"
    TOP_TOKENS = "top-tokens"  # which tokens are the likeliest
    TOP_K = "top-k"  # the k likeliest tokens with their log-probabilities
    AT_STUDENT_TOP_K = "at-student-top-k"  # the log-probabilities of the student's k likeliest tokens
    FULL_VOCABULARY = "full-vocabulary"


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """One thing to gather. `teacher` names it where the origin is one; `k` counts the tokens of a top-k."""

    origin: Origin
    content: Content
    teacher: str | None = None
    k: int | None = None

    @property
    def text(self) -> str:
        """The payload in words: "full vocabulary of teacher `teacher`"."""
        whose = _WHOSE[self.origin] if self.teacher is None else f"teacher `{self.teacher}`"
        match self.content:
            case Content.SAMPLED if self.origin is Origin.ROLLOUT:
                return "old log-probability of the sampled token"
            case Content.SAMPLED:
                return f"log-probability of the sampled token under {whose}"
            case Content.ENTROPY:
                return f"entropy of {whose}"
            case Content.TOP_TOKENS:
                return f"which tokens are the likeliest of {whose}"
            case Content.TOP_K:
                return f"the {self.k} likeliest tokens of {whose} and their log-probabilities"
            case Content.AT_STUDENT_TOP_K:
                return f"log-probabilities of the student's {self.k} likeliest tokens under {whose}"
            case Content.FULL_VOCABULARY:
                return f"full vocabulary of {whose}"
            case _:
                assert_never(self.content)


_WHOSE = {
    Origin.POLICY: "the policy before the step",
    Origin.ROLLOUT: "the policy that wrote the rollout",
    Origin.RECOMPUTED: "the policy that wrote the rollout, computed again by the trainer",
    Origin.TEACHER: "a teacher",
    Origin.REF: "the reference policy",
    Origin.BASE: "the base model",
}
_K3_ORIGINS = {"ref": Origin.REF, "base": Origin.BASE, "old": Origin.ROLLOUT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A payload and where it is read: at the tokens that the loss trains, or `everywhere`, at every response token."""

    payload: Payload
    everywhere: bool


def kernel_needs(kernel: Kernel) -> tuple[Need, ...]:
    """What a kernel reads beside the student's own distribution at its tokens."""
    match kernel:
        case Divergence(teacher=teacher, top_k=None):
            return (_of_teacher(teacher, Content.FULL_VOCABULARY),)
        case Divergence(teacher=teacher, top_k=top_k):
            assert top_k is not None
            content = Content.TOP_K if top_k.of is SupportOf.TEACHER else Content.AT_STUDENT_TOP_K
            return (_of_teacher(teacher, content, top_k.k),)
        case PolicyGradient(anchor=anchor, level=level, tis=tis):
            # a ratio of whole responses is a mean over all of their tokens, also those of other routes
            whole = level is RatioLevel.SEQUENCE
            found = [_sampled(Origin.ROLLOUT, everywhere=whole)]
            if isinstance(anchor, MixAnchor):
                found.append(_sampled(Origin.TEACHER, teacher=anchor.teacher, everywhere=whole))
            if tis is not None:
                found.append(_sampled(Origin.RECOMPUTED, everywhere=whole))
            return tuple(found)
        case Cispo():
            return (_sampled(Origin.ROLLOUT),)
        case K3(to=to):
            return (_sampled(_K3_ORIGINS[to]),)
        case Nll() | EntropyBonus():
            return ()
        case _:
            assert_never(kernel)


def expression_needs(expr: Expr) -> tuple[Need, ...]:
    """What the signals of an expression are measured from, each once."""
    return tuple(dict.fromkeys(need for part in walk(expr) if isinstance(part, Signal) for need in _signal_needs(part)))


def _signal_needs(signal: Signal) -> Iterator[Need]:
    """A signal that follows from rewards, lengths and spans needs nothing."""
    match signal.name:
        case "logp":
            yield _sampled(Origin.POLICY, everywhere=True)
        case "old_logp":
            yield _sampled(Origin.ROLLOUT, everywhere=True)
        case "ratio":
            yield _sampled(Origin.POLICY, everywhere=True)
            yield _sampled(Origin.ROLLOUT, everywhere=True)
        case "teacher_logp":
            yield _sampled(Origin.TEACHER, teacher=signal.teacher, everywhere=True)
        case "gap":
            yield _sampled(Origin.POLICY, everywhere=True)
            yield _sampled(Origin.TEACHER, teacher=signal.teacher, everywhere=True)
        case "ref_logp":
            yield _sampled(Origin.REF, everywhere=True)
        case "base_logp":
            yield _sampled(Origin.BASE, everywhere=True)
        case "entropy":
            yield _everywhere(Origin.POLICY, Content.ENTROPY)
        case "teacher_entropy":
            yield _everywhere(Origin.TEACHER, Content.ENTROPY, signal.teacher)
        case "overlap":
            yield _everywhere(Origin.POLICY, Content.TOP_TOKENS)
            yield _everywhere(Origin.TEACHER, Content.TOP_TOKENS, signal.teacher)


def _sampled(origin: Origin, *, teacher: str | None = None, everywhere: bool = False) -> Need:
    payload = Payload(origin=origin, content=Content.SAMPLED, teacher=teacher)
    return Need(payload=payload, everywhere=everywhere)


def _of_teacher(teacher: str, content: Content, k: int | None = None) -> Need:
    payload = Payload(origin=Origin.TEACHER, content=content, teacher=teacher, k=k)
    return Need(payload=payload, everywhere=False)


def _everywhere(origin: Origin, content: Content, teacher: str | None = None) -> Need:
    return Need(payload=Payload(origin=origin, content=content, teacher=teacher), everywhere=True)
