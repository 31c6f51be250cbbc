"""Run files: YAML in, a strict frozen `RunFile` out, every mistake one line, before any process starts.

Imports neither torch nor megatron-core. Paths in a run file are relative to the file, `output` to the working
directory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError

from megatron_bridge.model.shape import Layout, ModelShape, layout_problems, read_shape
from megatron_bridge.rollout.settings import Count, Positive, RolloutSettings, rollout_problems
from megatron_bridge.tasks import get_task
from trace_dsl.errors import RunFileError
from trace_dsl.facts import RunFacts
from trace_dsl.strict_yaml import Strict, YamlError, load_yaml, problems, where


class LayoutSettings(Strict):
    """How ranks are split; the job runs on tp x pp x dp processes."""

    tp: Positive = 1
    pp: Positive = 1
    dp: Positive = 1

    @property
    def layout(self) -> Layout:
        return Layout(tp=self.tp, pp=self.pp, dp=self.dp)


class OptimizerSettings(Strict):
    """AdamW. lr: peak learning rate; warmup: steps of linear rise; decay: what follows, down to min_lr."""

    lr: Annotated[float, Field(gt=0)] = 1e-5
    warmup: Count = 0
    decay: Literal["constant", "linear", "cosine"] = "constant"
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_grad: Annotated[float, Field(gt=0)] = 1.0


class EvaluationSettings(Strict):
    """problems: held-out problems sampled before and after training (and every `every` steps; 0: not in between)."""

    problems: Positive = 512
    every: Count = 0
    split: str = "eval"
    seed: Count = 1


class CheckpointSettings(Strict):
    """every: optimizer steps between checkpoints (0: only at the end); keep: how many are kept."""

    every: Count = 50
    keep: Positive = 2


class RunFile(Strict):
    """One training run. `steps` are optimizer steps; each iteration of rollouts serves `minibatches` of them."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    spec: str
    policy: str
    task: str
    seed: Count = 0
    steps: Positive
    minibatches: Positive = 1
    micro_batch: Positive = 8
    output: str = "runs"
    save_rollouts_every: Positive = 10
    rollout: RolloutSettings = RolloutSettings()
    layout: LayoutSettings = LayoutSettings()
    optim: OptimizerSettings = OptimizerSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    checkpoint: CheckpointSettings = CheckpointSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedRun:
    """A checked run file with its paths resolved. `shape` is the policy's."""

    file: RunFile
    path: Path
    spec_path: Path
    policy_path: Path
    shape: ModelShape
    facts: RunFacts

    @property
    def directory(self) -> Path:
        """The run directory, `output`/`name`."""
        return Path(self.file.output) / self.file.name


def load_run(path: Path, overrides: Sequence[str] = ()) -> LoadedRun:
    """Read and check a run file.

    overrides: `a.b=value` items, values read as YAML. Raises RunFileError whose message holds every mistake, one a
    line.
    """
    file = _validate(path, _override(_read_yaml(path), overrides))
    spec_path, policy_path = path.parent / file.spec, path.parent / file.policy
    problems = list(_path_problems(path, file, spec_path, policy_path))
    shape = None
    if not problems:
        try:
            shape = read_shape(policy_path)
        except ValueError as error:
            problems.append(f"{path}: policy: {error}")
    problems += [f"{path}: {text}" for text in rollout_problems(file.rollout, dp=file.layout.dp)]
    task = None
    try:
        task = get_task(file.task)
    except ValueError as error:
        problems.append(f"{path}: task: {error}")
    if task is not None and file.evaluation.split not in task.splits:
        problems.append(
            f"{path}: evaluation.split: {file.evaluation.split!r} is no split of the task {task.name!r}: "
            f"choose from {', '.join(task.splits)}"
        )
    if shape is not None:
        problems += [f"{path}: layout: {text}" for text in layout_problems(shape, file.layout.layout)]
        problems += [f"{path}: {text}" for text in _size_problems(file, shape)]
    if problems or shape is None or task is None:
        raise RunFileError("\n".join(problems))
    facts = RunFacts(
        total_steps=file.steps,
        group_size=file.rollout.group_size,
        annotator_labels=tuple(task.labels),
        teacher_contexts=tuple(task.contexts),
        vocab_size=shape.vocab_size,
        max_response_tokens=file.rollout.max_response_tokens,
        temperature=file.rollout.temperature,
    )
    return LoadedRun(file=file, path=path, spec_path=spec_path, policy_path=policy_path, shape=shape, facts=facts)


def load_run_facts(path: Path) -> RunFacts:
    """The facts a plan or a check needs of a run. Raises RunFileError."""
    return load_run(path).facts


def _path_problems(path: Path, file: RunFile, spec_path: Path, policy_path: Path) -> Iterator[str]:
    if not spec_path.is_file():
        here = f"; {file.spec!r} is there seen from the working directory: write {str(Path(file.spec).resolve())!r}"
        yield (
            f"{path}: spec: no file {str(spec_path)!r} (paths are relative to the run file)"
            + (here if Path(file.spec).is_file() else "")
        )
    for name in ("config.json", "tokenizer.json"):
        if not (policy_path / name).is_file():
            yield f"{path}: policy: {str(policy_path)!r} is no Hugging Face model directory: it has no {name}"
    if policy_path.is_dir() and not list(policy_path.glob("*.safetensors")):
        yield f"{path}: policy: {str(policy_path)!r} holds no *.safetensors weights"


def _size_problems(file: RunFile, shape: ModelShape) -> Iterator[str]:
    """What divides what; each message names the values and the fix."""
    rows = file.rollout.prompts * file.rollout.group_size
    if file.layout.pp > 1:
        yield (
            f"layout.pp: {file.layout.pp} pipeline stages cannot sample in the training process; "
            "set layout.pp to 1 and use tp and dp"
        )
    if file.rollout.prompts % (file.minibatches * file.layout.dp):
        yield (
            f"rollout.prompts: {file.rollout.prompts} prompts cannot be split into {file.minibatches} minibatches "
            f"x {file.layout.dp} data-parallel ranks; make it a multiple of {file.minibatches * file.layout.dp}"
        )
    elif (rows // (file.minibatches * file.layout.dp)) % file.micro_batch:
        share = rows // (file.minibatches * file.layout.dp)
        yield (
            f"micro_batch: {file.micro_batch} does not divide the {share} rollouts that a rank trains on in a step "
            f"({file.rollout.prompts} prompts x {file.rollout.group_size} / {file.minibatches} minibatches / "
            f"dp {file.layout.dp}); pick a divisor of {share}"
        )
    if file.steps % file.minibatches:
        yield (
            f"steps: {file.steps} is no multiple of minibatches = {file.minibatches}; "
            f"set it to {file.steps // file.minibatches * file.minibatches or file.minibatches}"
        )
    if file.checkpoint.every % file.minibatches:
        yield (
            f"checkpoint.every: {file.checkpoint.every} is no multiple of minibatches = {file.minibatches}: "
            "a checkpoint stands between two iterations of rollouts"
        )
    if file.rollout.max_response_tokens >= shape.max_position:
        yield (
            f"rollout.max_response_tokens: {file.rollout.max_response_tokens} leaves no room for a prompt in the "
            f"policy's context of {shape.max_position} tokens; set it to {shape.max_position} less the longest prompt"
        )


# ------------------------------------------------------------------------------------------------------------ reading


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RunFileError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise RunFileError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    if path.suffix == ".trace":
        raise RunFileError(f"{path}: this is a spec; a run file (YAML) names it under 'spec:'")
    try:
        data = load_yaml(text)
    except YamlError as error:
        raise RunFileError(f"{path}{error.place}: not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise RunFileError(f"{path}: a run file is a mapping of settings such as 'spec: trace.trace'")
    return data


def _override(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise RunFileError(f"{item!r}: an override is written key=value, for example optim.lr=3e-4")
        try:
            value = load_yaml(text)
        except YamlError as error:
            raise RunFileError(f"{item!r}: the value is not valid YAML: {error}") from error
        *folders, leaf = key.split(".")
        place = data
        for folder in folders:
            inner = place.setdefault(folder, {})
            if not isinstance(inner, dict):
                raise RunFileError(f"{item!r}: {folder!r} is a value, not a group of settings")
            place = inner
        place[leaf] = value
    return data


def _validate(path: Path, data: dict[str, Any]) -> RunFile:
    try:
        return RunFile.model_validate(data)
    except ValidationError as error:
        lines = (f"{path}: {where(loc)}: {message}" for loc, message in problems(error, RunFile))
        raise RunFileError("\n".join(lines)) from error


def dump_run(loaded: LoadedRun) -> str:
    """The run file with every default written out, as it can be started from the run's own directory.

    `spec` is the copy that stands beside it, `policy` and `output` are absolute.
    """
    settings = loaded.file.model_dump()
    settings |= {"spec": "spec.trace", "policy": str(loaded.policy_path.resolve())}
    settings |= {"output": str(Path(loaded.file.output).resolve())}
    return yaml.safe_dump(settings, sort_keys=False)


def changed_settings(before: str, loaded: LoadedRun) -> list[str]:
    """What differs between a resolved run file (YAML text) and this run, one `a.b: old -> new` each."""
    old, new = (_flat(yaml.safe_load(text)) for text in (before, dump_run(loaded)))
    return [f"{key}: {old.get(key)} -> {new.get(key)}" for key in sorted(old | new) if old.get(key) != new.get(key)]


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
