"""What is written here for what other systems say: arguments and losses of TRL, verl and OpenRLHF, words of Python.

Words that have one word here in their place are in `vocabulary`; here are those that are said in another way.
"""

from __future__ import annotations

from trace_dsl.syntax.tree import Binary, Name, Node, Number, Text
from trace_dsl.terms import Operator
from trace_dsl.vocabulary import DIVERGENCES

_POLICY_GRADIENTS = ("grpo", "pg", "cispo")

# Arguments of a policy gradient elsewhere, by what they are about.
_ABOUT = {
    "kl": "beta kl_beta kl_coef kl_coeff kl_loss_coef init_kl_coef kl_weight kl_penalty kl_estimator kl_loss_type "
    "use_kl_loss use_kl_in_reward",
    "entropy": "entropy_coef entropy_coeff ent_coef entropy_bonus entropy_weight",
    "denominator": "loss_type loss_agg_mode loss_mode reduction aggregation normalization",
    "scale": "scale_rewards norm_adv_by_std_in_grpo normalize_advantage normalize_advantages advantage_normalization "
    "whiten_rewards whiten_advantages",
    "clip": "epsilon_low epsilon_high clip_ratio_low clip_ratio_high cliprange_low cliprange_high clip_low clip_high",
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
}
_LOSSES = {
    "kl": "fkl is KL(teacher || student), rkl is KL(student || teacher)",
    "dapo": "write `rest when mixed: grpo(clip=(0.2, 0.28), per=selected)`",
    "dr_grpo": "write grpo(per=const(n)) with n the longest response, and `advantage = group(scale=none)`",
    "bnpo": "write grpo(per=token)",
    "gspo": "write grpo(level=sequence, clip=(3e-4, 4e-4))",
    "rloo": "write grpo(), and the statement `advantage = loo`",
    "gkd": "write jsd(beta), or fkl or rkl for one direction",
    "opd": "write rkl(), or pg(adv=gap) on the sampled tokens",
    "mse": "distributions are compared by fkl, rkl, jsd, skl or srkl",
    "dpo": "there are no losses of pairs",
}
_LOSSES |= dict.fromkeys(("kld", "kl_div", "kl_loss", "kl_divergence", "kd", "distill"), _LOSSES["kl"])
_LOSSES |= dict.fromkeys(("kl_penalty", "k1", "k2", "low_var_kl"), "write k3(ref, w=0.01), the sampled KL estimate")

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


def truth_of(node: Node) -> bool | None:
    """What a word of another language for true or false stands for; None for any other value."""
    if not isinstance(node, Name) or node.name not in _TRUE | _FALSE:
        return None
    return node.name in _TRUE


def for_argument(function: str, name: str, value: Node) -> str | None:
    """What to write instead of an argument that a call does not have; None when its name says nothing."""
    written = spelled(value) or "..."
    if function in DIVERGENCES:
        return _for_divergence(function, name, written)
    if function in _POLICY_GRADIENTS:
        return _for_policy_gradient(function, name, written)
    if function in ("self", "schedule", "group"):
        return _for_declaration(function, name, written)
    return None


def _for_divergence(function: str, name: str, written: str) -> str | None:
    if name in ("beta", "lmbda", "alpha") and function in ("fkl", "rkl"):
        return f"{function} is one direction alone: w is its weight, and jsd(beta) a mixture of both"
    return f"the run file says it for all losses: {_OF_THE_RUN[name]}" if name in _OF_THE_RUN else None


def _for_policy_gradient(function: str, name: str, written: str) -> str | None:
    if name in ("adv", "advantage") and function == "grpo":
        return "grpo uses A; pg(adv=...) takes an advantage expression"
    number = written if written.replace(".", "", 1).isdecimal() else None
    match _TOPIC.get(name):
        case "kl":
            return f"a KL to the reference is a loss of its own: {function}(...) + k3(ref, w={number or '0.01'})"
        case "entropy":
            return f"an entropy bonus is a loss of its own: {function}(...) + entropy(w={number or '0.001'})"
        case "denominator":
            known = _PER.get(written.lower())
            return f"write {known}" if known else "what a loss is divided by is per=sequence, token, selected, const(n)"
        case "scale":
            scale = "none" if written.lower() in ("false", "none", "0") else "std"
            return f"rewards are scaled by a statement: `advantage = group(scale={scale})`; std is the default"
        case "clip" if function != "cispo":
            return "both sides are one argument: clip=(0.2, 0.28)"
        case "estimator":
            return "how A is estimated is a statement: `advantage = group()`, `advantage = loo` or `advantage = none`"
        case _:
            return f"the run file says it: {_OF_THE_RUN[name]}" if name in _OF_THE_RUN else None


def _for_declaration(function: str, name: str, written: str) -> str | None:
    if function == "group" and _TOPIC.get(name) == "scale":
        return "write scale=std, the default, or scale=none"
    if function == "self" and name in ("decay", "ema_decay", "momentum"):
        return "write ema=1 - decay: `ema` is the rate at which the teacher follows the student"
    if function == "schedule" and name in ("warmup_steps", "warmup_ratio", "warm_up"):
        return "`ramp` goes linearly up to the weight; `warmup` holds the weight there"
    return None


def for_loss(name: str) -> str | None:
    """What to write instead of a loss that does not exist; None when its name says nothing."""
    return _LOSSES.get(name.lower())


def for_value(name: str) -> str | None:
    """What to write instead of a word that is no value; None when it says nothing."""
    if name in _TRUE:
        return "a route without `when` takes all; as a number write 1"
    if name in _FALSE:
        return "`none` is no loss; as a number write 0"
    if name in ("label", "span", "spans", "tag"):
        return "a route starts with its labels, as in `key: ...`"
    if name in ("detach", "stop_gradient", "sg", "stopgrad"):
        return "leave it out: weights, predicates and advantages are detached"
    return None


def label_meant(name: str) -> str | None:
    """The usual label, or `rest`, that a label which nothing declares most likely means."""
    lower = name.lower()
    if lower in ("else", "default", "otherwise", "others"):
        return "rest"
    return lower if lower != name and lower in ("rest", "key", "error") else None
