"""The policy as its own annotator, through the rollout engine, on two tensor-parallel ranks."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from megatron_bridge.annotation import Message
from megatron_bridge.device import megatron_runtime
from megatron_bridge.model.gpt import build_model
from megatron_bridge.model.hf import load_hf
from megatron_bridge.model.shape import Layout, read_shape
from megatron_bridge.parallel import start_parallel
from megatron_bridge.rollout.embedded import EmbeddedEngine
from megatron_bridge.rollout.engine import SamplingParams
from megatron_bridge.training.job import stop_tokens
from megatron_bridge.training.policy_answers import PolicyAnswers
from tests.distributed import run_distributed

POLICY = Path("specs/demo/policy")
MESSAGES = [
    Message(system="", user="34 | +41 =\n"),
    Message(system="", user="1" * 1000),
    Message(system="", user="20 | +11 | +12 =\n"),
]


def answers(tp: int) -> tuple[list[dict[str, Any]], str]:
    layout = Layout(tp=tp)
    start_parallel(layout, seed=0)
    shape, tokenizer = read_shape(POLICY), AutoTokenizer.from_pretrained(POLICY)
    with megatron_runtime():
        model = build_model(shape, layout)
        load_hf(model, POLICY)
        engine = EmbeddedEngine(model, vocab_size=shape.vocab_size, max_context=shape.max_position)
        policy = PolicyAnswers(
            engine,
            tokenizer,
            stop_token_ids=stop_tokens(POLICY, tokenizer),
            seed=0,
        )
        long = policy.answer(MESSAGES, max_tokens=64, temperature=0.0)
        prompt = tokenizer.encode("\n\n34 | +41 =\n\n", add_special_tokens=False)
        params = SamplingParams(
            temperature=0.0, max_new_tokens=64, stop_token_ids=stop_tokens(POLICY, tokenizer), seed=1
        )
        ((sample,),) = engine.generate([prompt], 1, params, keys=[9])
        short = policy.answer(MESSAGES[:1], max_tokens=3, temperature=0.0)
        room = shape.max_position - len(tokenizer.encode("\n\n\n", add_special_tokens=False)) - 2
        full = policy.answer([Message(system="", user="1" * room)], max_tokens=64, temperature=0.0)
    return [asdict(reply) for reply in (*long, *short, *full)], tokenizer.decode(sample.token_ids[:-1])


@pytest.mark.distributed
def test_the_policy_answers_on_every_rank_alike() -> None:
    first, second = run_distributed(answers, 2, 2)
    assert first == second
    (sums, filled, _, cut, full), greedy = first
    assert sums["text"] == greedy != ""
    assert sums["missing"] is None
    assert (sums["usage"]["requests"], sums["usage"]["prompt_tokens"] > 0) == (1, True)
    assert filled["missing"] == "too_long"
    assert (cut["missing"], cut["text"], cut["usage"]["completion_tokens"]) == ("cut", "", 3)
    assert cut["note"] == "the answer was cut at task.annotator.max_tokens = 3: raise it"
    assert (full["missing"], full["usage"]["completion_tokens"]) == ("cut", 2)
    assert full["note"].startswith("the answer was cut where the policy's context of ")
    assert "max_tokens" not in full["note"].replace("max_response_tokens", "")
