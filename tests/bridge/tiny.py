"""Tiny random models in Hugging Face's format, made by transformers itself."""

from __future__ import annotations

from pathlib import Path

import torch

VOCAB = 129  # odd, so that tp 2 pads it


_LLAMA3_ROPE = {  # stretches within this model's 128 places: some frequencies stay, some are interpolated, some divided
    "rope_type": "llama3",
    "rope_theta": 12345.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_ROPE = {"rope_type": "default", "rope_theta": 12345.0}
FAMILIES = {"qwen3": _ROPE, "qwen2": _ROPE, "llama": _LLAMA3_ROPE}


def make_model(
    directory: Path,
    *,
    family: str = "qwen3",
    tied: bool,
    seed: int = 0,
    vocab: int = VOCAB,
    layers: int = 2,
    sharp: float = 3.0,
    kv_heads: int = 2,
    max_position: int = 128,
) -> str:
    """Write a random model; its norms are not 1 and its weights are large, so that an exchanged one is seen."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(seed)
    config = AutoConfig.for_model(
        family,
        vocab_size=vocab,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
        head_dim=16,
        max_position_embeddings=max_position,
        rms_norm_eps=1e-6,
        tie_word_embeddings=tied,
        rope_parameters=FAMILIES[family],
    )
    model = AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.copy_(1 + 0.3 * torch.randn_like(parameter))
            elif name.endswith("bias"):
                parameter.copy_(torch.randn_like(parameter))
            else:
                parameter.mul_(sharp)
    model.save_pretrained(directory)
    (directory / "tokenizer.json").write_text('{"made": "for a test"}')
    return str(directory)


def load_reference(directory: str) -> torch.nn.Module:
    """The model as transformers computes it, with plain attention."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager", dtype=torch.float32).eval()


def some_ids(batch: int, length: int, *, seed: int = 3, vocab: int = VOCAB) -> torch.Tensor:
    """Random token ids [batch, length]."""
    return torch.randint(0, vocab, (batch, length), generator=torch.Generator().manual_seed(seed))


def positions(ids: torch.Tensor) -> torch.Tensor:
    """0, 1, 2 ... for each row of `ids`."""
    return torch.arange(ids.shape[1]).expand_as(ids)
