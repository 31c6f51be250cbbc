"""What training needs of this machine and checking a run file does not: weights, a tokenizer, programs, packages."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

from megatron_bridge.model.shape import TransformerImpl
from megatron_bridge.rollout.settings import RolloutSettings, rollout_missing


def missing_to_train(
    policy: Path, rollout: RolloutSettings, transformer_impl: TransformerImpl | None
) -> Iterator[tuple[str, str]]:
    """(setting, what is missing and how to get it), for a policy whose directory has a config.json."""
    if (policy / "config.json").is_file():
        yield from (("policy", text) for text in _missing_files(policy))
    yield from rollout_missing(rollout)
    if transformer_impl == "transformer_engine" and importlib.util.find_spec("transformer_engine") is None:
        yield (
            "transformer_impl",
            "transformer-engine is not installed, and it runs on CUDA alone: pip install 'trace-dsl[te]', "
            "write local, or leave it out",
        )


def _missing_files(policy: Path) -> Iterator[str]:
    weights, tokenizer = list(policy.glob("*.safetensors")), (policy / "tokenizer.json").is_file()
    if not weights and not tokenizer:
        yield (
            f"{str(policy)!r} holds the model's configuration alone, which is enough for lint, plan and fit: to train, "
            f"download weights and tokenizer there (hf download {_source(policy)} --local-dir {policy}), "
            "or name a directory that has them, policy=DIR"
        )
        return
    if not tokenizer:
        yield f"{str(policy)!r} is no Hugging Face model directory: it has no tokenizer.json"
    if not weights:
        yield f"{str(policy)!r} holds no *.safetensors weights"


def _source(policy: Path) -> str:
    """The model's name on the hub, where its configuration says it."""
    try:
        config = json.loads((policy / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "MODEL"
    name = config.get("_name_or_path") if isinstance(config, dict) else None
    return name if isinstance(name, str) and name else "MODEL"
