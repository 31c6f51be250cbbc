"""The closed tables of the language: every word it knows, in one place.

Name look-ups, did-you-mean suggestions, the reference and the checks all read these tables; a word that is not here
does not exist.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass
from enum import StrEnum

from trace_dsl.model import DivergenceKind, PerKind, Place, RatioLevel, Replacement, Sees, SupportOf, Tail
from trace_dsl.terms import Function, Rank, Reduction, Scan, Scope, Shape


class ValueKind(StrEnum):
    """What an expression stands for."""

    NUMBER = "number"
    PREDICATE = "predicate"
    SOURCE = "source"  # who wrote a token: compares with `model` and `tool` only


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalInfo:
    """`of_teacher`: the signal is about a teacher, the default one unless written `gap(NAME)`."""

    name: str
    rank: Rank
    kind: ValueKind
    summary: str
    of_teacher: bool = False


def _signal(
    name: str,
    rank: Rank,
    summary: str,
    kind: ValueKind = ValueKind.NUMBER,
    of_teacher: bool = False,
) -> SignalInfo:
    return SignalInfo(name=name, rank=rank, kind=kind, summary=summary, of_teacher=of_teacher)


_IS = ValueKind.PREDICATE

SIGNALS: dict[str, SignalInfo] = {
    info.name: info
    for info in (
        _signal("logp", Rank.TOKEN, "log-probability of the sampled token under the student"),
        _signal("old_logp", Rank.TOKEN, "the same under the policy that wrote the rollout"),
        _signal("teacher_logp", Rank.TOKEN, "the same under a teacher", of_teacher=True),
        _signal("ref_logp", Rank.TOKEN, "the same under the reference policy"),
        _signal("base_logp", Rank.TOKEN, "the same under the base model"),
        _signal("gap", Rank.TOKEN, "teacher_logp - logp", of_teacher=True),
        _signal("entropy", Rank.TOKEN, "entropy of the student's distribution"),
        _signal("teacher_entropy", Rank.TOKEN, "entropy of a teacher's distribution", of_teacher=True),
        _signal("ratio", Rank.TOKEN, "exp(logp - old_logp)"),
        _signal("pos", Rank.TOKEN, "how many response tokens stand before this one"),
        _signal("turn", Rank.TOKEN, "which assistant turn the token belongs to, from 0"),
        _signal("source", Rank.TOKEN, "who wrote the token: model or tool", ValueKind.SOURCE),
        _signal("overlap", Rank.TOKEN, "share of the student's top tokens a teacher has too", of_teacher=True),
        _signal("reward", Rank.ROW, "the verifier's reward of the rollout"),
        _signal("correct", Rank.ROW, "the verifier accepted the rollout", _IS),
        _signal("wrong", Rank.ROW, "the verifier did not accept the rollout", _IS),
        _signal("len", Rank.ROW, "response length in tokens"),
        _signal("A", Rank.ROW, "the advantage, estimated as `advantage =` says"),
        _signal("all_correct", Rank.GROUP, "every rollout of the prompt is correct", _IS),
        _signal("all_wrong", Rank.GROUP, "every rollout of the prompt is wrong", _IS),
        _signal("mixed", Rank.GROUP, "the prompt has correct and wrong rollouts", _IS),
        _signal("group_size", Rank.GROUP, "rollouts of the prompt"),
        _signal("step", Rank.STEP, "optimizer steps done"),
    )
}

# has(x) is the row predicate "has_x": there is such a context for the rollout.
HAS: dict[str, SignalInfo] = {
    word: _signal(f"has_{word}", Rank.ROW, f"there is a {word} to show a teacher", _IS)
    for word in ("sibling", "feedback", "solution", "diagnosis")
}

# The values `source` compares with, and the number that stands for them in an expression.
SOURCES: dict[str, float] = {"model": 0.0, "tool": 1.0}
ROWS = "rows"

# Prefix of the signal that stands for a predicate with an error, so that nothing is concluded about its route.
UNKNOWN_PREDICATE = "unknown_predicate"

FUNCTION_ARITY: dict[Function, tuple[int, int | None]] = {
    Function.EXP: (1, 1),
    Function.LOG: (1, 1),
    Function.ABS: (1, 1),
    Function.SIGN: (1, 1),
    Function.SQRT: (1, 1),
    Function.SIGMOID: (1, 1),
    Function.SOFTPLUS: (1, 1),
    Function.CLIP: (3, 3),
    Function.MIN: (2, None),
    Function.MAX: (2, None),
    Function.WHERE: (3, 3),
}

SCOPE_RANK: dict[Scope, Rank] = {
    Scope.ROW: Rank.ROW,
    Scope.GROUP: Rank.GROUP,
    Scope.MICRO: Rank.STEP,
    Scope.BATCH: Rank.STEP,
}

RANK_WORDS: dict[Rank, str] = {
    Rank.CONSTANT: "constant",
    Rank.STEP: "one value a step",
    Rank.GROUP: "one value a prompt",
    Rank.ROW: "one value a rollout",
    Rank.TOKEN: "one value a token",
}

SCHEDULE_ARGUMENTS = ("start", "ramp", "warmup", "anneal", "floor")
_COMMON = ("w", *SCHEDULE_ARGUMENTS, "per")
_DIVERGENCE = (*_COMMON, "topk", "of", "tail", "temperature", "pclip", "teacher")
_POLICY_GRADIENT = (*_COMMON, "clip", "dual", "level", "anchor", "tis")


@dataclass(frozen=True, slots=True, kw_only=True)
class LossInfo:
    """`positional` names the arguments that may stand without a name; `required` those that must be given."""

    name: str
    arguments: tuple[str, ...]
    summary: str
    positional: tuple[str, ...] = ()
    required: tuple[str, ...] = ()


LOSSES: dict[str, LossInfo] = {
    info.name: info
    for info in (
        LossInfo(name="fkl", arguments=_DIVERGENCE, summary="KL(teacher || student)"),
        LossInfo(name="rkl", arguments=_DIVERGENCE, summary="KL(student || teacher)"),
        LossInfo(
            name="jsd",
            arguments=("beta", *_DIVERGENCE),
            positional=("beta",),
            required=("beta",),
            summary="generalised Jensen-Shannon divergence",
        ),
        LossInfo(
            name="skl",
            arguments=("a", *_DIVERGENCE),
            positional=("a",),
            required=("a",),
            summary="KL(teacher || a teacher + (1 - a) student)",
        ),
        LossInfo(
            name="srkl",
            arguments=("a", *_DIVERGENCE),
            positional=("a",),
            required=("a",),
            summary="KL(student || a student + (1 - a) teacher)",
        ),
        LossInfo(name="grpo", arguments=_POLICY_GRADIENT, summary="clipped policy gradient on A"),
        LossInfo(
            name="pg",
            arguments=("adv", *_POLICY_GRADIENT),
            summary="clipped policy gradient on an advantage expression",
        ),
        LossInfo(
            name="cispo",
            arguments=("adv", "high", *_COMMON),
            required=("high",),
            summary="clipped importance weight times log-probability",
        ),
        LossInfo(name="nll", arguments=_COMMON, summary="-log-probability of the sampled token"),
        LossInfo(name="entropy", arguments=_COMMON, summary="entropy bonus"),
        LossInfo(
            name="k3",
            arguments=("to", *_COMMON),
            positional=("to",),
            summary="sampled KL estimate to the reference policy",
        ),
    )
}
NO_LOSS = "none"
DIVERGENCES = frozenset(kind.value for kind in DivergenceKind)
PARAMETER_NAMES = {DivergenceKind.JSD: "beta", DivergenceKind.SKL: "a", DivergenceKind.SRKL: "a"}
K3_TARGETS = ("ref", "base", "old")

STATEMENTS: dict[str, str] = {
    "spans": "spans NAME(cap=F), ...",
    "teacher": 'teacher [NAME] = self(sync=N | ema=R | frozen, sees=X) or model("path", sees=X)',
    "advantage": "advantage = group(center=mean, scale=std | none), loo or none",
    "rollouts": 'rollouts NAME = policy(sees=X, when=PREDICATE, n=N) or cached("file")',
    "let": "let NAME = EXPRESSION",
    "extends": 'extends "other.trace"',
}

TEACHER_ARGUMENTS: dict[str, tuple[str, ...]] = {
    "self": ("sync", "ema", "frozen", "sees"),
    "model": ("path", "sees"),
}
ROLLOUT_ARGUMENTS: dict[str, tuple[str, ...]] = {"policy": ("sees", "when", "n"), "cached": ("file",)}
ESTIMATORS: dict[str, tuple[str, ...]] = {"group": ("center", "scale"), "loo": (), "none": ()}
SEES: tuple[str, ...] = tuple(sees.value for sees in Sees)

# The words that an argument takes, for arguments that take one of a closed set. `const`, `mix` and, when they have a
# length, the shapes of an anneal are called.
ARGUMENT_WORDS: dict[str, tuple[str, ...]] = {
    "anneal": tuple(shape.value for shape in Shape),
    "per": tuple(kind.value for kind in PerKind),
    "of": tuple(side.value for side in SupportOf),
    "tail": tuple(tail.value for tail in Tail),
    "level": tuple(level.value for level in RatioLevel),
    "anchor": ("old", "mix"),
    "to": K3_TARGETS,
    "sees": SEES,
    "center": ("mean",),
    "scale": ("std", "none"),
    "over": tuple(scope.value for scope in Scope),
}

FUNCTIONS: tuple[str, ...] = (
    *sorted({f.value for f in Function} | {r.value for r in Reduction} | {s.value for s in Scan} | {"has", "schedule"}),
)

# Words of the grammar that cannot name anything.
RESERVED = frozenset({"and", "or", "not", "when"})


# Comparing texts takes time that grows with their lengths multiplied.
LONGEST_WORD = 64


# Words of other systems for each word of the language, some of them near to a word that means the opposite. A word may
# stand for several, of which one is known at its place.
_ELSEWHERE = {
    "wrong": "incorrect fail failed failure mistake",
    "correct": "passed is_correct success solved accuracy acc",
    "rest": "else default otherwise others",
    "entropy": "student_entropy policy_entropy token_entropy token_entropies h ent",
    "fkl": "forward_kl",
    "rkl": "reverse_kl",
    "nll": "sft ce cross_entropy xent",
    "pg": "ppo reinforce policy_gradient",
    "clip": "epsilon eps clip_range cliprange clip_ratio eps_clip clip_eps epsilon_low epsilon_high clip_ratio_low "
    "clip_ratio_high cliprange_low cliprange_high "
    "eps_low eps_high clip_higher eps_clip_low eps_clip_high",
    "high": "epsilon_high clip_ratio_high cliprange_high epsilon eps eps_high eps_clip_high clip_higher",
    "dual": "clip_ratio_c delta dual_clip",
    "tis": "tis_cap tis_imp_ratio_cap vllm_importance_sampling_cap",
    "w": "weight coef coeff kl_coef kl_coeff scale_factor loss_weight lambda",
    "topk": "top top_k",
    "per": "loss_type loss_agg_mode reduction denominator",
    "a": "alpha beta",
    "beta": "alpha lmbda",
    "level": "importance_sampling_level ratio_level",
    "temperature": "temp tau",
    "token": "token-mean token_mean tokens dapo bnpo",
    "sequence": "seq-mean-token-mean sequence-mean sequence_mean seq response sample",
    "row": "sequence response rollout sample completion",
    "group": "prompt grpo",
    "loo": "rloo leave_one_out",
    "model": "assistant policy student",
    "tool": "environment env observation function tool_output tool_response",
    "student": "policy model",
    "ref": "reference ref_policy ref_model reference_policy",
    "old": "behavior rollout policy",
    "solution": "answer ground_truth gold reference",
    "nothing": "none problem question",
    "sync": "every interval sync_every sync_interval ref_model_sync_steps update_every update_freq update_interval",
    "sees": "context privileged shows prompt conditioned_on",
    "cap": "max limit max_share max_fraction",
    "ema": "rate ema_rate tau ref_model_mixup_alpha",
    "path": "name model_name model_name_or_path",
    "anneal": "decay shape",
    "warmup": "hold plateau",
    "cos": "cosine cosine_annealing",
    "exp": "exponential",
    "floor": "end_value final min_weight",
    "step": "global_step iteration training_step",
    "pos": "position index token_index",
    "len": "length response_length num_tokens",
    "A": "advantage advantages adv",
    "reward": "score scores rewards return r",
    "logp": "lp logprob log_prob logprobs log_probs student_logp",
    "old_logp": "old_logprob old_log_prob rollout_logp",
    "ratio": "importance_ratio importance_weight",
    "mean": "avg average",
    "quantile": "percentile",
    "log": "ln",
    "where": "cond ifelse if_else",
}
# Every word of the language, wherever it stands.
_WORDS = frozenset({*SIGNALS, *FUNCTIONS, *LOSSES, *STATEMENTS, *SOURCES, *ESTIMATORS, NO_LOSS, ROWS, "true", "false"})
_WORDS |= {word for words in ARGUMENT_WORDS.values() for word in words}
_WORDS |= {word for info in LOSSES.values() for word in info.arguments}
# The words here that each of those words may stand for.
MEANT_ELSEWHERE: dict[str, tuple[str, ...]] = {}
for _word, _others in _ELSEWHERE.items():
    for _other in _others.split():
        MEANT_ELSEWHERE[_other] = (*MEANT_ELSEWHERE.get(_other, ()), _word)


def word_of_elsewhere(word: str, known: Container[str]) -> str | None:
    """The known word that says what `word` says in other systems; None when it says nothing there."""
    return next((meant for meant in words_of_elsewhere(word) if meant in known), None)


def words_of_elsewhere(word: str) -> tuple[str, ...]:
    """The words here that say what `word` says in other systems."""
    return MEANT_ELSEWHERE.get(word.lower(), ())


def closest(word: str, known: Iterable[str], *, own: Iterable[str] = ()) -> str | None:
    """The known word that `word` most likely means, or None when nothing is near.

    `own` are words that the spec declares itself: one that looks alike is meant before a word of the language. A word
    that means something in another place or system is no slip of the pen: only what looks nearly the same stands near
    it.
    """
    if len(word) > LONGEST_WORD:
        return None
    declared = _of_readable_length(own)
    choices = sorted({*_of_readable_length(known), *declared})
    alike = _same_letters(word, declared) or _nearest(word, declared, _ALIKE) or _same_letters(word, choices)
    if alike is not None:
        return alike
    meant = word_of_elsewhere(word, choices)
    if meant is not None:
        return meant
    return _nearest(word, choices, _SAME if word.lower() in MEANT_ELSEWHERE or word.lower() in _WORDS else _NEAR)


# How much of two words has to be the same, from 0 to 1: of a word that means nothing, of one that the spec may have
# declared, and of one that means something in another place.
_NEAR, _ALIKE, _SAME = 0.66, 0.8, 0.87


def _of_readable_length(words: Iterable[str]) -> list[str]:
    return sorted({word for word in words if len(word) <= LONGEST_WORD})


def _same_letters(word: str, choices: Iterable[str]) -> str | None:
    return next((choice for choice in choices if choice.lower() == word.lower()), None)


def _nearest(word: str, choices: list[str], cutoff: float) -> str | None:
    if not choices:
        return None
    import difflib  # needed for mistakes alone

    near = difflib.get_close_matches(word, choices, n=1, cutoff=cutoff)
    return near[0] if near else None


MAX_LISTED = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """What to write instead of a word that does not exist: the word `near` it, else one of those `known`.

    `words` say it where "did you mean" does not.
    """

    near: str | None
    known: tuple[str, ...] = ()
    words: str = ""

    @property
    def text(self) -> str:
        """The suggestion in words; known words are listed when they are few enough to read."""
        if self.words:
            return self.words
        if self.near is not None:
            return f"did you mean `{self.near}`?"
        if 0 < len(self.known) <= MAX_LISTED:
            return f"known here: {', '.join(self.known)}"
        return "check its spelling" if self.known else ""

    def at(self, place: Place) -> Replacement | None:
        """The suggestion as a change of the word that stands at a place; None when nothing is near."""
        return None if self.near is None else Replacement(place=place, text=self.near)


def did_you_mean(word: str, known: Iterable[str], *, own: Iterable[str] = ()) -> Suggestion:
    """What `word` most likely means of the words that are known, those that the spec declares itself among them."""
    declared = tuple(own)
    choices = tuple(dict.fromkeys((*declared, *known)))
    return Suggestion(near=closest(word, choices, own=declared), known=choices)
