"""Hugging Face weights into every layout and back."""

import json
import resource
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file

import megatron_bridge.model.hf as hf
from megatron_bridge.model.gpt import build_model
from megatron_bridge.model.hf_mapping import Kind, Stage, entries, hf_to_megatron, megatron_to_hf, shard
from megatron_bridge.model.shape import Layout, padded_vocab, read_shape
from tests.bridge.ranks import PP2, TP1, TP2, VPP2, gathered, loaded, under
from tests.bridge.tiny import VOCAB, load_reference, make_model, positions, some_ids
from tests.distributed import run_distributed

pytestmark = pytest.mark.distributed


def _logits(model, layout: Layout, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        local_bsv = model.eval()[0](ids, positions(ids), None)
    return gathered(local_bsv.transpose(0, 1), layout, VOCAB)


def _wrong_fc1(model, weights: dict, layout: Layout) -> None:
    """Gate and up joined before they are split: right on one rank only."""
    rank = dist.get_rank() if layout.tp > 1 else 0
    for number in range(4):
        gate, up = (weights[f"model.layers.{number}.mlp.{name}_proj.weight"] for name in ("gate", "up"))
        joined = torch.cat([gate, up]).chunk(layout.tp)[rank]
        model[0].decoder.layers[number].mlp.linear_fc1.weight.data.copy_(joined)


def _wrong_qkv(model, weights: dict, layout: Layout) -> None:
    """All queries, then all keys, then all values: not by group."""
    rank = dist.get_rank() if layout.tp > 1 else 0
    for number in range(4):
        joined = torch.cat([weights[f"model.layers.{number}.self_attn.{x}_proj.weight"] for x in "qkv"])
        model[0].decoder.layers[number].self_attention.linear_qkv.weight.data.copy_(joined.chunk(layout.tp)[rank])


def _everything(directories: dict[str, str], target: str) -> dict:
    ids, found = some_ids(3, 20), {}
    for layout, name in ((TP1, "tp1"), (TP2, "tp2"), (PP2, "pp2"), (VPP2, "vpp2")):
        with under(layout):
            for kind, directory in directories.items():
                model = loaded(directory, layout)
                if layout.pp == 1:
                    found[kind, name] = _logits(model, layout, ids)
                hf.save_hf(model, read_shape(directory), directory, f"{target}/{kind}_{name}")
            if layout.pp > 1:
                continue
            weights = load_file(Path(directories["untied"]) / "model.safetensors")
            for mistake in (_wrong_fc1, _wrong_qkv):
                model = loaded(directories["untied"], layout)
                mistake(model, weights, layout)
                found[mistake.__name__, name] = _logits(model, layout, ids)
    found["errors"] = _disk_full(directories["untied"], f"{target}/untied_tp1")
    return found


def _disk_full(directory: str, target: str) -> str:
    """Save over `target` where files cannot grow to the size of the weights: the message that this rank sees."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with under(TP2):
        model = build_model(read_shape(directory), TP2)
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
        try:
            with pytest.raises(hf.CheckpointError) as caught:
                hf.save_hf(model, read_shape(directory), directory, target)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    return str(caught.value)


@pytest.fixture(scope="module")
def directories(tmp_path_factory) -> dict[str, str]:
    return {
        kind: make_model(tmp_path_factory.mktemp(kind), tied=kind == "tied", layers=4) for kind in ("tied", "untied")
    }


@pytest.fixture(scope="module")
def target(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("saved")


@pytest.fixture(scope="module")
def found(directories, target) -> list[dict]:
    return run_distributed(_everything, 2, directories, str(target))


@pytest.fixture(scope="module")
def reference(directories) -> dict[str, torch.Tensor]:
    with torch.no_grad():
        return {kind: load_reference(path)(some_ids(3, 20)).logits for kind, path in directories.items()}


@pytest.mark.parametrize("kind", ["tied", "untied"])
@pytest.mark.parametrize("name", ["tp1", "tp2"])
def test_logits_are_hugging_faces(found, reference, kind, name):
    assert reference[kind].abs().max() > 1
    for rank in found:
        assert (rank[kind, name] - reference[kind]).abs().max() < 1e-5


@pytest.mark.parametrize("mistake", [_wrong_fc1, _wrong_qkv])
def test_a_wrong_order_is_seen_at_tp_2(found, reference, mistake):
    assert (found[0][mistake.__name__, "tp2"] - reference["untied"]).abs().max() > 0.1


def test_a_wrong_fc1_order_is_not_seen_at_tp_1(found, reference):
    """Why the mapping is tested at tp 2."""
    assert (found[0]["_wrong_fc1", "tp1"] - reference["untied"]).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["tied", "untied"])
@pytest.mark.parametrize("name", ["tp1", "tp2", "pp2", "vpp2"])
def test_a_round_trip_is_bit_exact(found, directories, target, kind, name):
    source = load_file(Path(directories[kind]) / "model.safetensors")
    saved = load_file(target / f"{kind}_{name}" / "model.safetensors")
    assert source.keys() == saved.keys()
    assert all(torch.equal(source[key], saved[key]) for key in source)


def test_the_other_files_come_along(found, directories, target):
    saved = target / "untied_tp2"
    assert sorted(path.name for path in saved.iterdir()) == sorted(
        path.name for path in Path(directories["untied"]).iterdir()
    )
    assert json.loads((saved / "config.json").read_text())["dtype"] == "float32"
    assert read_shape(saved) == read_shape(directories["untied"])
    assert load_reference(str(saved)).config.vocab_size == VOCAB


def test_a_full_disk_leaves_the_old_directory(found, directories, target):
    for rank in found:
        assert "File too large" in rank["errors"]
        assert f"cannot save the model to {target / 'untied_tp1'}" in rank["errors"]
        assert "what was there is untouched" in rank["errors"]
    source = load_file(Path(directories["untied"]) / "model.safetensors")
    kept = load_file(target / "untied_tp1" / "model.safetensors")
    assert all(torch.equal(source[key], kept[key]) for key in source)
    assert not [path.name for path in target.iterdir() if "." in path.name]


@pytest.mark.parametrize("fused_norms", [False, True])
@pytest.mark.parametrize("kind", ["tied", "untied"])
@pytest.mark.parametrize("tp, pp", [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_the_mapping_and_its_inverse(directories, kind, tp, pp, fused_norms):
    shape = read_shape(directories[kind])
    source = load_file(Path(directories[kind]) / "model.safetensors")
    back = {}
    for number in range(pp):
        layers = shape.layers // pp
        stage = Stage(layers=range(number * layers, (number + 1) * layers), first=number == 0, last=number == pp - 1)
        shards = [
            hf_to_megatron(source, shape, rank, tp, padded_vocab(VOCAB, tp), stage=stage, fused_norms=fused_norms)
            for rank in range(tp)
        ]
        assert not any("decoder.layers.2." in name for name in shards[0]) or pp == 1
        back |= megatron_to_hf(shards, shape, stage=stage, fused_norms=fused_norms)
    assert back.keys() == source.keys()
    assert all(torch.equal(back[name], source[name]) for name in source)


def test_transformer_engines_names(directories):
    names = {
        entry.megatron
        for entry in entries(
            read_shape(directories["untied"]), Stage(layers=range(1), first=False, last=False), fused_norms=True
        )
    }
    assert "decoder.layers.0.self_attention.linear_qkv.layer_norm_weight" in names
    assert "decoder.layers.0.mlp.linear_fc1.layer_norm_weight" in names
    assert len(names) == 8


def test_padding_rows_are_zero(directories):
    shape = read_shape(directories["tied"])
    last = shard(Kind.VOCABULARY, [torch.ones(VOCAB, 4)], shape, tp_rank=1, tp_size=2, padded_vocab=VOCAB + 1)
    assert last.shape == (65, 4)
    assert last.sum(1).tolist() == [4.0] * 64 + [0.0]


def test_missing_and_unknown_tensors_are_named(directories, tmp_path):
    shape = read_shape(directories["tied"])
    names = [name for entry in entries(shape, Stage.whole(shape)) for name in entry.hf]
    hf._check_names(shape, [*names, "lm_head.weight"], tmp_path)  # a tied model may repeat its embedding
    with pytest.raises(ValueError, match=r"lacks 1 tensors, such as model\.norm\.weight"):
        hf._check_names(shape, [name for name in names if name != "model.norm.weight"], tmp_path)
    with pytest.raises(ValueError, match=r"holds 1 unknown tensors, such as model\.layers\.0\.self_attn\.q_proj\.bias"):
        hf._check_names(shape, [*names, "model.layers.0.self_attn.q_proj.bias"], tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        hf._weight_files(tmp_path)
