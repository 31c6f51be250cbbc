"""Hidden states in place of logits, the output weight, and gradients through Megatron's wrappers and schedules."""

import pytest
import torch
from megatron.core import parallel_state
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.pipeline_parallel import get_forward_backward_func
from megatron.core.tensor_parallel import vocab_parallel_cross_entropy
from megatron.core.transformer.module import Float16Module

from megatron_bridge.model.config import transformer_config
from megatron_bridge.model.gpt import bare, build_model
from megatron_bridge.model.hf import chunk_stage, load_hf
from megatron_bridge.model.hf_mapping import hf_to_megatron
from megatron_bridge.model.shape import Layout, read_shape
from megatron_bridge.parallel import start_parallel
from tests.bridge.ranks import PP2, TP1, TP2, gathered, loaded, under
from tests.bridge.tiny import load_reference, make_model, positions, some_ids
from tests.distributed import run_distributed

pytestmark = pytest.mark.distributed

VOCAB = 128  # no padding: the loss of this test runs over all columns
LENGTH, BATCH, MICRO_BATCHES = 16, 2, 2
LAYOUTS = {"tp1": TP1, "tp2": TP2, "pp2": PP2}


def _ids() -> torch.Tensor:
    return some_ids(BATCH * MICRO_BATCHES, LENGTH + 1, vocab=VOCAB)


def _hidden(directory: str, layout: Layout) -> dict:
    """What the model returns with and without `return_hidden`, bare and wrapped."""
    ids = _ids()[:, :-1]
    (model,) = loaded(directory, layout).eval()
    wrapped = DistributedDataParallel(model.config, DistributedDataParallelConfig(), model)
    with torch.no_grad():
        logits_sbv = model(ids, positions(ids), None).transpose(0, 1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(model.output_layer, "forward", _forbidden)
            hidden_sbh = model(ids, positions(ids), None, return_hidden=True)
            through_ddp = wrapped(ids, positions(ids), None, return_hidden=True)
    return {
        "hidden": hidden_sbh,
        "product_error": (hidden_sbh @ model.output_weight().T - logits_sbv).abs().max().item(),
        "local_error": (model.local_logits(hidden_sbh) - logits_sbv).abs().max().item(),
        "through_ddp": torch.equal(hidden_sbh, through_ddp),
        "logits": gathered(logits_sbv, layout, VOCAB),
        "bare": bare(wrapped) is model,
        "weight_is_embedding": model.output_weight() is model.embedding.word_embeddings.weight,
    }


def _forbidden(*_args, **_kwargs):
    raise AssertionError("logits were formed")


def _gradient_errors(directory: str, layout: Layout, hf_gradients: dict, *, finalize: bool = True) -> dict:
    """The largest error of each parameter's gradient, relative to the largest gradient."""
    (model,) = loaded(directory, layout)
    wrapped = DistributedDataParallel(model.config, DistributedDataParallelConfig(grad_reduce_in_fp32=True), model)
    if finalize:
        model.config.finalize_model_grads_func = finalize_model_grads
    batches = iter(_ids().split(BATCH))

    def forward_step(_iterator, module):
        batch = next(batches)
        ids, labels_sb = batch[:, :-1], batch[:, 1:].T.contiguous()

        def loss(hidden_sbh):
            loss_sb = vocab_parallel_cross_entropy(bare(module).local_logits(hidden_sbh), labels_sb)
            return loss_sb.sum(), torch.tensor(labels_sb.numel(), dtype=torch.int), {}

        return module(ids, positions(ids), None, return_hidden=True), loss

    get_forward_backward_func()(
        forward_step_func=forward_step,
        data_iterator=None,
        model=[wrapped],
        num_microbatches=MICRO_BATCHES,
        seq_length=LENGTH,
        micro_batch_size=BATCH,
    )
    wanted = hf_to_megatron(
        hf_gradients,
        read_shape(directory),
        parallel_state.get_tensor_model_parallel_rank(),
        layout.tp,
        VOCAB,
        stage=chunk_stage(model),
    )
    got = {name: parameter.main_grad for name, parameter in model.named_parameters()}
    if not finalize:
        got = {name: gradient / (BATCH * MICRO_BATCHES * LENGTH) for name, gradient in got.items()}
    assert got.keys() == wanted.keys()
    largest = max(gradient.abs().max() for gradient in wanted.values())
    return {name: float((got[name] - wanted[name]).abs().max() / largest) for name in got}


def _bfloat16(directory: str) -> torch.Tensor:
    """Hidden states of a bfloat16 model inside Megatron's wrapper, which gives float32 back."""
    model = build_model(read_shape(directory), TP2, dtype=torch.bfloat16)
    load_hf(model, directory)
    ids = _ids()[:, :-1]
    with torch.no_grad():
        return Float16Module(model[0].config, model[0])(ids, positions(ids), None, return_hidden=True)


def _everything(directories: dict[str, str], hf_gradients: dict[str, dict]) -> dict:
    found = {}
    for name, layout in LAYOUTS.items():
        with under(layout):
            for kind, directory in directories.items():
                if layout.pp == 1:
                    found["hidden", kind, name] = _hidden(directory, layout)
                found["gradients", kind, name] = _gradient_errors(directory, layout, hf_gradients[kind])
    with under(TP2):
        found["unfinished"] = _gradient_errors(directories["tied"], TP2, hf_gradients["tied"], finalize=False)
        found["bfloat16"] = _bfloat16(directories["tied"])
        with pytest.raises(TypeError) as caught:
            bare(torch.nn.Linear(1, 1))
        found["no model"] = str(caught.value)
        # one configuration is refused before anything is built
        with pytest.raises(ValueError, match="cannot be split over tp 3"):
            build_model(read_shape(directories["tied"]), Layout(tp=3))
        with pytest.raises(ValueError, match=r"dtype torch\.float16: parameters are torch\.float32 or"):
            transformer_config(read_shape(directories["tied"]), TP2, dtype=torch.float16)
        with pytest.raises(ValueError, match="2 ranks are not tp 1 x pp 1 x cp 1 x dp 1 = 1: start 1 processes"):
            start_parallel(Layout(), 1)
        with pytest.raises(ValueError, match="2 ranks are not tp 3 x pp 1 x cp 1 x dp 1 = 3: start 3 processes"):
            start_parallel(Layout(tp=3), 1)
    return found


@pytest.fixture(scope="module")
def directories(tmp_path_factory) -> dict[str, str]:
    return {
        kind: make_model(tmp_path_factory.mktemp(kind), tied=kind == "tied", vocab=VOCAB, sharp=2.0)
        for kind in ("tied", "untied")
    }


@pytest.fixture(scope="module")
def reference(directories) -> dict[str, dict]:
    """Hidden states, logits and the gradients of the mean cross entropy, as transformers computes them."""
    found = {}
    ids = _ids()
    for kind, directory in directories.items():
        model = load_reference(directory)
        output = model(ids[:, :-1], output_hidden_states=True)
        torch.nn.functional.cross_entropy(output.logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
        found[kind] = {
            "hidden": output.hidden_states[-1].detach(),
            "logits": output.logits.detach(),
            "gradients": {name: parameter.grad for name, parameter in model.named_parameters()},
        }
    return found


@pytest.fixture(scope="module")
def found(directories, reference) -> list[dict]:
    gradients = {kind: values["gradients"] for kind, values in reference.items()}
    return run_distributed(_everything, 2, directories, gradients)


@pytest.mark.parametrize("kind", ["tied", "untied"])
@pytest.mark.parametrize("name", ["tp1", "tp2"])
def test_hidden_states_times_output_weight_are_the_logits(found, reference, kind, name):
    for rank in found:
        result = rank["hidden", kind, name]
        assert result["hidden"].shape == (LENGTH, BATCH * MICRO_BATCHES, 64)
        assert (result["hidden"].transpose(0, 1) - reference[kind]["hidden"]).abs().max() < 1e-5
        assert (result["logits"] - reference[kind]["logits"]).abs().max() < 1e-5
        assert result["product_error"] < 1e-5
        assert result["local_error"] == 0


@pytest.mark.parametrize("name", ["tp1", "tp2"])
def test_wrappers_pass_the_keyword_on(found, name):
    assert all(rank["hidden", "tied", name][key] for rank in found for key in ("through_ddp", "bare"))


def test_a_tied_output_weight_is_the_embedding(found):
    assert found[0]["hidden", "tied", "tp2"]["weight_is_embedding"]
    assert not found[0]["hidden", "untied", "tp2"]["weight_is_embedding"]


@pytest.mark.parametrize("kind", ["tied", "untied"])
@pytest.mark.parametrize("name", list(LAYOUTS))
def test_gradients_are_hugging_faces(found, kind, name):
    """Parameter by parameter, through the pipeline schedule; tied ones gather both uses of the embedding."""
    for rank in found:
        errors = rank["gradients", kind, name]
        assert max(errors.values()) < 1e-5, max(errors, key=errors.get)


def test_without_finalize_the_query_norm_is_wrong(found):
    """Each tp rank then holds the gradient of its own heads only: the comparison above can fail."""
    errors = found[0]["unfinished"]
    assert errors["decoder.layers.0.self_attention.q_layernorm.weight"] > 1e-3
    assert errors["decoder.layers.0.mlp.linear_fc1.weight"] < 1e-5


def test_bfloat16_parameters(found, reference):
    hidden_sbh = found[0]["bfloat16"]
    wanted_sbh = reference["tied"]["hidden"].transpose(0, 1)
    assert hidden_sbh.dtype is torch.float32
    assert (hidden_sbh - wanted_sbh).abs().mean() < 0.05 * wanted_sbh.abs().mean()


def test_bare_names_what_it_was_given(found):
    assert found[0]["no model"] == "a Linear holds no RoutedGPTModel; build models with build_model"
