"""What is asked of a server, what is believed of its answers, and which servers are known; no server needed."""

from __future__ import annotations

import json
import math

import pytest

from megatron_bridge.rollout.client import wait_before
from megatron_bridge.rollout.engine import SamplingParams
from megatron_bridge.rollout.probe import largest_gap
from megatron_bridge.rollout.protocol import (
    BadAnswer,
    VersionError,
    dialect_of,
    generate_request,
    read_answer,
    read_scores,
    server_facts,
    version_name,
    version_step,
)
from megatron_bridge.rollout.settings import LaunchSettings, RolloutSettings, rollout_missing, rollout_problems
from megatron_bridge.training.ahead import Ahead

PARAMS = SamplingParams(temperature=0.7, max_new_tokens=9, stop_token_ids=(1, 2), seed=0)


def answer(**change: object) -> bytes:
    meta = {
        "finish_reason": {"type": "abort"},
        "output_token_logprobs": [[-1.5, 7, None], [-0.25, 8, None]],
        "weight_versions": [{"version": "a:3", "start": 0, "end": 1}, {"version": "a:4", "start": 1, "end": 2}],
    }
    return json.dumps({"output_ids": [7, 8], "meta_info": meta | change}).encode()


def read(content: bytes, budget: int = 9):
    return read_answer(content, budget=budget, vocab_size=10)


def test_a_good_answer_says_which_weights_drew_each_token() -> None:
    found = read(answer())
    assert found.token_ids == (7, 8)
    assert found.logprobs == (-1.5, -0.25)
    assert found.versions == ("a:3", "a:4")
    assert found.finish == "abort"


@pytest.mark.parametrize(
    "content, message",
    [
        (answer()[:-20], "it is no JSON"),
        (b"", "it is no JSON"),
        (b"{}", "it lacks 'output_ids'"),
        (answer(output_token_logprobs=[[-1.5, 7, None]]), "2 tokens with the log-probs of 1 others"),
        (answer(output_token_logprobs=[[-1.5, 7, None], [-1.0, 9, None]]), "log-probs of 2 others"),
        (answer(output_token_logprobs=[[0.5, 7, None], [-1.0, 8, None]]), "not finite or above 0"),
        (answer(output_token_logprobs=[[None, 7, None], [-1.0, 8, None]]), "it lacks"),
        (answer(weight_versions=[{"version": "a:3", "start": 0, "end": 1}]), "the weight versions of 1"),
        (answer(finish_reason={"type": "error"}), "its finish reason is 'error'"),
        (answer(finish_reason=None), "it lacks"),
    ],
)
def test_an_answer_that_contradicts_itself_is_not_used(content: bytes, message: str) -> None:
    with pytest.raises(BadAnswer, match=message):
        read(content)


def test_more_tokens_than_asked_for_and_unknown_tokens_are_not_used() -> None:
    with pytest.raises(BadAnswer, match="2 tokens where 1 were asked for"):
        read(answer(), budget=1)
    with pytest.raises(BadAnswer, match=r"outside of the vocabulary 0 \.\. 7"):
        read_answer(answer(), budget=9, vocab_size=8)


def test_scores_are_those_of_the_tokens_asked_about() -> None:
    content = json.dumps({"meta_info": {"input_token_logprobs": [[None, 4, None], [-2.0, 5, None]]}}).encode()
    assert read_scores(content, [4, 5]) == (-2.0,)
    with pytest.raises(BadAnswer, match="of other tokens"):
        read_scores(content, [4, 6])
    for score in (b"NaN", b"-Infinity", b"null", b'"x"'):
        with pytest.raises(BadAnswer, match=r"not finite|lacks"):
            read_scores(content.replace(b"-2.0", score), [4, 5])


def test_a_gap_that_is_no_number_is_over_every_bound() -> None:
    assert largest_gap([[0.0, -1.0]], [[0.0, -1.25]]) == 0.25
    for place in range(3):
        row = [0.0] * 3
        row[place] = math.nan
        assert largest_gap([row], [[0.0] * 3]) == math.inf


def test_a_setting_that_is_written_out_with_its_default_is_no_mistake() -> None:
    """As the run directory's run.yaml has them all."""
    for engine in ("embedded", "sglang"):
        whole = RolloutSettings(**RolloutSettings(engine=engine, launch=None).model_dump())
        assert not [name for name, _ in rollout_problems(whole, ranks=1)]


def test_a_request_leaves_nothing_to_a_servers_defaults() -> None:
    body = generate_request([4, 5], PARAMS, budget=3, rid="r")
    assert body["input_ids"] == [4, 5]
    assert body["sampling_params"] == {
        **{"temperature": 0.7, "top_p": 1.0, "top_k": -1, "min_p": 0.0},
        **{"max_new_tokens": 3, "stop_token_ids": [1, 2], "ignore_eos": False},
    }


@pytest.mark.parametrize("version, session", [("0.5.20", False), ("0.5.21", True), ("0.5.23.post1", True)])
def test_known_versions(version: str, session: bool) -> None:
    assert dialect_of(version, "http://s").session is session


@pytest.mark.parametrize("version", ["0.5.19", "0.5.24", "0.6.0", "1.0", "dev", ""])
def test_other_versions_are_refused(version: str) -> None:
    with pytest.raises(VersionError, match=rf"http://s is SGLang {version}: known are 0\.5\.20, .*run one of these"):
        dialect_of(version, "http://s")


def test_a_server_of_another_kind_is_refused() -> None:
    with pytest.raises(VersionError, match="does not answer like an SGLang server: /server_info lacks 'version'"):
        server_facts({"model": "x"}, "http://s")


def test_weights_of_another_run_are_not_ours() -> None:
    assert version_step(version_name("a", 12), "a") == 12
    assert version_step(version_name("b", 12), "a") is None
    assert version_step("default", "a") is None
    assert version_step("a:x", "a") is None


def test_waits_grow_and_end() -> None:
    waits = [wait_before(attempt) for attempt in range(1, 30)]
    assert all(0.1 < wait <= 10 for wait in waits)
    assert min(waits[10:]) >= 5 > max(waits[:4])


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"staleness": 1}, "rollout.staleness: the embedded engine samples in the training process"),
        ({"url": "http://a:1"}, "rollout.url: the embedded engine samples in the training process"),
        ({"engine": "sglang", "url": "http://a:1", "urls": ["http://b:1"]}, "either url or urls, not both"),
        ({"engine": "sglang", "url": "http://a:1", "launch": LaunchSettings()}, "either launch"),
        ({"engine": "sglang", "url": "a:1"}, "rollout.url: 'a:1' is no server's address: write it as http://HOST:PORT"),
        ({"engine": "sglang", "urls": ["http://a:99999"]}, "rollout.urls: 'http://a:99999' is no server's address"),
        ({"engine": "sglang", "urls": ["http://a:0"]}, "rollout.urls: 'http://a:0' is no server's address"),
        ({"engine": "sglang", "url": "http://["}, "rollout.url: 'http://[' is no server's address"),
        ({"engine": "sglang", "url": "http://a:1", "router": "b"}, "rollout.router: 'b' is no server's address"),
        ({"engine": "sglang", "url": "http://a:1", "api_key_env": "NO_SUCH_KEY"}, "variable NO_SUCH_KEY is not set"),
        ({"engine": "sglang", "api_key_env": "HOME"}, "rollout.api_key_env: it is for running servers"),
        ({"sync": "disk"}, "rollout.sync: the embedded engine samples in the training process"),
        ({"logprob_bound": 1.0}, "rollout.logprob_bound: the embedded engine samples in the training process"),
        ({"retries": 0}, "rollout.retries: the embedded engine samples in the training process"),
        ({"engine": "sglang", "max_batch": 8}, "rollout.max_batch: only the embedded engine reads it"),
        ({"engine": "sglang", "urls": ["http://a:1", "http://a:1/"]}, "a server stands there twice"),
        ({"engine": "sglang", "router": "http://a:1"}, "name the servers behind the router in rollout.urls"),
        ({"engine": "sglang", "launch": LaunchSettings(python="/no/python")}, "no file '/no/python': install SGLang"),
        ({"engine": "sglang", "url": "http://a:1", "concurrency": 1}, "set it to at least 2"),
    ],
)
def test_settings_that_do_not_fit_together(settings: dict, message: str) -> None:
    given = RolloutSettings(**settings)
    found = [*rollout_problems(given, ranks=2), *rollout_missing(given)]
    assert message in "\n".join(": ".join(problem) for problem in found)


@pytest.mark.parametrize("staleness", [0, 1, 3])
def test_iterations_are_asked_for_ahead_and_taken_in_order(staleness: int) -> None:
    asked: list[int] = []

    def begin(iteration: int) -> int:
        asked.append(iteration)
        return iteration

    ahead = Ahead(begin, first=2, last=7, staleness=staleness)  # type: ignore[arg-type]
    for iteration in range(2, 7):
        assert ahead.take() == iteration
        assert asked == list(range(2, min(iteration + staleness + 1, 7)))
