"""Settings of a run by their names in other frameworks, for who writes one of those."""

from __future__ import annotations

NAMES = {
    "name": "run_name experiment_name job_name exp_name",
    "policy": "model model_name model_path model_name_or_path pretrain actor base_model",
    "task": "env environment dataset reward reward_fn reward_funcs data",
    "seed": "random_seed rng_seed",
    "steps": "max_steps total_steps total_training_steps num_steps train_steps train_iters",
    "minibatches": "num_iterations ppo_epochs num_ppo_epochs num_minibatches",
    "micro_batch": "micro_batch_size per_device_train_batch_size ppo_micro_batch_size ppo_micro_batch_size_per_gpu",
    "precision": "dtype torch_dtype bf16 fp16 mixed_precision params_dtype model_dtype",
    "output": "output_dir save_path default_local_dir save_dir",
    "rollout.prompts": "batch_size train_batch_size rollout_batch_size global_batch_size num_prompts",
    "rollout.group_size": "num_generations n rollout_n n_samples_per_prompt samples_per_prompt group",
    "rollout.temperature": "temperature sampling_temperature temp",
    "rollout.max_response_tokens": "max_completion_length max_response_length max_new_tokens max_tokens "
    "response_length generate_max_len",
    "layout.tp": "tensor_model_parallel_size tensor_parallel_size tensor_parallel tp_size tp",
    "layout.pp": "pipeline_model_parallel_size pipeline_parallel_size pipeline_parallel pp_size pp",
    "layout.vpp": "virtual_pipeline_model_parallel_size virtual_pipeline_parallel_size vpp_size vpp "
    "num_virtual_stages_per_pipeline_rank",
    "layout.dp": "data_parallel_size data_parallel dp_size dp nproc_per_node num_gpus",
    "optim.lr": "learning_rate lr actor_learning_rate",
    "optim.warmup": "warmup_steps lr_warmup_steps lr_warmup_iters warmup_ratio lr_warmup_steps_ratio",
    "optim.decay": "lr_scheduler lr_scheduler_type scheduler lr_decay_style schedule",
    "optim.min_lr": "min_learning_rate",
    "optim.beta1": "adam_beta1 b1 betas",
    "optim.beta2": "adam_beta2 b2 betas",
    "optim.eps": "epsilon adam_eps adam_epsilon",
    "optim.weight_decay": "wd l2",
    "optim.clip_grad": "max_grad_norm grad_clip gradient_clipping max_norm clip grad_norm",
    "evaluation.every": "eval_steps eval_every test_freq eval_interval",
    "checkpoint.every": "save_steps save_freq save_every save_interval",
    "checkpoint.keep": "save_total_limit max_ckpt_to_keep max_actor_ckpt_to_keep",
}
_SETTINGS: dict[str, tuple[str, ...]] = {}
for _setting, _names in NAMES.items():
    for _name in _names.split():
        _SETTINGS[_name] = (*_SETTINGS.get(_name, ()), _setting)
# What the spec says, not the run file.
_OF_THE_SPEC = frozenset(
    {"beta", "kl_coef", "kl_loss_coef", "loss", "loss_type", "loss_agg_mode", "scale_rewards", "adv_estimator"}
    | {"clip_ratio", "clip_range", "cliprange", "entropy_coeff", "algorithm", "advantage"}
)


def settings_named(name: str) -> tuple[str, ...]:
    """The settings that have a name elsewhere, as in "optim.lr"."""
    return _SETTINGS.get(name.lower(), ())


def meant_by(name: str, group: str) -> str | None:
    """What a setting that does not exist most likely means; None when its name says nothing.

    group: the settings it stands among, as in "optim"; "" for those of the run file itself.
    """
    settings = settings_named(name)
    if not settings:
        return "the spec says it, not the run file" if name.lower() in _OF_THE_SPEC else None
    within = [repr(setting.removeprefix(f"{group}.") if group else setting) for setting in settings]
    return f"did you mean {' and '.join(within)}?"
