"""How long ranks wait for each other, and the metrics of several ranks."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from megatron.core import parallel_state

from megatron_bridge.model.shape import Layout
from megatron_bridge.parallel import start_parallel, stop_parallel
from megatron_bridge.prepare import prepare_run
from megatron_bridge.training.patience import patience
from megatron_bridge.training.sampler import over_ranks
from megatron_bridge.training.together import agreed
from tests.distributed import run_distributed
from tests.training.jobs import own_task
from trace_dsl.errors import TraceError

RUN = Path("specs/demo/run.yaml")


def test_ranks_wait_longer_than_anything_that_a_run_may_do(tmp_path: Path) -> None:
    def of(*overrides: str, **change: object) -> float:
        task = own_task(tmp_path, **change)
        loaded, _, _ = prepare_run(RUN, ["spec=grpo.trace", task, "evaluation.problems=32", *overrides])
        return patience(loaded.file).total_seconds()

    plain = of()
    assert plain >= 2700
    served = ("rollout.engine=sglang", "rollout.url=http://a:1")
    assert of(*served, "rollout.server_timeout=9000") > 9000
    assert of(*served, "rollout.request_timeout=9000") > 9000
    (tmp_path / "m.py").write_text("")
    function = {"function": "m:f", "folder": str(tmp_path), "timeout": 100.0, "workers": 2}
    # 32 prompts x 8 responses in two processes, 100 s each
    assert of("rollout.prompts=32", "rollout.group_size=8", verifier={"kind": "python", **function}) > 12800
    program = {"kind": "programmatic", "types": ["slip"], **function}
    assert of("rollout.prompts=32", "rollout.group_size=8", annotator=program) > 12800
    server = {"kind": "openai", "base_url": "http://a", "model": "m", "deadline": 3600.0, "timeout": 900.0}
    assert of(annotator=server) > 4500


def test_every_group_has_that_patience() -> None:
    start_parallel(Layout(), seed=0, patience=timedelta(seconds=7200))
    try:
        groups = [dist.group.WORLD, parallel_state.get_data_parallel_group(with_context_parallel=True)]
        groups += [parallel_state.get_model_parallel_group(), parallel_state.get_tensor_model_parallel_group()]
        for group in groups:
            assert group._get_backend(torch.device("cpu")).options._timeout == timedelta(seconds=7200)
    finally:
        stop_parallel()


def test_counts_are_added_and_of_gaps_the_largest_is_taken() -> None:
    ranks = [
        {"rollout/retries": 2, "rollout/probe_gap": 0.5, "perf/sync_seconds": 3.0},
        {"rollout/retries": 5, "rollout/probe_gap": 0.0, "perf/sync_seconds": 4.0},
        {},
    ]
    assert over_ranks(ranks) == {"rollout/retries": 7, "rollout/probe_gap": 0.5, "perf/sync_seconds": 4.0}
    assert over_ranks([{}, {}]) == {}


def _disagreeing() -> list[str]:
    def fail(*ranks: int) -> str:
        if dist.get_rank() in ranks:
            raise TraceError(f"rank {dist.get_rank()}") if dist.get_rank() else OSError("no disk")
        return f"rank {dist.get_rank()} goes on"

    told = [agreed(fail)]
    for ranks in ((1,), (0, 1), (0,)):
        try:
            told.append(agreed(lambda ranks=ranks: fail(*ranks)))
        except (TraceError, OSError) as error:
            told.append(str(error))
    return told


@pytest.mark.distributed
def test_an_error_of_one_rank_is_that_of_all() -> None:
    one, other = run_distributed(_disagreeing, 2)
    assert one == ["rank 0 goes on", "rank 1", "no disk", "no disk"]
    assert other == ["rank 1 goes on", "rank 1", "no disk", "no disk"]
