"""Samples, weights and their versions through a real server."""

from __future__ import annotations

import itertools
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from megatron_bridge.device import megatron_runtime
from megatron_bridge.model.gpt import build_model
from megatron_bridge.model.hf import load_hf
from megatron_bridge.model.shape import Layout, read_shape
from megatron_bridge.rollout import protocol, weights
from megatron_bridge.rollout.embedded import EmbeddedEngine
from megatron_bridge.rollout.engine import PromptError, RolloutError, SamplingParams
from tests.bridge.ranks import TP1, TP2, loaded, under
from tests.distributed import run_distributed
from tests.rollout.rig import (
    KEYS,
    LONG,
    POLICY,
    PROMPTS,
    SHORT,
    VOCAB,
    N,
    change,
    check_whole,
    gaps,
    served,
    start_long,
)

pytestmark = pytest.mark.sglang
STOP = SamplingParams(temperature=0.7, max_new_tokens=40, stop_token_ids=(1, 41), seed=0)


def test_samples_stop_where_they_should_and_carry_the_trainers_logprobs(model, server, tmp_path):
    with served(model, tmp_path, [server.url]) as engine:
        engine.sync(0)
        drawn = engine.start(PROMPTS, N, STOP, keys=KEYS).result()
        whole = engine.start(PROMPTS, N, SHORT, keys=KEYS).result()
    assert [len(row) for row in drawn.samples] == [N] * len(PROMPTS)
    finishes = set()
    for sample in itertools.chain(*drawn.samples):
        finishes.add(sample.finish)
        assert not set(STOP.stop_token_ids) & set(sample.token_ids[:-1])
        assert (sample.token_ids[-1] in STOP.stop_token_ids) == (sample.finish == "stop")
        assert sample.finish == "stop" or len(sample.token_ids) == STOP.max_new_tokens
        assert sample.weight_versions == (0,) * len(sample.token_ids)
    assert "stop" in finishes
    check_whole(whole, SHORT)
    assert max(gaps(model, whole)) < 1e-4


def test_embedded_engine_and_server_agree_on_the_same_tokens(model, server, tmp_path):
    """The embedded engine draws at a temperature that is not 1; the server must give those tokens the same log-probs.

    A server says log-probs at the sampling temperature of what it draws itself, so it is led along the tokens: greedy
    answers of both, compared token by token.
    """
    greedy = SamplingParams(temperature=0.0, max_new_tokens=40, stop_token_ids=(), seed=0)
    embedded = EmbeddedEngine(model, vocab_size=VOCAB, max_context=256)
    with served(model, tmp_path, [server.url]) as engine:
        engine.sync(0)
        there = engine.start(PROMPTS, 1, greedy, keys=KEYS).result().samples
        here = embedded.start(PROMPTS, 1, greedy, keys=KEYS).result().samples
        sampled = engine.start(PROMPTS, 4, replace(STOP, stop_token_ids=()), keys=KEYS).result().samples
    for (one,), (other,) in zip(here, there, strict=True):
        assert one.token_ids == other.token_ids
        assert max(abs(a - b) for a, b in zip(one.logprobs, other.logprobs, strict=True)) < 1e-4
    for prompt, row in zip(PROMPTS, sampled, strict=True):
        for sample in row:
            ids = torch.tensor([[*prompt, *sample.token_ids]])
            with torch.no_grad():
                hidden_Sbh = model[0](ids, torch.arange(ids.shape[1])[None], None, return_hidden=True)
            logits_TV = hidden_Sbh[len(prompt) - 1 : -1, 0] @ model[0].output_weight()[:VOCAB].T
            logp_TV = torch.log_softmax(logits_TV.double() / STOP.temperature, -1)
            expected = logp_TV.gather(1, torch.tensor(sample.token_ids)[:, None])[:, 0]
            assert (expected - torch.tensor(sample.logprobs)).abs().max() < 1e-4


@pytest.mark.parametrize("sync", ["disk", "tensor", "distributed"])
def test_new_weights_arrive(model, server, tmp_path, sync):
    """Small buckets, so that there are many; the probe would stop the run where one were lost."""
    with served(model, tmp_path, [server.url], sync=sync, bucket_mb=1) as engine:
        for step in range(3):
            change(model, step)
            engine.sync(step)
            drawn = engine.start(PROMPTS, 1, SHORT, keys=KEYS).result()
            assert max(gaps(model, drawn, version=step)) < 1e-4
            check_whole(drawn, SHORT, n=1)
            metrics = engine.metrics()
            assert metrics["rollout/probe_gap"] < 1e-4
            assert metrics["rollout/retries"] == metrics["rollout/stale_answers"] == 0


def test_buckets_hold_every_tensor_once():
    named = [(str(i), torch.zeros(size)) for i, size in enumerate((10, 300, 5, 5, 5, 90))]
    cut = list(weights.buckets(named, 400))
    assert [name for bucket in cut for name, _ in bucket] == [name for name, _ in named]
    assert len(cut) == 4
    assert all(sum(t.nbytes for _, t in bucket) <= 400 or len(bucket) == 1 for bucket in cut)


def test_a_lost_tensor_stops_the_run(model, server, tmp_path, monkeypatch):
    """What the probe is for: an update that says it succeeded and did not."""
    collect = weights.collect_hf
    monkeypatch.setattr(
        weights,
        "collect_hf",
        lambda *args, **kwargs: (pair for pair in collect(*args, **kwargs) if "layers.1.mlp.up_proj" not in pair[0]),
    )
    with served(model, tmp_path, [server.url]) as engine:
        change(model, 9)
        with pytest.raises(RolloutError, match=r"not hold the trainer's weights after sync=tensor: .* up to 0\.\d+"):
            engine.sync(1)


def test_an_update_interrupts_samples_and_they_go_on(model, server, tmp_path):
    """Every token says which weights drew it, and has their log-prob."""
    old = build_model(read_shape(POLICY), Layout())
    old.load_state_dict(model.state_dict())
    with served(model, tmp_path, [server.url]) as engine:
        engine.sync(3)
        pending = start_long(engine)
        change(model, 4)
        engine.sync(4)
        drawn = pending.result()
        resumed = engine.metrics()["rollout/resumed"]
    check_whole(drawn, LONG)
    samples = list(itertools.chain(*drawn.samples))
    assert all(list(sample.weight_versions) == sorted(sample.weight_versions) for sample in samples)
    mixed = [sample for sample in samples if set(sample.weight_versions) == {3, 4}]
    assert resumed >= len(mixed) >= 10
    assert max(gaps(old, drawn, version=3)) < 1e-4
    assert max(gaps(model, drawn, version=4)) < 1e-4
    assert max(gaps(model, drawn, version=3)) > 1e-2


def test_requests_in_flight_are_bounded(model, server, tmp_path):
    with served(model, tmp_path, [server.url], concurrency=5) as engine:
        engine.sync(0)
        pending = engine.start(PROMPTS, 2, replace(LONG, max_new_tokens=20), keys=KEYS)
        seen = set()
        assert pending.future is not None
        while not pending.future.done():
            seen.add(engine._client.pool.in_flight)
            time.sleep(0.005)
        assert max(seen) == 5
        pending.result()


def test_prompts_are_checked_before_they_are_sent(model, server, tmp_path):
    """A token outside of the vocabulary ends an SGLang 0.5.20 server."""
    with served(model, tmp_path, [server.url]) as engine:
        engine.sync(0)
        for prompt, message in (([], "is empty"), ([VOCAB], "outside of the vocabulary"), ([5] * 256, "256 tokens")):
            with pytest.raises(PromptError, match=message):
                engine.start([prompt], 1, LONG, keys=[0])
        (row,) = engine.start([[5] * 250], 2, LONG, keys=[0]).result().samples
    assert [len(sample.token_ids) for sample in row] == [6, 6]


def test_an_unknown_version_is_refused(model, server, tmp_path, monkeypatch):
    monkeypatch.delitem(protocol.DIALECTS, "0.5.20")
    with (
        served(model, tmp_path, [server.url]) as engine,
        pytest.raises(RolloutError, match=r"is SGLang 0\.5\.20: known are 0\.5\.21, "),
    ):
        engine.sync(0)


def _layouts(url: str, folder: str) -> list:
    """tp 2, cp 2, then dp 2, through the same server: weights gathered from shards, samples on every rank."""
    found = []
    for layout in (TP2, Layout(cp=2), TP1):
        with under(layout):
            model = loaded(POLICY, layout)
            with served(model, Path(folder), [url], sync="distributed") as engine:
                engine.sync(0)
                with torch.no_grad():
                    for parameter in model.parameters():
                        parameter.mul_(1.02)
                engine.sync(1)
                drawn = engine.start(PROMPTS, 1, SHORT, keys=KEYS).result()
                found.append((max(gaps(model, drawn)), drawn.samples))
    return found


@pytest.mark.distributed
def test_layouts_gather_their_shards(server, tmp_path):
    one, other = run_distributed(_layouts, 2, server.url, str(tmp_path))
    assert max(gap for gap, _ in (*one, *other)) < 1e-4
    assert one[0][1] == other[0][1]  # tp ranks train on the same tokens
    assert one[1][1] != other[1][1]  # context- and data-parallel ranks sample their own
    assert one[2][1] != other[2][1]


def test_training_goes_on_while_samples_are_drawn(model, server, tmp_path):
    """`start` returns at once, and the samples come in the background."""
    with served(model, tmp_path, [server.url]) as engine:
        engine.sync(0)
        pending = engine.start(PROMPTS, 1, replace(LONG, max_new_tokens=8), keys=KEYS)
        deadline = time.monotonic() + 60
        assert pending.future is not None
        while not pending.future.done():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        check_whole(pending.result(), replace(LONG, max_new_tokens=8), n=1)
    assert not [thread for thread in threading.enumerate() if thread.name == "rollouts"]


def test_megatron_runs_after_it(model):
    """The process group of sync=distributed leaves nothing behind."""
    with megatron_runtime():
        fresh = build_model(read_shape(POLICY), Layout())
        load_hf(fresh, POLICY)
        assert fresh[0](torch.tensor([[1, 2]]), torch.tensor([[0, 1]]), None).isfinite().all()
