"""What may go wrong between sending weights and drawing with them: nothing unproved is drawn with."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from megatron_bridge.rollout import probe, protocol
from megatron_bridge.rollout.engine import RolloutError
from megatron_bridge.rollout.launcher import free_port
from megatron_bridge.rollout.servers import State
from megatron_bridge.rollout.settings import LaunchSettings
from tests.rollout.proxy import Proxy
from tests.rollout.rig import KEYS, PROMPTS, SHORT, N, change, check_whole, gaps, served

pytestmark = pytest.mark.sglang


def until(condition, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("call", ["/flush_cache", "/generate", "/update_weight_version"])
def test_a_server_whose_weights_were_not_proved_does_not_draw(model, server, second, tmp_path, call):
    """It holds the new weights, answers /health, and lacks the proof: the other draws alone, until it has it too."""
    with (
        Proxy(server.url) as one,
        Proxy(second.url) as other,
        served(model, tmp_path, [one.url, other.url]) as engine,
    ):
        engine.sync(0)
        change(model, 11)
        # the name is given twice, before the weights and once they are proved: the second time is refused
        other.refused = [call] if call != "/update_weight_version" else []
        if call == "/update_weight_version":
            name = engine._sender.name
            engine._sender.name = lambda servers, version: (
                other.refused.extend([call] * version.endswith(":1")),
                name(servers, version),
            )[1]
        engine.sync(1)
        found = engine._client.pool.servers[1]
        assert found.state is State.DOWN
        until(lambda: found.state is not State.DOWN)
        assert found.state is State.STALE
        other.seen.clear()
        drawn = engine.start(PROMPTS, N, SHORT, keys=KEYS).result()
        assert "/generate" not in other.seen
        check_whole(drawn, SHORT)
        assert max(gaps(model, drawn, version=1)) < 1e-4
        change(model, 12)
        engine.sync(2)
        drawn = engine.start(PROMPTS, N, SHORT, keys=KEYS).result()
        assert other.seen.count("/generate") > 10
        assert max(gaps(model, drawn, version=2)) < 1e-4


def test_servers_are_told_to_drop_what_runs_before_every_update(model, server, tmp_path):
    """A request whose connection broke is in flight nowhere, and may still be drawn."""
    with Proxy(server.url) as proxy, served(model, tmp_path, [proxy.url]) as engine:
        engine.sync(0)
        calls = [call for call in proxy.seen if call != "/generate"]
    assert calls[0] == "/abort_request"
    assert calls[1] == calls[-1] == "/update_weight_version"
    assert calls.index("/flush_cache") > calls.index("/update_weights_from_tensor")


def test_a_server_that_draws_from_another_distribution_stops_the_run(model, server, tmp_path, monkeypatch):
    """As one with a sampling default of its own: its weights are right, and its inputs' log-probs."""

    def other(token_ids, *, temperature, draw):
        return protocol.probe_request(token_ids, temperature=1.3 * temperature, draw=draw)

    monkeypatch.setattr(probe, "probe_request", other)
    with (
        served(model, tmp_path, [server.url]) as engine,
        pytest.raises(RolloutError, match=r"draws from another distribution: .* rollout.temperature 1 differ by up to"),
    ):
        engine.sync(0)


def test_answers_of_other_weights_end_in_an_error(model, server, second, tmp_path):
    """A router with a server behind it that nobody sends weights to."""
    with served(model, tmp_path, [server.url], router=second.url, server_timeout=3.0) as engine:
        engine.sync(0)
        with pytest.raises(RolloutError, match=rf"{second.url} has answered with other weights than those of step 0"):
            engine.start(PROMPTS, 1, SHORT, keys=KEYS).result()


def test_a_server_of_another_kind_is_told_at_once(model, tmp_path):
    (tmp_path / "health").write_text("ok")
    port = free_port()
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(tmp_path)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        with (
            served(model, tmp_path, [f"http://127.0.0.1:{port}"]) as engine,
            pytest.raises(RolloutError, match=r"not answer like an SGLang server: it has no /server_info \(404\)"),
        ):
            engine.sync(0)
    finally:
        process.kill()
        process.wait()


def test_started_servers_ask_for_a_key_and_end_in_order(model, tmp_path, monkeypatch):
    """Nobody else on the machine may send them pickles. The key is in no command line and no log."""
    monkeypatch.setenv("ROLLOUT_KEY", "wrong")
    with served(model, tmp_path, [], launch=LaunchSettings(servers=2)) as engine:
        engine.sync(0)
        check_whole(engine.start(PROMPTS, N, SHORT, keys=KEYS).result(), SHORT)
        one, other = engine._client.pool.servers
        processes = list(engine._watch._process_of.values())
        (key,) = {process.key for process in processes}
        calls = ("/update_weights_from_tensor", "/generate", "/update_weight_version", "/abort_request")
        asked = [f"{server.url}{call}" for server in (one, other) for call in calls]
        for url in (*asked, f"{engine._client.pool.router.url}/generate"):
            assert httpx.post(url, json={}, trust_env=False, timeout=60).status_code == 401
        with (
            served(model, tmp_path / "no", [one.url], api_key_env="ROLLOUT_KEY") as stranger,
            pytest.raises(RolloutError, match=r"refuses /server_info \(401\): name .* in rollout.api_key_env"),
        ):
            stranger.sync(0)
        monkeypatch.setenv("ROLLOUT_KEY", key)
        with served(model, tmp_path / "yes", [one.url], api_key_env="ROLLOUT_KEY") as friend:
            friend.sync(0)
        leaders = [psutil.Process(process.process.pid) for process in processes]
        family = [*leaders, *(child for leader in leaders for child in leader.children(recursive=True))]
        assert not any(key in argument for one in family for argument in one.cmdline())
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    written = [path.read_text(errors="replace") for path in Path(tmp_path).rglob("*") if path.is_file()]
    assert len(written) >= 3
    assert not any(key in text for text in written)
    assert all("SIGTERM received" in process.log.read_text() for process in processes if not process.only_one)
