"""The formulas of memory beside what torch and megatron-core really keep."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from megatron_bridge.device import megatron_runtime
from megatron_bridge.fit.memory import Build, Places, activation_bytes, layer_bytes, states
from megatron_bridge.fit.parameters import Widths, parameters_of
from megatron_bridge.model.gpt import build_model
from megatron_bridge.model.shape import Layout, ModelShape
from megatron_bridge.parallel import start_parallel, stop_parallel
from megatron_bridge.training.forward import hidden_states
from megatron_bridge.training.microbatch import Share, join

SHAPE = ModelShape(
    model_type="qwen3",
    vocab_size=1001,
    hidden_size=256,
    ffn_size=768,
    layers=3,
    heads=8,
    kv_heads=2,
    head_dim=32,
    max_position=1024,
    rope_base=1e6,
    norm_eps=1e-6,
    tied=True,
)
FAMILIES = {
    "qwen3": SHAPE,
    "qwen3 untied": replace(SHAPE, tied=False),
    "qwen2": replace(SHAPE, model_type="qwen2"),
    "llama": replace(SHAPE, model_type="llama", kv_heads=8),
}


@pytest.fixture(scope="module", autouse=True)
def one_rank() -> Iterator[None]:
    with megatron_runtime():
        start_parallel(Layout(), 0)
        yield
    stop_parallel()


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_those_of_the_model(family: str) -> None:
    shape = FAMILIES[family]
    model = build_model(shape, Layout())
    counted = parameters_of(shape, Layout(), 0)
    assert counted.total == sum(p.numel() for p in model.parameters())
    assert counted.largest == max(p.numel() for p in model.parameters())


def test_ranks_hold_the_model_between_them() -> None:
    """Over tp and pp every matrix once, norms on every tp rank, a tied embedding on both ends of a pipeline."""
    whole = parameters_of(SHAPE, Layout(), 0)
    shape = replace(SHAPE, vocab_size=1000)
    layout = Layout(tp=2, pp=3)
    held = sum(layout.tp * parameters_of(shape, layout, stage).total for stage in range(3))
    norms = 3 * (2 * 256 + 2 * 32) + 256
    assert held == whole.total - 256 + norms + 1000 * 256


def test_states() -> None:
    """Adam's two moments; in bfloat16 main weights too; shared by the ranks of the distributed optimizer."""
    assert states(10, width=4, ranks=1) == (40, 40, 80)
    assert states(10, width=2, ranks=1) == (20, 40, 120)
    assert states(10, width=2, ranks=4) == (20, 40, 30)


def _kept(shape: ModelShape, dtype: torch.dtype, *, recompute: bool, packed: bool) -> tuple[int, int]:
    """What autograd keeps of two sequences of 192 tokens, and what the formulas say. Parameters are not counted."""
    (model,) = build_model(shape, Layout(), dtype=dtype, recompute=recompute)
    sequences = join([[1] * 64] * 2, [[2] * 128] * 2, torch.device("cpu"), Share(pack_tokens=384 if packed else None))
    weights = {p.data_ptr() for p in model.parameters()}
    found: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage  # held, so that no other takes its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = hidden_states(model, sequences)
    found[result.untyped_storage().data_ptr()] = result.untyped_storage()
    widths = Widths.of(shape, 1)
    places = Places(tokens=384, length=192, predicted=256, packed=packed)
    build = Build(width=dtype.itemsize, fused_norms=False, sharded=False, recompute=recompute, tp=1)
    layer = layer_bytes(widths, places, build, qk_norm=shape.family.qk_norm)
    estimate = activation_bytes(shape.layers, layer, widths, places, build, last=True)
    return sum(storage.nbytes() for storage in found.values()), estimate


@pytest.mark.parametrize("packed", [False, True], ids=["padded", "packed"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_activations_are_what_autograd_keeps(family: str, dtype: torch.dtype, packed: bool) -> None:
    kept, estimate = _kept(FAMILIES[family], dtype, recompute=False, packed=packed)
    assert abs(estimate / kept - 1) < 0.03


def test_with_recompute_only_the_layers_inputs_are_kept() -> None:
    kept, estimate = _kept(SHAPE, torch.float32, recompute=True, packed=False)
    assert abs(estimate / kept - 1) < 0.05


@pytest.mark.slow
@pytest.mark.distributed
def test_a_real_step_takes_what_is_estimated(tmp_path: Path) -> None:
    """As docs/benchmarks/fit.md shows it for more cases."""
    out = tmp_path / "rows.json"
    subprocess.run([sys.executable, "tools/bench_fit.py", "--case", "tp2", "--json", str(out)], check=True)
    rows = json.loads(out.read_text(encoding="utf-8"))
    assert len(rows) == 2
    for row in rows:
        assert abs(row["estimate"] / row["tracked"] - 1) < 0.1
        assert abs(row["estimate"] / row["resident"] - 1) < 0.1
