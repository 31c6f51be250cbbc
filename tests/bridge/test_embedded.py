"""Sampling with a key/value cache: right probabilities, and the same tokens however it is cut."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch

from megatron_bridge.rollout.embedded import EmbeddedEngine, _noise, inverse_cdf
from megatron_bridge.rollout.engine import SamplingParams
from tests.bridge.ranks import PP2, TP1, TP2, VPP2, loaded, under
from tests.bridge.tiny import VOCAB, load_reference, make_model, some_ids
from tests.distributed import run_distributed

pytestmark = pytest.mark.distributed

PARAMS = SamplingParams(temperature=0.7, max_new_tokens=12, stop_token_ids=(5, 17, 40, 77), seed=11)
GREEDY = replace(PARAMS, temperature=0.0)
LENGTHS = (9, 3, 14, 3, 1, 20, 7)
PROMPTS = [some_ids(1, length, seed=index)[0].tolist() for index, length in enumerate(LENGTHS)]
KEYS = [100, 7, 2**40, 0, 12, 3, 5]
N = 3
MANY = 4000


def _engine(model, **change) -> EmbeddedEngine:
    return EmbeddedEngine(model, **({"vocab_size": VOCAB, "max_context": 64} | change))


def _everything(directory: str) -> dict:
    found = {}
    for name, layout in (("tp1", TP1), ("tp2", TP2), ("pp2", PP2), ("vpp2", VPP2)):
        with under(layout):
            model = loaded(directory, layout)
            engine = _engine(model)
            found["sampled", name] = engine.generate(PROMPTS, N, PARAMS, keys=KEYS)
            found["greedy", name] = engine.generate(PROMPTS, 1, GREEDY, keys=KEYS)
            found["scores", name] = engine.score(PROMPTS)
            if layout == TP2:
                # the last column is padding; make it the likeliest
                with torch.no_grad():
                    model[-1].output_weight()[-1] = 100.0
                found["padded"] = engine.generate(PROMPTS, N, PARAMS, keys=KEYS)
    with under(TP1):
        found |= _one_layout(loaded(directory, TP1))
    return found


def _one_layout(model) -> dict:
    engine, found = _engine(model), {}
    found["again"] = engine.generate(PROMPTS, N, PARAMS, keys=KEYS)
    engine.sync(8)
    found["pieces"] = {
        size: _engine(model, max_batch=size).generate(PROMPTS, N, PARAMS, keys=KEYS) for size in (1, 2, 5, 20)
    }
    order = list(reversed(range(len(PROMPTS))))
    found["reversed"] = engine.generate([PROMPTS[i] for i in order], N, PARAMS, keys=[KEYS[i] for i in order])[::-1]
    found["alone"] = [
        engine.generate([prompt], N, PARAMS, keys=[key])[0] for prompt, key in zip(PROMPTS, KEYS, strict=True)
    ]
    found["seed"] = engine.generate(PROMPTS, N, replace(PARAMS, seed=12), keys=KEYS)
    found["same prompt"] = engine.generate([PROMPTS[0]] * 2, 2, PARAMS, keys=[1, 2])
    once = replace(PARAMS, max_new_tokens=1, stop_token_ids=())
    found["many"] = engine.generate([PROMPTS[0]], MANY, once, keys=[0])[0]
    found["no stop"] = engine.generate(PROMPTS, 1, replace(PARAMS, stop_token_ids=()), keys=KEYS)
    small = _engine(model, max_context=16)
    found["cut"] = small.generate(PROMPTS[:2], 1, replace(PARAMS, stop_token_ids=()), keys=KEYS[:2])
    found["messages"] = [
        _message(small, [[1], list(range(16))], [0, 1]),
        _message(small, [[]], [0]),
        _message(small, [[VOCAB]], [0]),
        _message(small, [[1]], [0, 1]),
    ]
    with pytest.raises(ValueError) as caught:
        _engine(model, max_context=129)
    found["messages"].append(str(caught.value))
    found["modes"] = []
    for training in (True, False):
        model.train(training)
        engine.generate([[1]], 1, PARAMS, keys=[0])
        found["modes"].append(model.training == training == model[0].decoder.layers[0].training)
    # sampling leaves nothing behind that training would trip over
    model.train()[0](torch.tensor([[1, 2]]), torch.tensor([[0, 1]]), None).sum().backward()
    return found


def _message(engine: EmbeddedEngine, prompts: list, keys: list) -> str:
    with pytest.raises(ValueError) as caught:
        engine.generate(prompts, 1, PARAMS, keys=keys)
    return str(caught.value)


def _tokens(answers) -> list:
    return [[(sample.token_ids, sample.finish) for sample in row] for row in answers]


def _distance(one, other) -> float:
    """The largest difference of log-probabilities between two answers with the same tokens."""
    pairs = zip(itertools.chain(*one), itertools.chain(*other), strict=True)
    return max(abs(a - b) for x, y in pairs for a, b in zip(x.logprobs, y.logprobs, strict=True))


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> str:
    return make_model(tmp_path_factory.mktemp("policy"), tied=False, sharp=2.0, layers=4)


@pytest.fixture(scope="module")
def both_ranks(directory) -> list[dict]:
    return run_distributed(_everything, 2, directory)


@pytest.fixture(scope="module")
def found(both_ranks) -> dict:
    return both_ranks[0]


@pytest.fixture(scope="module")
def reference(directory):
    return load_reference(directory)


def _full_logprobs(reference, prompt, sample, temperature: float) -> torch.Tensor:
    """Log-probabilities of a whole response by one forward over prompt and response, [T, V]."""
    ids = torch.tensor([[*prompt, *sample.token_ids]])
    with torch.no_grad():
        logits_TV = reference(ids).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(logits_TV / temperature, 1)


@pytest.mark.parametrize("kind, temperature", [("sampled", 0.7), ("greedy", 1.0)])
@pytest.mark.parametrize("name", ["tp1", "tp2"])
def test_logprobs_equal_a_full_forward(found, reference, kind, temperature, name):
    for prompt, samples in zip(PROMPTS, found[kind, name], strict=True):
        for sample in samples:
            full_TV = _full_logprobs(reference, prompt, sample, temperature)
            chosen_T = full_TV.gather(1, torch.tensor(sample.token_ids)[:, None])[:, 0]
            assert (chosen_T - torch.tensor(sample.logprobs)).abs().max() < 1e-5
            if kind == "greedy":
                assert full_TV.argmax(1).tolist() == list(sample.token_ids)


@pytest.mark.parametrize("name", ["tp1", "tp2", "pp2", "vpp2"])
def test_scores_equal_a_full_forward(both_ranks, reference, name):
    for rank in both_ranks:
        for prompt, scores in zip(PROMPTS, rank["scores", name], strict=True):
            ids = torch.tensor([prompt])
            with torch.no_grad():
                logp_TV = torch.log_softmax(reference(ids).logits[0, :-1], 1)
            expected = logp_TV.gather(1, ids[0, 1:, None])[:, 0]
            assert len(scores) == len(prompt) - 1
            assert (expected - torch.tensor(scores)).abs().sum() < 1e-4


def test_sampling_is_at_the_sampling_temperature(found, reference):
    sample = found["sampled", "tp1"][0][0]
    wrong_TV = _full_logprobs(reference, PROMPTS[0], sample, 1.0)
    wrong_T = wrong_TV.gather(1, torch.tensor(sample.token_ids)[:, None])[:, 0]
    assert (wrong_T - torch.tensor(sample.logprobs)).abs().max() > 0.1


@pytest.mark.parametrize("kind", ["sampled", "greedy"])
def test_layouts_and_ranks_sample_the_same_tokens(both_ranks, kind):
    first = both_ranks[0][kind, "tp1"]
    for rank, name in itertools.product(both_ranks, ("tp1", "tp2", "pp2", "vpp2")):
        assert _tokens(rank[kind, name]) == _tokens(first)
        assert _distance(rank[kind, name], first) < 1e-5
    for name in ("tp2", "pp2", "vpp2"):
        assert both_ranks[0][kind, name] == both_ranks[1][kind, name]


@pytest.mark.parametrize("size", [1, 2, 5, 20])
def test_any_cut_into_batches_samples_the_same(found, size):
    assert _tokens(found["pieces"][size]) == _tokens(found["again"])
    assert _distance(found["pieces"][size], found["again"]) < 1e-5


@pytest.mark.parametrize("other", ["reversed", "alone"])
def test_order_and_company_do_not_matter(found, other):
    assert _tokens(found[other]) == _tokens(found["again"])
    assert _distance(found[other], found["again"]) < 1e-5


def test_seed_key_and_sample_index_each_matter(found):
    assert _tokens(found["seed"]) != _tokens(found["again"])
    assert len({sample.token_ids for row in found["same prompt"] for sample in row}) == 4


def test_stop_tokens_end_a_response_and_are_part_of_it(found):
    samples = [sample for row in found["again"] for sample in row]
    stops = set(PARAMS.stop_token_ids)
    assert {sample.finish for sample in samples} == {"stop", "length"}
    for sample in samples:
        assert len(sample.logprobs) == len(sample.token_ids) <= PARAMS.max_new_tokens
        assert not stops & set(sample.token_ids[:-1])
        assert (sample.token_ids[-1] in stops) == (sample.finish == "stop")
        if sample.finish == "length":
            assert len(sample.token_ids) == PARAMS.max_new_tokens
    # a response goes as it would without stopping, up to its stop
    for row, (free,) in zip(found["again"], found["no stop"], strict=True):
        assert free.token_ids[: len(row[0].token_ids)] == row[0].token_ids


def test_a_response_is_cut_at_the_end_of_the_context(found):
    cut, whole = found["cut"], found["no stop"]
    assert [(len(row[0].token_ids), row[0].finish) for row in cut] == [(7, "length"), (12, "length")]
    assert cut[0][0].token_ids == whole[0][0].token_ids[:7]


def test_frequencies_are_the_probabilities(found, reference):
    """Pearson's statistic over the tokens expected at least 5 times, against its mean + 4 standard deviations."""
    ids = torch.tensor([PROMPTS[0]])
    with torch.no_grad():
        expected_V = torch.softmax(reference(ids).logits[0, -1].double() / 0.7, 0).numpy() * MANY
    counts_V = np.bincount([sample.token_ids[0] for sample in found["many"]], minlength=VOCAB)
    often = expected_V >= 5
    expected, counts = expected_V[often], counts_V[often]
    if not often.all():
        expected = np.append(expected, expected_V[~often].sum())
        counts = np.append(counts, counts_V[~often].sum())
    statistic = ((counts - expected) ** 2 / expected).sum()
    freedom = len(expected) - 1
    assert freedom >= 8
    assert statistic < freedom + 4 * (2 * freedom) ** 0.5


def test_padded_columns_are_never_sampled(found):
    tokens = [token for row in found["padded"] for sample in row for token in sample.token_ids]
    assert max(tokens) < VOCAB


def test_weight_version_is_the_trainers(found):
    for name, version in (("again", 0), ("alone", 8)):
        for sample in itertools.chain(*found[name]):
            assert sample.weight_versions == (version,) * len(sample.token_ids)


def test_the_models_mode_is_restored(found):
    assert found["modes"] == [True, True]


def test_messages(found):
    assert found["messages"] == [
        "prompt 1 has 16 tokens and the context 16: shorten it to at most 15, or raise max_context",
        "prompt 0 is empty: give at least 1 token",
        f"prompt 0 holds a token outside of the vocabulary 0 .. {VOCAB - 1}",
        "1 prompts with 2 keys: give one key a prompt",
        "max_context 129: choose 2 to 128 tokens, the model's longest",
    ]


def test_parameters_are_checked():
    with pytest.raises(ValueError, match=r"temperature -1.*from 0 \(greedy\) upwards"):
        replace(PARAMS, temperature=-1)
    with pytest.raises(ValueError, match="max_new_tokens 0: ask for at least 1"):
        replace(PARAMS, max_new_tokens=0)


def test_inverse_cdf_never_draws_what_has_no_probability():
    probability = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]], dtype=torch.float64)
    noise = torch.tensor([0.0, 0.25, 0.5, 0.75, 1 - 2**-53], dtype=torch.float64)
    assert inverse_cdf(probability.expand(5, -1), noise).tolist() == [1, 1, 3, 3, 3]
    # a total that is not 1, and a product that would round up to it
    assert inverse_cdf(probability * 3, torch.tensor([1.0], dtype=torch.float64)).tolist() == [3]


def test_noise_is_a_pure_function_of_seed_key_and_index():
    requests = [(0, 0), (0, 1), (1, 0), (2**40, 3), (-1, 0)]
    noise = _noise(requests, 8, 5)
    assert noise.dtype is torch.float64
    assert noise.unique().numel() == noise.numel()
    assert torch.equal(_noise(requests[::-1], 3, 5), noise.flip(0)[:, :3])
    assert not torch.equal(_noise(requests, 8, 6), noise)
