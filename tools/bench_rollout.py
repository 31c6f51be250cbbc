"""Throughput of the rollout client against the client of SGLang's own benchmark.

    python tools/bench_rollout.py

Starts one server with the demo policy and draws the same requests through both clients in turn, several times; prints
the rates, and ends with 1 where the median of ours is under 95% of theirs.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import httpx
import torch

from megatron_bridge.rollout.background import Background
from megatron_bridge.rollout.client import Client, Request
from megatron_bridge.rollout.engine import SamplingParams
from megatron_bridge.rollout.launcher import ManagedProcess, ServerPlan, plan_server
from megatron_bridge.rollout.protocol import version_name
from megatron_bridge.rollout.settings import RolloutSettings

POLICY = Path("specs/demo/policy")
PYTHON = ".venv-sglang/bin/python"
BAR = 0.95
START_SECONDS = 600.0


async def connected(url: str, concurrency: int) -> Client:
    """A client of a server whose weights it names as its own."""
    client = Client([url], RolloutSettings(engine="sglang", url=url, concurrency=concurrency), run="b", vocab_size=128)
    body = {"new_version": version_name("b", 0), "abort_all_requests": False}
    httpx.post(f"{url}/update_weight_version", json=body, timeout=60).raise_for_status()
    client.version = 0
    await client.look_at(client.pool.servers[0])
    await client.go_on(0, [url])
    return client


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=96, help="tokens a request (default: 96)")
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--url", help="a running server with the demo policy (default: one is started)")
    options = parser.parse_args()
    draw = random.Random(0)
    prompts = [[draw.randrange(5, 127) for _ in range(24)] for _ in range(options.requests)]
    if options.url:
        return compare(options.url, prompts, options)
    with tempfile.TemporaryDirectory() as folder:
        plan = ServerPlan(
            python=PYTHON,
            policy=POLICY.resolve(),
            max_position=256,
            tokens=options.concurrency * 256,
            concurrency=options.concurrency,
            seed=0,
            cuda=torch.cuda.is_available(),
            dtype="float32",
            arguments=[],
        )
        server = plan_server(plan, 0, Path(folder))
        server.start()
        try:
            return compare(server.url, prompts, options, server)
        finally:
            server.stop()


def wait_for(url: str, server: ManagedProcess | None) -> None:
    """Wait until a server generates. Ends the program when it died, or after START_SECONDS."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/health", timeout=60).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        if server is not None and not server.running:
            raise SystemExit(server.ending())
        time.sleep(1)
    raise SystemExit(f"{url} did not answer /health for {START_SECONDS:g} s")


def compare(
    url: str, prompts: list[list[int]], options: argparse.Namespace, server: ManagedProcess | None = None
) -> int:
    """Both clients in turn; the exit code."""
    wait_for(url, server)
    params = SamplingParams(temperature=1.0, max_new_tokens=options.tokens, stop_token_ids=(), seed=0)
    requests = [Request(prompt=tuple(prompt), budget=options.tokens, params=params) for prompt in prompts]
    background = Background("client")
    client = background.run(connected(url, options.concurrency))
    peer = subprocess.Popen(
        [PYTHON, "tools/bench_serving_peer.py"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert peer.stdin is not None
    assert peer.stdout is not None
    body = [{"input_ids": prompt, "tokens": options.tokens} for prompt in prompts]
    peer.stdin.write(json.dumps({"url": url, "requests": body, "concurrency": options.concurrency}) + "\n")
    peer.stdin.flush()
    for line in peer.stdout:  # SGLang says other things while it is imported
        if line == "ready\n":
            break
    else:
        raise SystemExit("SGLang's client ended")
    tokens, ours, theirs = options.requests * options.tokens, [], []
    for number in range(options.rounds + 1):  # the first warms both
        began = time.perf_counter()
        background.run(client.draw(requests))
        mine = tokens / (time.perf_counter() - began)
        peer.stdin.write("go\n")
        peer.stdin.flush()
        other = tokens / float(peer.stdout.readline())
        if number:
            ours.append(mine)
            theirs.append(other)
            print(f"round {number}: this client {mine:.0f} tokens/s, SGLang's {other:.0f}", flush=True)
    peer.stdin.close()
    peer.wait()
    background.close(last=client.close())
    share = statistics.median(ours) / statistics.median(theirs)
    print(
        f"median of {options.rounds}, {options.concurrency} requests in flight: this client "
        f"{statistics.median(ours):.0f} tokens/s, SGLang's {statistics.median(theirs):.0f}: {share:.1%} (bar {BAR:.0%})"
    )
    return 0 if share >= BAR else 1


if __name__ == "__main__":
    raise SystemExit(main())
