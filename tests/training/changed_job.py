"""One rank of a real job in which something is made to happen; the variable CHANGE names it."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

NAN_STEP = 2
SLOW_STEP = 4
# set("by_sibling by_feedback".split()) has another order under each
HASH_SEEDS = ("0", "1")
PROXIMAL_SECONDS = 1000.0


def nan_log_prob() -> None:
    """In one step the engine gives a token no number for a log-prob: in a rollout of the batch's second half whose
    group has something to learn."""
    from megatron_bridge.training.sampler import Sampler

    collect = Sampler.collect

    def collected(self: Sampler, step: int) -> Any:
        found = collect(self, step)
        if step == NAN_STEP:
            rollouts, half = found.rollouts, len(found.rollouts) // 2
            mixed = {a.group for a in rollouts for b in rollouts if a.group == b.group and a.reward != b.reward}
            chosen = next(n for n in range(half, 2 * half) if rollouts[n].group in mixed)
            rollouts[chosen] = replace(rollouts[chosen], logprobs=(math.nan, *rollouts[chosen].logprobs[1:]))
        return found

    Sampler.collect = collected  # type: ignore[method-assign]


def slow_proximal_pass() -> None:
    """The loop's clock goes on by PROXIMAL_SECONDS in every pass for proximal log-probs."""
    from megatron_bridge.training import loop

    measure, clock = loop.Loop._proximal_logp, SimpleNamespace(ahead=0.0)

    def measured(self: Any, parts: Any) -> Any:
        clock.ahead += PROXIMAL_SECONDS
        return measure(self, parts)

    loop.Loop._proximal_logp = measured  # type: ignore[method-assign]
    loop.time = SimpleNamespace(perf_counter=lambda: time.perf_counter() + clock.ahead)  # type: ignore[assignment]


def other_hash_seeds() -> None:
    """Every rank hashes strings in its own way, as processes do unless PYTHONHASHSEED is set."""
    seed = HASH_SEEDS[int(os.environ["RANK"])]
    if os.environ.get("PYTHONHASHSEED") != seed:
        command = [sys.executable, "-m", "tests.training.changed_job", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONHASHSEED": seed})


def slow_checkpoint() -> None:
    """The file of the checkpoint after step SLOW_STEP takes as many seconds longer as the variable SECONDS says."""
    from torch.distributed.checkpoint import FileSystemWriter

    write = FileSystemWriter.write_data

    def written(self: FileSystemWriter, *args: Any) -> Any:
        if f"step_{SLOW_STEP:06d}" in str(self.path):
            time.sleep(float(os.environ["SECONDS"]))
        return write(self, *args)

    FileSystemWriter.write_data = written  # type: ignore[method-assign]


CHANGES: dict[str, Callable[[], None]] = {
    "nan log-prob": nan_log_prob,
    "slow proximal pass": slow_proximal_pass,
    "other hash seeds": other_hash_seeds,
    "slow checkpoint": slow_checkpoint,
}

if __name__ == "__main__":
    CHANGES[os.environ["CHANGE"]]()
    from megatron_bridge.train import main

    sys.exit(main())
