"""What networks and processes do to a batch: nothing may be lost, counted twice, or drawn with other weights."""

from __future__ import annotations

import os
import signal
import time

import httpx
import pytest

from megatron_bridge.rollout.engine import RolloutError
from megatron_bridge.rollout.settings import LaunchSettings
from tests.rollout.proxy import Proxy
from tests.rollout.rig import KEYS, LONG, POLICY, PROMPTS, SHORT, N, change, check_whole, gaps, served, start_long

pytestmark = pytest.mark.sglang


def test_broken_connections_and_answers_are_asked_again(model, server, tmp_path):
    faults = ("reset", "reset after the request", "half an answer", "garbage", "another encoding") * 3
    with Proxy(server.url) as proxy, served(model, tmp_path, [proxy.url]) as engine:
        engine.sync(0)
        proxy.faults.extend(faults)
        drawn = engine.start(PROMPTS, N, LONG, keys=KEYS).result()
        retries = engine.metrics()["rollout/retries"]
    assert proxy.met == list(faults)
    assert retries >= len(faults)
    check_whole(drawn, LONG)
    assert max(gaps(model, drawn)) < 1e-4


def test_a_connection_that_always_breaks_is_one_clear_error(model, server, tmp_path):
    with Proxy(server.url) as proxy, served(model, tmp_path, [proxy.url], retries=2) as engine:
        engine.sync(0)
        proxy.faults.extend(["half an answer"] * 50)
        with pytest.raises(RolloutError, match=r"a sample failed 3 times, most recently: .* \(rollout.retries is 2\)"):
            engine.start(PROMPTS[:1], 1, SHORT, keys=KEYS[:1]).result()


def test_requests_without_an_answer_are_given_up_and_asked_again(model, server, tmp_path):
    with Proxy(server.url) as proxy, served(model, tmp_path, [proxy.url], request_timeout=10.0, retries=1) as engine:
        engine.sync(0)
        proxy.faults.extend(["no answer"] * 3)
        drawn = engine.start(PROMPTS, 1, SHORT, keys=KEYS).result()
        assert engine.metrics()["rollout/retries"] == 3
        check_whole(drawn, SHORT, n=1)
        proxy.faults.extend(["no answer"] * 2)
        with pytest.raises(RolloutError, match=r"failed 2 times.* did not answer in 10 s \(rollout.request_timeout\)"):
            engine.start(PROMPTS[:1], 1, SHORT, keys=KEYS[:1]).result()


def test_a_hung_server_is_noticed_and_used_again_when_it_wakes(model, server, tmp_path):
    with served(model, tmp_path, [server.url], health_timeout=6.0) as engine:
        engine.sync(0)
        pending = start_long(engine)
        os.killpg(server.process.pid, signal.SIGSTOP)
        try:
            deadline = time.monotonic() + 60
            while engine._client.pool.servers[0].state.value != "down":
                assert time.monotonic() < deadline
                time.sleep(0.1)
        finally:
            os.killpg(server.process.pid, signal.SIGCONT)
        drawn = pending.result()
        assert engine.metrics()["rollout/retries"] > 0
    check_whole(drawn, LONG)
    assert max(gaps(model, drawn)) < 1e-4


def test_a_server_with_older_weights_gets_those_of_now(model, server, tmp_path):
    """As after a restart that nobody reported: the weights of the start, under a name of their own."""
    with served(model, tmp_path, [server.url]) as engine:
        change(model, 7)
        engine.sync(5)
        pending = start_long(engine)
        body = {"model_path": str(POLICY.resolve()), "weight_version": "default", "flush_cache": False}
        httpx.post(f"{server.url}/update_weights_from_disk", json=body, timeout=60).raise_for_status()
        drawn = pending.result()
        again = engine.start(PROMPTS, 1, LONG, keys=KEYS).result()
        stale = engine.metrics()["rollout/stale_answers"]
    assert stale > 0
    check_whole(drawn, LONG)
    for samples in (drawn, again):
        assert len(gaps(model, samples, version=5)) == len(gaps(model, samples))
        assert max(gaps(model, samples)) < 1e-4


def test_no_server_is_one_clear_error(model, tmp_path):
    with (
        served(model, tmp_path, ["http://127.0.0.1:9"], server_timeout=2.0) as engine,
        pytest.raises(
            RolloutError, match=r"http://127\.0\.0\.1:9 did not answer /health, /server_info and /model_info for 2 s"
        ),
    ):
        engine.sync(0)


def test_a_server_that_does_not_start_shows_why(model, tmp_path):
    launch = LaunchSettings(arguments=["--no-such-argument"])
    with (
        served(model, tmp_path, [], launch=launch) as engine,
        pytest.raises(RolloutError, match=r"(?s)SGLang server 0 ended with exit code 2; .*--no-such-argument"),
    ):
        engine.sync(0)


def test_router_spreads_requests_and_a_killed_server_loses_none(model, server, second, router, tmp_path):
    """Two servers behind sglang-router, then balanced by the client; at the end kill -9 in the middle of a batch."""
    for sync in ("tensor", "distributed"):
        with served(model, tmp_path, [server.url, second.url], router=router.url, sync=sync) as engine:
            change(model, 1)
            engine.sync(1)
            drawn = engine.start(PROMPTS, N, SHORT, keys=KEYS).result()
            check_whole(drawn, SHORT)
            assert max(gaps(model, drawn, version=1)) < 1e-4
    assert min(process.log.read_text().count("POST /generate") for process in (server, second)) > 20
    with served(model, tmp_path, [server.url, second.url]) as engine:
        engine.sync(2)
        pending = start_long(engine)
        assert all(target.posts for target in engine._client.pool.targets)
        second.kill()
        drawn = pending.result()
        assert engine.metrics()["rollout/retries"] > 0
        check_whole(drawn, LONG)
        assert max(gaps(model, drawn)) < 1e-4
        change(model, 3)
        engine.sync(3)  # the group of servers is smaller now
        drawn = engine.start(PROMPTS, 1, LONG, keys=KEYS).result()
        assert max(gaps(model, drawn, version=3)) < 1e-4
