"""Orders: every row once an epoch, by seed, without a list of them; and positions that a checkpoint carries."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megatron_bridge.data import Order
from megatron_bridge.training.data_position import DataPosition
from megatron_bridge.verdict import CheckpointError


@given(blocks=st.lists(st.integers(1, 40), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_every_row_comes_once_an_epoch(blocks: list[int], seed: int) -> None:
    order = Order(blocks, seed=seed)
    rows = sum(blocks)
    for epoch in range(3):
        assert sorted(order.row(epoch * rows + n) for n in range(rows)) == list(range(rows))


def test_the_rows_of_a_block_stand_together() -> None:
    """A row group is read once an epoch."""
    order = Order([10, 20, 30], seed=4)
    blocks = [0 if row < 10 else 1 if row < 30 else 2 for row in map(order.row, range(60))]
    assert sum(a != b for a, b in itertools.pairwise(blocks)) == 2


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    orders = {
        tuple(Order([100], seed=seed).row(100 * epoch + n) for n in range(100)) for seed in (0, 1) for epoch in (0, 1)
    }
    assert len(orders) == 4
    assert [Order([3], seed=None).row(n) for n in range(6)] == [0, 1, 2, 0, 1, 2]


def test_positions_are_spread_evenly() -> None:
    """Over 2,000 seeds each of 8 rows comes first about 250 times (standard deviation 15)."""
    counts = [0] * 8
    for seed in range(2000):
        counts[Order([8], seed=seed).row(0)] += 1
    assert all(150 < count < 350 for count in counts)


def test_large_files_need_no_list_of_rows() -> None:
    order = Order([10**12], seed=0)
    assert len({order.row(n) for n in range(100)}) == 100


def test_there_is_no_order_of_nothing() -> None:
    with pytest.raises(ValueError, match="at least one row"):
        Order([], seed=0)
    with pytest.raises(ValueError, match="position -1"):
        Order([3], seed=0).row(-1)


def test_a_run_goes_on_with_the_next_problem_whatever_an_iteration_draws() -> None:
    start = DataPosition(identity={"seed": "0"})
    state = start.state(3, 32)
    assert state == {"position": 96, "identity": {"seed": "0"}}
    for iteration, prompts in ((3, 32), (3, 8), (6, 32)):
        resumed = start.restored(state, iteration, prompts)
        assert [resumed.first(iteration + n, prompts) for n in range(3)] == [96, 96 + prompts, 96 + 2 * prompts]
        again = start.restored(resumed.state(iteration + 2, prompts), iteration + 2, prompts)
        assert again.first(iteration + 2, prompts) == 96 + 2 * prompts


def test_a_run_does_not_go_on_with_other_problems_or_another_order() -> None:
    same = {"files": "a", "shuffle": "True"}
    state = DataPosition(identity=same | {"seed": "0"}).state(3, 32)
    changes = [({"seed": "1"}, "seed"), ({}, "seed"), ({"files": "b", "config": "c"}, "files, seed, config")]
    for change, named in changes:
        with pytest.raises(CheckpointError, match=f"^{named}: not what the checkpoint was trained on; .*put it back"):
            DataPosition(identity=same | change).restored(state, 3, 32)
