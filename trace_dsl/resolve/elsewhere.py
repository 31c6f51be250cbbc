"""What is written here for what other systems say: arguments and losses of TRL, verl and OpenRLHF, words of Python.

Words that have one word here in their place are in `vocabulary`; here are those that are said in another way.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, count

from trace_dsl.model import Frozen, Sees, SelfTeacher, Teacher
from trace_dsl.resolve.findings import DEFAULT_TEACHER_LINE, Context
from trace_dsl.syntax.tree import Argument, Binary, Call, Callable, Name, Node, Number, Text, TupleOf, Unit
from trace_dsl.terms import Operator
from trace_dsl.vocabulary import DIVERGENCES, words_of_elsewhere

_POLICY_GRADIENTS = ("grpo", "pg", "cispo")

# Arguments of a policy gradient elsewhere, by what they are about.
_ABOUT = {
    "kl": "beta kl_beta kl_coef kl_coeff kl_loss_coef init_kl_coef kl_weight kl_penalty kl_estimator kl_loss_type "
    "use_kl_loss use_kl_in_reward kl_type",
    "entropy": "entropy_coef entropy_coeff ent_coef entropy_bonus entropy_weight",
    "denominator": "loss_type loss_agg_mode loss_mode reduction aggregation normalization",
    "scale": "scale_rewards norm_adv_by_std_in_grpo normalize_advantage normalize_advantages advantage_normalization "
    "whiten_rewards whiten_advantages normalize_reward normalize_rewards normalize_std normalise_std norm_by_std "
    "std_norm whiten normalize",
    "clip": "epsilon_low epsilon_high clip_ratio_low clip_ratio_high cliprange_low cliprange_high clip_low clip_high "
    "high low eps_low eps_high eps_clip_low eps_clip_high clip_higher",
    "value model": "lam lambd gae gae_lambda gae_lam gamma vf_coef value_coef value_loss_coef critic",
    "length": "mask_truncated_completions overlong_filter overlong_filtering mask_truncated filter_truncated",
    "estimator": "adv_estimator advantage_estimator estimator",
}
_TOPIC = {name: topic for topic, names in _ABOUT.items() for name in names.split()}
# Settings of a run, by their names elsewhere.
_OF_THE_RUN = {
    "lr": "optim.lr",
    "learning_rate": "optim.lr",
    "num_generations": "rollout.group_size",
    "n_samples_per_prompt": "rollout.group_size",
    "rollout_n": "rollout.group_size",
    "max_completion_length": "rollout.max_response_tokens",
    "max_response_length": "rollout.max_response_tokens",
    "max_new_tokens": "rollout.max_response_tokens",
    "temperature": "rollout.temperature",
    "max_steps": "steps",
    "total_steps": "steps",
    "num_iterations": "minibatches",
    "ppo_epochs": "minibatches",
    "max_grad_norm": "optim.clip_grad",
    "clip_grad": "optim.clip_grad",
}
_PER = {
    "grpo": "per=sequence, the default",
    "sequence": "per=sequence, the default",
    "seq-mean-token-mean": "per=sequence, the default",
    "dapo": "per=token",
    "bnpo": "per=token",
    "token": "per=token",
    "token-mean": "per=token",
    "dr_grpo": "per=const(n) with n the longest response",
    "seq-mean-token-sum": "per=const(1)",
    "seq-mean-token-sum-norm": "per=const(n) with n the longest response",
    "gspo": "level=sequence",
    "cispo": "the loss cispo(high=...)",
    "constant": "per=const(n), as in per=const(4096)",
    **dict.fromkeys(("none", "sum"), "per=const(1): the sum over each response, then the mean of responses"),
}
_KL = "fkl is KL(teacher || student), rkl is KL(student || teacher)"
_LOSSES = {
    "dapo": "write `rest when mixed: grpo(clip=(0.2, 0.28), per=selected)`",
    "dr_grpo": "write grpo(per=const(n)) with n the longest response, and `advantage = group(scale=none)`",
    "bnpo": "write grpo(per=token)",
    "gspo": "write grpo(level=sequence, clip=(3e-4, 4e-4))",
    "rloo": "write grpo(), and the statement `advantage = loo`",
    "gkd": "write jsd(beta), or fkl or rkl for one direction",
    "gkl": "write jsd(beta), or fkl or rkl for one direction",
    "sdpo": "write rkl() or jsd(beta), with `teacher = self(ema=0.05, sees=feedback)`",
    "opsd": "write rkl() or jsd(beta), with `teacher = self(frozen, sees=solution)`",
    "opd": "write rkl(), or pg(adv=gap) on the sampled tokens",
    "mse": "distributions are compared by fkl, rkl, jsd, skl or srkl",
    "dpo": "there are no losses of pairs",
    **dict.fromkeys(("kl", "kld", "kl_div", "kl_loss", "kl_divergence", "kd", "distill"), _KL),
    **dict.fromkeys(("gae", "value", "vf", "critic", "value_loss"), "there is no value model: A comes from rewards"),
}
_SHAPES = (("linear", "linear"), ("cos", "cos"), ("cosine", "cos"), ("exponential", "exp"), ("step", "step"))
# Functions of other languages; x and p stand for what they are given.
_FUNCTIONS = {
    **dict.fromkeys(
        ("std", "stddev", "stdev", "standard_deviation"),
        "write sqrt(mean((x - m)*(x - m), over=group)) with `let m = mean(x, over=group)`; A is divided by it already",
    ),
    **dict.fromkeys(("var", "variance"), "write mean((x - m)*(x - m), over=group) with `let m = mean(x, over=group)`"),
    **dict.fromkeys(
        ("normalize", "normalise", "whiten", "standardize", "zscore"),
        "A is the reward less its group's mean, over its std; others are written out, as in x - mean(x, over=batch)",
    ),
    "median": "write quantile(x, 50%, over=batch)",
    "count": "write sum(where(p, 1, 0), over=row)",
    "any": "write max(where(p, 1, 0), over=row) > 0",
    "all": "write mean(where(p, 1, 0), over=row) == 1",
    **dict.fromkeys(("pow", "power"), "multiply, or write exp(n * log(x))"),
    "square": "write x*x",
    "relu": "write max(x, 0)",
    "tanh": "write 2*sigmoid(2*x) - 1",
    **dict.fromkeys(("clamp", "bound"), "write clip(x, lo, hi)"),
    **{name: f"a weight that changes over the run is schedule(0.5, anneal={shape}(30))" for name, shape in _SHAPES},
    **dict.fromkeys(
        ("warmup", "ramp", "anneal", "decay", "interpolate", "lerp", "piecewise"),
        "a weight that changes over the run is schedule(0.5, ramp=10, warmup=10, anneal=linear(30))",
    ),
}
_ESTIMATORS = {
    **dict.fromkeys(("gae", "critic", "value"), "there is no value model: write group(), loo or none"),
    **dict.fromkeys(
        ("dr_grpo", "reinforce_baseline", "reinforce_plus_plus_baseline"),
        "write group(scale=none): the reward less its group's mean, divided by nothing",
    ),
    **dict.fromkeys(("reinforce", "reinforce_plus_plus"), "write none: the reward as it is"),
    **dict.fromkeys(("group_norm", "grpo_norm"), "write group(), the reward less its group's mean, over its std"),
}
_SAMPLED_KL = frozenset({"kl_penalty", "k1", "k2", "low_var_kl"})
# What a divergence to a teacher is called where it is one loss with a direction.
_DIRECTIONS = {"reverse": "rkl", "backward": "rkl", "mode_seeking": "rkl", "forward": "fkl", "mode_covering": "fkl"}

_TRUE, _FALSE = frozenset({"True", "true", "TRUE"}), frozenset({"False", "false", "FALSE"})


def spelled(node: Node) -> str | None:
    """The word or path that a value spells: `token-mean` and `Qwen/Qwen3` are operations as they are read."""
    match node:
        case Name(name=name):
            return name
        case Text(value=value):
            return value
        case Number(text=text):
            return text
        case Binary(operator=Operator.SUB | Operator.DIV as op, left=left, right=right):
            parts = spelled(left), spelled(right)
            return None if None in parts else f"{parts[0]}{op.value}{parts[1]}"
        case _:
            return None


def reference_loss(context: Context, loss: str, weight: str) -> str:
    """A divergence to the policy that the run started from, with the teacher it needs."""
    teachers = context.teachers
    kept = next((teacher.name for teacher in teachers.values() if teacher is not None and _is_start(teacher)), None)
    name = kept or next(name for name in chain(("ref", "start"), _numbered("start")) if name not in teachers)
    call = f"{loss}(teacher={name}, w={weight})"
    if kept is not None:
        return call
    with_line = f"{call}, with the line `teacher {name} = self(frozen)`"
    if teachers or not context.reads_default_teacher:
        return with_line
    return f"{with_line} and, for losses that name no teacher, `{DEFAULT_TEACHER_LINE}`"


def _numbered(name: str) -> Iterator[str]:
    return (f"{name}_{number}" for number in count(2))


def _is_start(teacher: Teacher) -> bool:
    return (
        isinstance(teacher.source, SelfTeacher) and teacher.source.update == Frozen() and teacher.sees is Sees.NOTHING
    )


def truth_of(node: Node) -> bool | None:
    """What a word of another language for true or false stands for; None for any other value."""
    if not isinstance(node, Name) or node.name not in _TRUE | _FALSE:
        return None
    return node.name in _TRUE


def for_argument(
    context: Context, function: str, argument: Argument, arguments: tuple[Argument, ...], known: tuple[str, ...]
) -> str | None:
    """What to write instead of an argument that a call does not have; None when its name says nothing.

    `arguments` are all of the call, `known` the names of those it may have.
    """
    assert argument.name is not None
    name, value = argument.name.name, argument.value
    written = spelled(value) or "..."
    if name in ("warmup_steps", "warmup_ratio", "warm_up") and "ramp" in known:
        return f"`ramp={_amount(name, value)}` rises linearly to the weight; `warmup` is a hold here, at the weight"
    topic = _TOPIC.get(name)
    if topic == "clip" and "clip" in known:
        low, high = _clip_sides(context, arguments)
        return f"both sides are one argument: clip=({low}, {high})"
    if function == "cispo" and (topic == "clip" or "clip" in words_of_elsewhere(name) or name == "clip"):
        return _for_cispo(context, name, value)
    if function == "k3" and topic == "kl":
        return f"`w` is its weight: k3(ref, w={_weight(context, value, '0.01')})"
    if function in DIVERGENCES:
        return _for_divergence(function, name, written)
    if function in _POLICY_GRADIENTS:
        return _for_policy_gradient(context, function, name, value)
    if function in ("self", "group"):
        return _for_declaration(function, name, written)
    return None


def _amount(name: str, value: Node) -> str:
    """How long a warm-up of another system lasts, as a length."""
    if not isinstance(value, Number):
        return "10"
    if value.unit is not Unit.NONE:
        return value.text
    if name != "warmup_ratio" and (value.value >= 1 or value.is_integer):
        return f"{value.value:.0f}"
    shares = name != "warmup_steps" and value.value <= 1
    return f"{value.value * 100:g}%" if shares else "10"


def _weight(context: Context, value: Node, example: str) -> str:
    """A coefficient of another system as a weight; an example where it is no number."""
    if isinstance(value, Number) and value.unit in (Unit.NONE, Unit.PERCENT):
        return value.text
    return value.name if isinstance(value, Name) and value.name in context.lets else example


def _is_nothing(value: Node) -> bool:
    """Whether a coefficient or a switch of another system says that there is none."""
    return truth_of(value) is False or (isinstance(value, Number) and value.value == 0) or spelled(value) == "None"


# No call has more; each that is unknown looks at the others.
_MOST_LOOKED_AT = 50


def _clip_sides(context: Context, arguments: tuple[Argument, ...]) -> tuple[str, str]:
    """The low and the high side that the arguments of a call name, of this language and of others."""
    sides = {"low": "", "high": "", "both": ""}
    for argument in arguments[:_MOST_LOOKED_AT]:
        name = "" if argument.name is None else argument.name.name
        if name != "clip" and _TOPIC.get(name) != "clip" and "clip" not in words_of_elsewhere(name):
            continue
        side = "low" if "low" in name else "high" if "high" in name else "both"
        sides[side] = sides[side] or _weight(context, argument.value, "")
    if not any(sides.values()):
        return "0.2", "0.28"
    both = sides["both"] or "0.2"
    return sides["low"] or both, sides["high"] or both


def _for_cispo(context: Context, name: str, value: Node) -> str | None:
    if "low" in name:
        return "take it out: cispo bounds the ratio from above alone, by high=..."
    high = value.items[-1] if isinstance(value, TupleOf) else value
    if name == "clip":
        return f"cispo bounds the ratio from above alone: high={_weight(context, high, '0.28')}"
    return None


def _for_divergence(function: str, name: str, written: str) -> str | None:
    if name in ("beta", "lmbda", "alpha") and function in ("fkl", "rkl"):
        return f"{function} is one direction alone: w is its weight, and jsd(beta) a mixture of both"
    if name in ("direction", "mode", "kl_type", "kl_direction"):
        meant = _DIRECTIONS.get(written.lower().removesuffix("_kl").replace("-", "_"))
        return f"the direction is the loss: {f'write {meant}(...)' if meant else _KL}"
    return f"the run file says it for all losses: {_OF_THE_RUN[name]}" if name in _OF_THE_RUN else None


def _for_policy_gradient(context: Context, function: str, name: str, value: Node) -> str | None:
    if name in ("adv", "advantage") and function == "grpo":
        return "grpo uses A; pg(adv=...) takes an advantage expression"
    written = (spelled(value) or "...").lower()
    match _TOPIC.get(name):
        case "kl" if _is_nothing(value):
            return "take it out: without a loss for it there is no KL to the reference"
        case "kl":
            weight = _weight(context, value, "0.01")
            loss = reference_loss(context, "rkl", weight)
            return f"a KL to the reference is a loss of its own: {function}(...) + {loss}; or + k3(ref, w={weight})"
        case "entropy" if _is_nothing(value):
            return "take it out: without a loss for it there is no entropy bonus"
        case "entropy":
            weight = _weight(context, value, "0.001")
            return f"an entropy bonus is a loss of its own: {function}(...) + entropy(w={weight})"
        case "denominator":
            known = _PER.get(written)
            return f"write {known}" if known else "what a loss is divided by is per=sequence, token, selected, const(n)"
        case "scale":
            scale = "none" if written in ("false", "none", "0") else "std"
            return f"rewards are scaled by a statement: `advantage = group(scale={scale})`; std is the default"
        case "value model":
            return "there is no value model: leave it out; A comes from rewards, as `advantage = group()` says"
        case "length":
            return "leave it out; where long responses are not to train, write `rest when len < 4096: ...`"
        case "estimator":
            return "how A is estimated is a statement: `advantage = group()`, `advantage = loo` or `advantage = none`"
        case _:
            return f"the run file says it: {_OF_THE_RUN[name]}" if name in _OF_THE_RUN else None


def _for_declaration(function: str, name: str, written: str) -> str | None:
    if function == "group" and _TOPIC.get(name) == "scale":
        return "write scale=none" if written.lower() in ("false", "none", "0") else "write scale=std, the default"
    if function == "self" and name in ("decay", "ema_decay", "momentum"):
        return "write ema=1 - decay: `ema` is the rate at which the teacher follows the student"
    return None


def for_denominator(value: Node) -> str | None:
    """What to write instead of a denominator of another system that no word here stands for; None for all others."""
    said = _PER.get((spelled(value) or "").strip().lower())
    return None if said is None or said.startswith(("per=sequence", "per=token")) else f"write {said}"


def for_loss(context: Context, value: Callable) -> str | None:
    """What to write instead of a loss that does not exist; None when its name says nothing."""
    arguments = value.arguments if isinstance(value, Call) else ()
    name = (value.function if isinstance(value, Call) else value).name.lower()
    given = {argument.name.name: argument.value for argument in arguments if argument.name is not None}
    to_reference = any(isinstance(a.value, Name) and a.value.name in ("ref", "reference") for a in arguments)
    if name in _SAMPLED_KL or (to_reference and _LOSSES.get(name) == _KL):
        coefficient = next((given[key] for key in ("w", "beta", "coef") if key in given), None)
        if coefficient is not None and _is_nothing(coefficient):
            return "take it out: without a loss for it there is no KL to the reference"
        weight = (spelled(coefficient) if coefficient is not None else None) or "0.01"
        return f"write {reference_loss(context, 'rkl', weight)}; the sampled KL estimate is k3(ref, w={weight})"
    return _LOSSES.get(name)


def loss_elsewhere(name: str) -> str | None:
    """What the language has for a loss of another system, without a spec around it; None when there is nothing."""
    if name.lower() in _SAMPLED_KL:
        return "k3 is the sampled KL estimate; rkl and fkl are KLs to a teacher"
    return _LOSSES.get(name.lower())


def for_value(name: str) -> str | None:
    """What to write instead of a word that is no value; None when it says nothing."""
    if name in _TRUE:
        return "a route without `when` takes all; as a number write 1"
    if name in _FALSE:
        return "`none` is no loss; as a number write 0"
    if name in _SAMPLED_KL or _LOSSES.get(name.lower()) == _KL:
        return "a KL is a loss: rkl(w=0.1) or fkl(w=0.1) to a teacher; its sampled value at a token is -gap"
    if name.lower() in ("epoch", "epochs"):
        return "a run counts optimizer steps and no epochs: compare `step` with a number of steps"
    if name in ("label", "span", "spans", "tag"):
        return "a route starts with its labels, as in `key: ...`"
    if name in ("detach", "stop_gradient", "sg", "stopgrad"):
        return "leave it out: weights, predicates and advantages are detached"
    return None


def for_function(name: str) -> str | None:
    """What to write instead of a function that does not exist; None when its name says nothing."""
    return _FUNCTIONS.get(name.lower()) or for_value(name)


def for_estimator(name: str) -> str | None:
    """What to write instead of an advantage estimator of another system; None when its name says nothing."""
    return _ESTIMATORS.get(name.lower())


def label_meant(name: str) -> str | None:
    """The usual label, or `rest`, that a label which nothing declares most likely means."""
    lower = name.lower()
    if lower in ("else", "default", "otherwise", "others", "all", "any", "every", "everything", "all_tokens"):
        return "rest"
    return lower if lower != name and lower in ("rest", "key", "error") else None
