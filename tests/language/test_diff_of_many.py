"""How much work a difference of long specs is, and that it finds the fewest moves."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trace_dsl.lint import parse_spec
from trace_dsl.model import Route
from trace_dsl.plan import difference as difference_module
from trace_dsl.plan.difference import difference


def test_a_key_is_asked_of_each_route_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not of every pair: two specs of 1,900 routes have millions of them."""
    asked = 0

    def counted(route: Route) -> Hashable:
        nonlocal asked
        asked += 1
        return selector(route)

    selector = difference_module._selector
    monkeypatch.setattr(difference_module, "_selector", counted)
    old = parse_spec("".join(f"a{i}: nll()\n" for i in range(300)))[0]
    new = parse_spec("".join(f"a{i}: grpo()\n" for i in reversed(range(300))))[0]
    assert old is not None
    assert new is not None
    moved = [change for change in difference(old, new).changes if change.what == "place"]
    assert len(moved) == 299
    assert asked <= 4 * 600


@settings(max_examples=200)
@given(order=st.permutations(range(7)))
def test_the_fewest_routes_have_moved(order: list[int]) -> None:
    pairs = [(i, j) for j, i in enumerate(order)]
    moved = difference_module._moved(pairs)
    left = [i for i, j in pairs if (i, j) not in moved]
    assert left == sorted(left)
    longest = max(len(some) for n in range(8) for some in combinations(order, n) if list(some) == sorted(some))
    assert len(left) == longest
