"""Shapes and layouts: what is read, what is refused, and that no torch is needed to say so."""

import dataclasses
import json
import subprocess
import sys

import pytest

from megatron_bridge.model.shape import (
    Layout,
    ModelShape,
    layout_problems,
    micro_batch_group,
    padded_vocab,
    read_shape,
    shape_from_config,
)

CONFIG = {
    "model_type": "qwen3",
    "vocab_size": 129,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5e5},
}
SHAPE = ModelShape(
    model_type="qwen3",
    vocab_size=129,
    hidden_size=64,
    ffn_size=96,
    layers=6,
    heads=4,
    kv_heads=2,
    head_dim=32,
    max_position=128,
    rope_base=5e5,
    norm_eps=1e-6,
    tied=True,
)


def test_reads_a_directory(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert read_shape(tmp_path) == SHAPE


def test_missing_directory_names_the_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no .*config\.json"):
        read_shape(tmp_path)


def test_rope_base_of_older_configurations():
    old = {**CONFIG, "rope_theta": 1e6}
    del old["rope_parameters"]
    assert shape_from_config(old).rope_base == 1e6


def test_defaults_of_absent_fields():
    short = {key: value for key, value in CONFIG.items() if key not in ("num_key_value_heads", "head_dim")}
    shape = shape_from_config(short)
    assert (shape.kv_heads, shape.head_dim) == (4, 16)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"model_type": "gemma3"}, r"model_type 'gemma3' is not implemented; use one of qwen3, qwen2, llama"),
        ({"hidden_act": "gelu"}, r"hidden_act 'gelu' is not implemented; use one of silu"),
        ({"attention_bias": True}, r"attention_bias True is not implemented; it must be False"),
        ({"use_sliding_window": True}, r"use_sliding_window True is not implemented"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, r"rope_type 'yarn' is not implemented"),
        ({"rope_parameters": None}, r"no rotary base"),
        ({"model_type": "llama", "mlp_bias": True}, r"mlp_bias True is not implemented; it must be False"),
        ({"model_type": "qwen2", "use_sliding_window": True}, r"use_sliding_window True is not implemented"),
        (
            {"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0}},
            r"'llama3' needs low_freq_factor, high_freq_factor, original_max_position_embeddings",
        ),
    ],
)
def test_refuses_what_it_would_compute_wrongly(change, message):
    with pytest.raises(ValueError, match=message):
        shape_from_config({**CONFIG, **change})


def test_missing_fields_are_named():
    with pytest.raises(ValueError, match="missing vocab_size, rms_norm_eps"):
        shape_from_config({k: v for k, v in CONFIG.items() if k not in ("vocab_size", "rms_norm_eps")})


def test_padding_is_the_next_multiple():
    assert [padded_vocab(129, tp) for tp in (1, 2, 4, 129)] == [129, 130, 132, 129]


def test_fitting_layouts_have_no_problems():
    assert [layout_problems(SHAPE, Layout(tp=tp, pp=pp)) for tp, pp in ((1, 1), (2, 1), (2, 3), (1, 6))] == [[]] * 4


def test_each_problem_has_a_message():
    shape = dataclasses.replace(SHAPE, ffn_size=97)
    assert layout_problems(shape, Layout(tp=4, pp=4)) == [
        "2 key/value heads (num_key_value_heads) cannot be split over tp 4: choose tp from 1, 2, or another model",
        "97 feed-forward channels (intermediate_size) cannot be split over tp 4: choose tp from 1, or another model",
        "6 layers (num_hidden_layers) cannot be split over pp 4: choose pp from 1, 2, 3, 6",
    ]
    assert layout_problems(SHAPE, Layout(tp=3))[0].startswith("4 attention heads (num_attention_heads)")
    assert "no multiple" in layout_problems(dataclasses.replace(SHAPE, kv_heads=3), Layout())[0]


def test_chunks_of_a_stage_are_of_one_size():
    assert layout_problems(SHAPE, Layout(pp=3, vpp=2)) == layout_problems(SHAPE, Layout(pp=2, vpp=3)) == []
    assert layout_problems(SHAPE, Layout(pp=3, vpp=4)) == [
        "the 2 layers of a pipeline stage (6 layers over pp 3) cannot be split into vpp 4 chunks: choose vpp from 1, 2"
    ]
    assert len(layout_problems(SHAPE, Layout(pp=4, vpp=2))) == 1
    with pytest.raises(ValueError, match=r"layout vpp 2 interleaves pipeline stages: set pp to 2 or more, or vpp to 1"):
        Layout(vpp=2)


@pytest.mark.parametrize(
    ("count", "pp", "size"), [(2, 2, 2), (3, 2, 3), (4, 2, 2), (5, 2, 3), (7, 4, 7), (8, 4, 4), (9, 4, 5), (11, 4, 6)]
)
def test_groups_of_micro_batches_leave_none_or_one_for_each_stage(count, pp, size):
    assert micro_batch_group(count, pp) == size


def test_fewer_micro_batches_than_stages_make_no_group():
    with pytest.raises(ValueError, match="3 micro-batches: an interleaved pipeline of pp 4 stages needs 4 or more"):
        micro_batch_group(3, 4)


def test_layout_from_a_number_of_ranks():
    assert Layout.fit(world=12, tp=2, pp=3) == Layout(tp=2, pp=3, dp=2)
    with pytest.raises(
        ValueError, match=r"6 ranks cannot be split by tp 2 x pp 2 = 4: start a multiple of 4 processes"
    ):
        Layout.fit(world=6, tp=2, pp=2)
    with pytest.raises(ValueError, match="layout tp = 0"):
        Layout(tp=0)


def test_needs_neither_torch_nor_megatron():
    code = (
        "import sys; import megatron_bridge.model.shape, megatron_bridge.rollout.engine;"
        "sys.exit(sorted({'torch', 'megatron', 'numpy', 'transformers'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
