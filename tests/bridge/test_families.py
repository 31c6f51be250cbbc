"""Qwen3, Qwen2.5 and Llama 3: into every layout and back, bit for bit, and the logits of transformers."""

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from megatron.core import parallel_state
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from megatron_bridge.model.hf import save_hf
from megatron_bridge.model.shape import Layout, read_shape
from tests.bridge.ranks import gathered, loaded, under
from tests.bridge.tiny import FAMILIES, VOCAB, make_model, positions, some_ids
from tests.distributed import run_distributed

pytestmark = pytest.mark.distributed

LAYOUTS = {"tp1": Layout(dp=4), "tp2": Layout(tp=2, dp=2), "tp4": Layout(tp=4), "pp2": Layout(tp=2, pp=2)}
MANY_FILES = 20_000  # bytes a file: several files for each model


def _logits(model: torch.nn.ModuleList, layout: Layout) -> torch.Tensor:
    ids = some_ids(3, 100)
    with torch.no_grad():
        return gathered(model.eval()[0](ids, positions(ids), None).transpose(0, 1), layout, VOCAB)


def _exchange_bias(model: torch.nn.ModuleList, weights: dict[str, torch.Tensor], tp: int) -> None:
    """The biases of queries, keys and values one after the other: not by group."""
    for number, layer in enumerate(model[0].decoder.layers):
        joined = torch.cat([weights[f"model.layers.{number}.self_attn.{x}_proj.bias"] for x in "qkv"])
        rank = parallel_state.get_tensor_model_parallel_rank()
        layer.self_attention.linear_qkv.bias.data.copy_(joined.chunk(tp)[rank])


def _everything(directories: dict[str, str], target: str) -> dict:
    found = {}
    for name, layout in LAYOUTS.items():
        with under(layout):
            for family, directory in directories.items():
                model = loaded(directory, layout)
                if layout.pp == 1:
                    found[family, name] = _logits(model, layout)
                save_hf(model, read_shape(directory), directory, f"{target}/{family}_{name}", file_bytes=MANY_FILES)
                again = loaded(f"{target}/{family}_{name}", layout)
                pairs = zip(model.parameters(), again.parameters(), strict=True)
                found["read again", family, name] = all(torch.equal(one, two) for one, two in pairs)
            if layout.pp == 1:
                model = loaded(directories["qwen2"], layout)
                _exchange_bias(model, load_file(Path(directories["qwen2"]) / "model.safetensors"), layout.tp)
                found["wrong bias", name] = _logits(model, layout)
                model = loaded(directories["llama"], layout)
                rope = model[0].rotary_pos_emb
                rope.inv_freq = 12345.0 ** (-torch.arange(0, 16, 2) / 16)
                rope.forward.cache_clear()
                found["wrong rope", name] = _logits(model, layout)
            dist.barrier()
    return found


@pytest.fixture(scope="module")
def directories(tmp_path_factory) -> dict[str, str]:
    return {
        family: make_model(tmp_path_factory.mktemp(family), family=family, tied=family == "llama", kv_heads=4)
        for family in FAMILIES
    }


@pytest.fixture(scope="module")
def target(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("saved")


@pytest.fixture(scope="module")
def found(directories, target) -> dict:
    return run_distributed(_everything, 4, directories, str(target))[0]


@pytest.fixture(scope="module")
def reference(directories) -> dict[str, torch.Tensor]:
    """The logits of transformers in float64."""
    found = {}
    for family, directory in directories.items():
        model = AutoModelForCausalLM.from_pretrained(directory, attn_implementation="eager", dtype=torch.float64)
        with torch.no_grad():
            found[family] = model.eval()(some_ids(3, 100)).logits
    return found


def _distance(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", ["tp1", "tp2", "tp4"])
def test_logits_are_those_of_transformers(found, reference, family, layout):
    assert _distance(found[family, layout], reference[family]) < 2e-6


@pytest.mark.parametrize("layout", ["tp2", "tp4"])
def test_an_exchanged_bias_is_seen(found, reference, layout):
    assert _distance(found["wrong bias", layout], reference["qwen2"]) > 0.05


@pytest.mark.parametrize("layout", ["tp1", "tp4"])
def test_rotary_frequencies_that_are_not_stretched_are_seen(found, reference, layout):
    assert _distance(found["wrong rope", layout], reference["llama"]) > 0.05


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_round_trip_in_many_files_is_bit_exact(found, directories, target, family, layout):
    source = load_file(Path(directories[family]) / "model.safetensors")
    saved = target / f"{family}_{layout}"
    index = json.loads((saved / "model.safetensors.index.json").read_text())
    files = sorted({*index["weight_map"].values()})
    assert len(files) > 3
    assert files == sorted(path.name for path in saved.glob("*.safetensors"))
    back = {name: load_file(saved / file)[name] for name, file in index["weight_map"].items()}
    assert back.keys() == source.keys()
    assert all(torch.equal(back[name], source[name]) for name in source)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in source.values())
    assert found["read again", family, layout]


@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_reads_what_was_saved(found, directories, target, reference, family):
    model = AutoModelForCausalLM.from_pretrained(target / f"{family}_tp4", attn_implementation="eager")
    with torch.no_grad():
        assert _distance(model.eval()(some_ids(3, 100)).logits, reference[family]) < 2e-6
