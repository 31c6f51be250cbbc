"""`lower` on batches small enough to compute by hand: routes and denominators, with the arithmetic in comments."""

from __future__ import annotations

import pytest
import torch

from tests.lowering.by_hand import batch_of, lowered, weights

torch.set_num_threads(1)

# -------------------------------------------------------------------------------------------------------- labels, caps


@pytest.mark.parametrize(
    "length, cap, spans, marked",
    [
        (7, "25%", [(0, 7)], [0]),  # 25% of 7 is 1.75: one token
        (8, "25%", [(0, 7)], [0, 1]),  # 25% of 8 is exactly 2
        (3, "25%", [(0, 3)], []),  # 25% of 3 is 0.75: none
        (12, "25%", [(2, 4), (6, 9)], [2, 3, 6]),  # 3 allowed: the second span is cut after one
        (12, "25%", [(6, 9), (2, 4)], [2, 3, 6]),  # kept from the start of the response on, not as listed
        (12, "25%", [(1, 3), (1, 3), (2, 4), (8, 9)], [1, 2, 3]),  # overlapping spans count once, the last is dropped
        (12, "25%", [(5, 5), (5, 6)], [5]),  # an empty span takes nothing
        (12, "100%", [(0, 12)], list(range(12))),
        (100, "29%", [(0, 100)], list(range(29))),  # 0.29 * 100 is 28.999... in binary; the cap is 29
    ],
)
def test_cap(length: int, cap: str, spans: list[tuple[int, int]], marked: list[int]) -> None:
    batch = batch_of([length], spans=[(0, "key", start, end) for start, end in spans])
    found = lowered(f"spans key(cap={cap})\nkey: nll()\n", batch)
    assert found.routing.weight_CT.any(0).nonzero()[:, 0].tolist() == marked
    assert (found.route_of_T == 0).nonzero()[:, 0].tolist() == marked


def test_cap_is_of_one_response_and_one_label() -> None:
    """Two responses of 4 tokens and two labels: 50% is 2 tokens for each of the four."""
    spans = [(row, label, 0, 4) for row in (0, 1) for label in ("key", "error")]
    text = "spans key(cap=50%), error(cap=50%)\nkey: nll()\nerror: entropy()\n"
    found = lowered(text, batch_of([4, 4], spans=spans))
    assert found.route_of_T.tolist() == [0, 0, -1, -1] * 2  # both labels mark the same tokens, the first route has them


def test_without_a_spans_statement_there_is_no_cap() -> None:
    assert weights("key: nll()\n", batch_of([2, 2], spans=[(1, "key", 0, 2)])) == [0, 0, 0.25, 0.25]


def test_span_of_a_label_no_route_takes() -> None:
    found = lowered("key: nll()\nrest: entropy()\n", batch_of([2], spans=[(0, "other", 0, 2)]))
    assert found.route_of_T.tolist() == [1, 1]


# ------------------------------------------------------------------------------------------------------- which tokens


def test_a_token_belongs_to_the_first_route_it_meets() -> None:
    """Token 0 is key and error, 1 is error, 2 neither; on the correct row the error route does not hold."""
    spans = [(row, *span) for row in (0, 1) for span in (("key", 0, 1), ("error", 0, 2))]
    batch = batch_of([3, 3], reward=[0.0, 1.0], spans=spans)
    found = lowered("error when wrong: nll()\nkey: entropy()\nrest: grpo()\n", batch)
    assert found.route_of_T.tolist() == [0, 0, 2, 1, 2, 2]


def test_no_route_matches() -> None:
    found = lowered("key when correct: grpo() + nll()\n", batch_of([3, 2]))
    assert found.route_of_T.tolist() == [-1] * 5
    assert found.routing.weight_CT.shape == found.routing.part_PT.shape == (0, 5)
    assert [(one.tokens, one.weight_sum) for one in found.losses] == [(0, 0.0), (0, 0.0)]


def test_none_takes_tokens_and_trains_nothing() -> None:
    found = lowered("key: none\nrest: nll()\n", batch_of([4], spans=[(0, "key", 1, 3)]))
    assert found.route_of_T.tolist() == [1, 0, 0, 1]
    assert found.routing.weight_CT.tolist() == [[0.25, 0.0, 0.0, 0.25]]


def test_tool_output_is_trained_only_where_source_is_asked_for() -> None:
    batch = batch_of([4], tool=[(0, 1), (0, 2)])
    assert lowered("rest: nll()\n", batch).route_of_T.tolist() == [0, -1, -1, 0]
    assert lowered("rest when source == tool: nll()\n", batch).route_of_T.tolist() == [-1, 0, 0, -1]
    assert lowered("rest when source != tool: nll()\n", batch).route_of_T.tolist() == [0, -1, -1, 0]
    assert lowered("rest when source == model: nll()\n", batch).route_of_T.tolist() == [0, -1, -1, 0]
    # a predicate that reads `source` and holds all the same
    assert lowered("rest when source == tool or pos < 2: nll()\n", batch).route_of_T.tolist() == [0, 0, 0, -1]


def test_a_teacher_that_sees_something_takes_only_the_rows_that_have_it() -> None:
    """Row 1 has no diagnosis: no divergence there, the other loss stays. Denominators do not change."""
    text = "teacher = self(sync=10, sees=diagnosis)\nrest: fkl() + nll()\n"
    found = lowered(text, batch_of([2, 2], contexts={"diagnosis": [True, False]}))
    assert found.routing.weight_CT.tolist() == [[0.25, 0.25, 0, 0], [0.25] * 4]
    assert found.routing.teacher_tokens("teacher").tolist() == [0, 1]
    assert [one.tokens for one in found.losses] == [2, 4]
    assert found.route_of_T.tolist() == [0] * 4


def test_a_context_the_batch_does_not_carry() -> None:
    text = "teacher = self(frozen, sees=sibling)\nrest when has(sibling): nll()\nrest: fkl()\n"
    found = lowered(text, batch_of([2], contexts={}))
    assert found.route_of_T.tolist() == [1, 1]
    assert found.routing.teacher_tokens("teacher").tolist() == []


# -------------------------------------------------------------------------------------------------------- denominators


@pytest.mark.parametrize(
    "per, wanted",
    [
        # responses of 1, 3 and 0 tokens; the route takes the last two tokens of the second response
        ("sequence", 1 / (3 * 3)),  # its length x 3 responses, the empty one included
        ("token", 1 / 3),  # 4 tokens, one of them tool output
        ("selected", 1 / 2),
        ("const(10)", 1 / 30),  # 10 x 3 responses
    ],
)
def test_denominators(per: str, wanted: float) -> None:
    batch = batch_of([1, 3, 0], spans=[(1, "key", 1, 3)], tool=[(1, 0)])
    assert weights(f"key: nll(per={per})\n", batch) == pytest.approx([0, 0, wanted, wanted])


def test_selected_counts_tokens_before_gates_and_contexts() -> None:
    """4 tokens belong to the route; a gate closes 1 of them and the teacher is missing for 2."""
    text = "teacher = self(frozen, sees=diagnosis)\nrest: fkl(w=where(pos > 0, 1, 0), per=selected)\n"
    found = weights(text, batch_of([2, 2], contexts={"diagnosis": [True, False]}))
    assert found == [0, 0.25, 0, 0]


def test_one_kernel_in_two_losses_adds_up() -> None:
    """2 / (4 x 1) from one loss and 1 / 4 from the other, on one kernel."""
    found = lowered("rest: nll(w=2) + nll(per=token)\n", batch_of([4]))
    assert found.routing.weight_CT.tolist() == [[0.75] * 4]
    assert found.loss_of_C == (((0, 0), (0, 1)),)
    parts = found.routing.parts
    assert (parts.channel_of_P, parts.part_PT.tolist()) == ((0, 0), [[0.5] * 4, [0.25] * 4])
    assert parts.loss_PT.tolist() == [[0] * 4, [1] * 4]
    # what they weigh before the denominator of 4, token by token
    assert [(one.weight_sum, one.inverse_denominator_sum) for one in found.losses] == [(8.0, 1.0), (4.0, 1.0)]


def test_weights_before_denominators_of_different_responses() -> None:
    """Responses of 1 and 4 tokens, denominators 2 and 8; the gate takes two tokens of the second out."""
    (one,) = lowered("rest: nll(w=where(pos < 2, 3, 0))\n", batch_of([1, 4])).losses
    assert (one.tokens, one.weight_sum) == (3, 9.0)
    assert one.inverse_denominator_sum == pytest.approx(1 / 2 + 1 / 8 + 1 / 8)


def test_extra_rollouts_have_their_own_denominators() -> None:
    """Two plain responses of 2 and 4 tokens and one extra of 5: nobody is counted for the other."""
    text = "rollouts hinted = policy(sees=solution)\nrest when rows == hinted: nll()\nrest: nll(per=token)\n"
    batch = batch_of([2, 5, 4], source=["policy", "hinted", "policy"])
    assert weights(text, batch) == pytest.approx([1 / 6] * 2 + [1 / 5] * 5 + [1 / 6] * 4)


@pytest.mark.parametrize("per", ["sequence", "token", "selected", "const(3)"])
def test_weights_of_a_cut_add_up_to_the_whole(per: str) -> None:
    """Denominators are counted before anything is cut: the parts of a `take` add up to the whole."""
    routing = lowered(f"rest: nll(per={per}) + grpo()\n", batch_of([3, 0, 5], reward=[1.0, 0.0, 0.0])).routing
    for parts in ([[0, 1, 2], [3, 4, 5, 6, 7]], [[7, 0], [3], [], [1, 2, 4, 5, 6]]):
        taken = [routing.take(torch.tensor(part, dtype=torch.int64)) for part in parts]
        total_C = sum(part.weight_CT.double().sum(1) for part in taken)
        assert total_C.tolist() == pytest.approx(routing.weight_CT.double().sum(1).tolist(), rel=1e-12)
