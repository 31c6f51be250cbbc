"""`lower` on batches small enough to compute by hand. The arithmetic stands in the comments."""

from __future__ import annotations

import math

import pytest
import torch

from tests.lowering.cases import facts_of, spec_of, tensors_of
from tests.lowering.plain import PlainBatch, PlainSpan
from trace_dsl.lowering import Lowered, RolloutBatch, TokenSpan, lower
from trace_dsl.lowering.fused import DivergenceKernel, PolicyGradientKernel
from trace_dsl.plan import compile_plan

torch.set_num_threads(1)

TRACE = """
spans   key(cap=25%), error(cap=25%)
teacher = self(sync=10, sees=diagnosis)
let kl  = schedule(0.5, warmup=10, anneal=linear(30))
error when wrong: rkl(w=kl) + grpo(w=1 - kl/0.5, clip=(0.2, 0.28))
rest:             grpo(clip=(0.2, 0.28))
"""


def batch_of(
    lengths: list[int],
    *,
    reward: list[float] | None = None,
    group: list[int] | None = None,
    spans: list[tuple[int, str, int, int]] = (),
    tool: list[tuple[int, int]] = (),
    contexts: dict[str, list[bool]] | None = None,
    source: list[str] = (),
) -> PlainBatch:
    """A batch of given lengths; correct means a reward above 0, `tool` lists (row, position)."""
    rewards = [0.0] * len(lengths) if reward is None else reward
    return PlainBatch(
        reward=rewards,
        correct=[value > 0 for value in rewards],
        group=[0] * len(lengths) if group is None else group,
        old_logp=[[-1.0 - pos / 4 for pos in range(length)] for length in lengths],
        from_model=[[(row, pos) not in tool for pos in range(length)] for row, length in enumerate(lengths)],
        spans=[PlainSpan(row=r, label=label, start=start, end=end) for r, label, start, end in spans],
        contexts={"diagnosis": [True] * len(lengths)} if contexts is None else contexts,
        source=list(source),
    )


def lowered(text: str, batch: PlainBatch, step: int = 0, tokens: float = 0.0, total_steps: int = 100) -> Lowered:
    return lower(compile_plan(spec_of(text), facts_of(total_steps)), tensors_of(batch), step, tokens=tokens)


def weights(text: str, batch: PlainBatch, step: int = 0, tokens: float = 0.0, total_steps: int = 100) -> list[float]:
    """Weights of a spec with one kernel."""
    routing = lowered(text, batch, step, tokens, total_steps).routing
    assert len(routing.kernels) == 1
    return routing.weight_CT[0].tolist()


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
    assert found.routing.rows(0).tolist() == marked
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
    assert found.routing.weight_CT.tolist() == [[0.0] * 5] * 2
    assert found.tokens_of_loss == {(0, 0): 0, (0, 1): 0}


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
    assert found.tokens_of_loss == {(0, 0): 2, (0, 1): 4}
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


# ---------------------------------------------------------------------------------------------------------- advantages


def advantages(text: str, reward: list[float], group: list[int] | None = None) -> list[float]:
    found = lowered(text + "rest: grpo()\n", batch_of([1] * len(reward), reward=reward, group=group))
    assert found.routing.advantage_CT[0].tolist() == found.advantage_R.float().tolist()
    return found.advantage_R.tolist()


def test_group_advantage() -> None:
    """Rewards 1 0 0 0: mean 1/4, squares 9/16 + 3/16 = 3/4, std = sqrt(3/4 / 3) = 1/2, so 3/2 and -1/2."""
    assert advantages("", [1.0, 0.0, 0.0, 0.0]) == [1.5, -0.5, -0.5, -0.5]
    assert advantages("advantage = group(scale=none)\n", [1.0, 0.0, 0.0, 0.0]) == [0.75, -0.25, -0.25, -0.25]
    # against the mean of the others: 1 - 0, and 0 - 1/3
    assert advantages("advantage = loo\n", [1.0, 0.0, 0.0, 0.0]) == pytest.approx([1.0, -1 / 3, -1 / 3, -1 / 3])
    assert advantages("advantage = none\n", [1.0, 0.25]) == [1.0, 0.25]


def test_groups_do_not_mix() -> None:
    """Groups {2, 0} and {1, 1}, interleaved: std of 2 and 0 is sqrt(2)."""
    root = math.sqrt(0.5)
    assert advantages("", [2.0, 1.0, 0.0, 1.0], [7, 3, 7, 3]) == pytest.approx([root, 0.0, -root, 0.0])


@pytest.mark.parametrize("estimator", ["group()", "group(scale=none)", "loo"])
@pytest.mark.parametrize("reward", [0.0, 1.0, 0.1, 1 / 3, 1e6 + 0.1])
def test_equal_rewards_are_exactly_zero(estimator: str, reward: float) -> None:
    for size in (2, 3, 7):
        assert advantages(f"advantage = {estimator}\n", [reward] * size) == [0.0] * size


def test_group_of_one_is_exactly_zero() -> None:
    """Its rewards are all equal."""
    assert advantages("", [1.0]) == [0.0]
    assert advantages("advantage = loo\n", [1.0]) == [0.0]
    assert advantages("advantage = group(scale=none)\n", [0.7, 0.7], [0, 1]) == [0.0, 0.0]


def test_rewards_that_almost_agree_are_whitened_all_the_same() -> None:
    """There is no epsilon: 1 and 1 + 2^-20 give -1/sqrt(2) and 1/sqrt(2)."""
    assert advantages("", [1.0, 1.0 + 2**-20]) == pytest.approx([-math.sqrt(0.5), math.sqrt(0.5)])


def test_policy_gradients_of_one_route_keep_their_advantages() -> None:
    found = lowered("rest: grpo() + pg(adv=reward * 3)\n", batch_of([1, 1], reward=[1.0, 0.0])).routing
    first, second = found.kernels
    assert isinstance(first, PolicyGradientKernel)
    assert isinstance(second, PolicyGradientKernel)
    assert first != second
    root = math.sqrt(0.5)
    assert found.advantage_CT.tolist() == [pytest.approx([root, -root]), [3.0, 0.0]]


# ----------------------------------------------------------------------------------------------------------- schedules


@pytest.mark.parametrize(
    "step, kl, rho",
    [(0, 0.5, 0.0), (9, 0.5, 0.0), (10, 0.5, 0.0), (25, 0.25, 0.5), (37, 0.05, 0.9), (40, 0.0, 1.0), (99, 0.0, 1.0)],
)
def test_the_policy_gradient_returns_as_the_divergence_goes(step: int, kl: float, rho: float) -> None:
    """rho = 1 - kl / 0.5. One response of 8 tokens: 25% of it, tokens 2 and 3, are the error; every weight / 8."""
    found = lowered(TRACE, batch_of([8], spans=[(0, "error", 2, 5)]), step)
    divergence, gradient = found.routing.kernels
    assert isinstance(divergence, DivergenceKernel)
    assert isinstance(gradient, PolicyGradientKernel)
    kl_T, gradient_T = found.routing.weight_CT.tolist()
    assert kl_T == pytest.approx([0, 0, kl / 8, kl / 8, 0, 0, 0, 0], abs=1e-7)
    assert gradient_T == pytest.approx([1 / 8] * 2 + [rho / 8] * 2 + [1 / 8] * 4, abs=1e-7)
    assert found.routing.teacher_tokens("teacher").tolist() == ([2, 3] if kl else [])
    assert found.tokens_of_loss[0, 0] == (2 if kl else 0)


@pytest.mark.parametrize(
    "arguments, step, wanted",
    [
        ("start=5", 4, 0.0),
        ("start=5", 5, 2.0),
        ("start=5, ramp=10", 5, 0.0),
        ("start=5, ramp=10", 10, 1.0),  # half of the ramp
        ("start=5, ramp=10", 15, 2.0),
        ("warmup=10", 99, 2.0),  # no anneal: held
        ("anneal=linear, floor=1", 50, 1.5),  # to the end of the run
        ("warmup=20, anneal=linear", 60, 1.0),  # half of the 80 steps left
        ("warmup=20, anneal=cos(40)", 40, 1.0),  # (1 + cos(pi/2)) / 2
        ("anneal=cos(40)", 10, 1 + math.sqrt(0.5)),
        ("anneal=exp(40), floor=1", 0, 2.0),
        ("anneal=exp(40)", 20, 2 * (math.exp(-2.5) - math.exp(-5)) / (1 - math.exp(-5))),
        ("anneal=exp(40), floor=1", 40, 1.0),
        ("anneal=step(40), floor=1", 39, 2.0),
        ("anneal=step(40), floor=1", 40, 1.0),
        ("start=10%", 9, 0.0),
        ("start=10%", 10, 2.0),
        ("start=7%", 7, 2.0),  # 7% of 100 steps is 7, though 0.07 * 100 is a little more in binary
        ("anneal=step(14%), floor=1", 14, 1.0),
    ],
)
def test_schedule(arguments: str, step: int, wanted: float) -> None:
    assert weights(f"rest: nll(w=2, {arguments})\n", batch_of([1]), step) == pytest.approx([wanted])


def test_schedule_in_tokens() -> None:
    """Half of the anneal's 1000 tokens are trained, whatever the step."""
    text = "rest: nll(w=2, start=500 tokens, anneal=linear(1e3 tokens))\n"
    assert weights(text, batch_of([1]), step=3, tokens=1000.0) == pytest.approx([1.0])
    assert weights(text, batch_of([1]), step=99, tokens=499.0) == [0.0]


# --------------------------------------------------------------------------------------------------------- expressions


def test_reductions() -> None:
    """Rewards 1 0 | 4, lengths 1 1 2: mean over the group 1/2 | 4, over the batch 5/3."""
    batch = batch_of([1, 1, 2], reward=[1.0, 0.0, 4.0], group=[0, 0, 1])

    def times_length(weight: str) -> list[float]:
        """Weights with the denominator (length x 3 responses) taken out."""
        found = weights(f"rest: nll(w={weight})\n", batch)
        return [value * size for value, size in zip(found, (3, 3, 6, 6), strict=True)]

    assert times_length("mean(reward, over=group)") == pytest.approx([0.5, 0.5, 4, 4])
    assert times_length("reward - max(reward, over=group)") == pytest.approx([0, -1, 0, 0])
    assert times_length("sum(pos, over=row) + len") == pytest.approx([1, 1, 3, 3])  # positions 0 | 0 | 0 1
    e = math.e
    assert times_length("softmax(reward, over=group)") == pytest.approx([e / (e + 1), 1 / (e + 1), 1, 1])


def test_reductions_over_the_batch() -> None:
    """One value a step, measured on the batch: rewards 1 0 4 have the mean 5/3; positions 0 0 0 1 the mean 1/4."""
    batch = batch_of([1, 1, 2], reward=[1.0, 0.0, 4.0], group=[0, 0, 1])
    assert weights("rest: nll(w=mean(reward, over=batch), per=token)\n", batch) == pytest.approx([5 / 12] * 4)
    assert weights("rest: nll(w=mean(pos, over=batch), per=token)\n", batch) == pytest.approx([1 / 16] * 4)
    # above the mean 5/3 stands only the last rollout
    found = lowered("rest when reward > mean(reward, over=batch): nll()\n", batch)
    assert found.route_of_T.tolist() == [-1, -1, 0, 0]
    found = lowered("rest when mean(reward, over=batch) > 1: nll()\n", batch)
    assert found.route_of_T.tolist() == [0] * 4


def test_top_takes_the_earlier_of_equals() -> None:
    """old_logp falls along a response; 50% of 4 tokens are 2."""
    found = lowered("rest when top(old_logp, 50%, over=row): nll()\n", batch_of([4]))
    assert found.route_of_T.tolist() == [0, 0, -1, -1]
    found = lowered("rest when top(reward, 50%, over=batch): nll()\n", batch_of([1] * 4, reward=[1.0] * 4))
    assert found.route_of_T.tolist() == [0, 0, -1, -1]


# --------------------------------------------------------------------------------------------------------------- edges


def test_empty_batch() -> None:
    found = lowered(TRACE, batch_of([]))
    assert found.routing.weight_CT.shape == (2, 0)
    assert found.route_of_T.tolist() == found.advantage_R.tolist() == []
    assert found.routing.teacher_tokens("teacher").tolist() == []


def test_batch_of_empty_responses() -> None:
    found = lowered(TRACE, batch_of([0, 0], reward=[1.0, 0.0]))
    assert found.routing.weight_CT.shape == (2, 0)
    assert found.advantage_R.tolist() == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5)])


def test_an_empty_response_counts_as_a_response() -> None:
    """It has a reward, so it moves the group's mean, and it is one of the 2 responses."""
    found = lowered("rest: grpo()\n", batch_of([2, 0], reward=[1.0, 0.0]))
    assert found.routing.weight_CT.tolist() == [[0.25, 0.25]]
    assert found.routing.row_of_T.tolist() == [0, 0]
    assert found.routing.advantage_CT[0].tolist() == pytest.approx([math.sqrt(0.5)] * 2)


def test_dtypes() -> None:
    found = lowered(TRACE, batch_of([8], spans=[(0, "error", 2, 5)]))
    assert found.routing.weight_CT.dtype is found.routing.advantage_CT.dtype is torch.float32
    assert found.routing.row_of_T.dtype is found.route_of_T.dtype is torch.int64
    assert not found.routing.weight_CT.requires_grad


# -------------------------------------------------------------------------------------------------------------- errors


def rollout_batch(**changed: object) -> RolloutBatch:
    fields: dict[str, object] = {
        "length_R": torch.tensor([2, 1]),
        "reward_R": torch.zeros(2),
        "correct_R": torch.zeros(2, dtype=torch.bool),
        "group_R": torch.zeros(2, dtype=torch.int64),
        "old_logp_T": torch.zeros(3),
        "from_model_T": torch.ones(3, dtype=torch.bool),
    }
    return RolloutBatch(**(fields | changed))


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"reward_R": torch.zeros(3)}, r"reward_R has shape \(3,\), expected \(2,\)"),
        ({"group_R": torch.zeros(1, dtype=torch.int64)}, r"group_R has shape \(1,\), expected \(2,\)"),
        ({"old_logp_T": torch.zeros(2)}, r"old_logp_T has shape \(2,\), expected \(3,\)"),
        ({"from_model_T": torch.ones(3, 1, dtype=torch.bool)}, r"from_model_T has shape \(3, 1\)"),
        ({"contexts": (("solution", torch.ones(3, dtype=torch.bool)),)}, r"contexts\[solution\] has shape"),
        ({"source_R": ("policy",)}, "source_R names 1 rows, expected 2"),
        ({"spans": (TokenSpan(row=1, label="key", start=0, end=2),)}, "lies outside its response"),
        ({"spans": (TokenSpan(row=2, label="key", start=0, end=0),)}, "lies outside its response"),
        ({"spans": (TokenSpan(row=0, label="key", start=2, end=1),)}, "lies outside its response"),
    ],
)
def test_malformed_batch(changed: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rollout_batch(**changed)


@pytest.mark.parametrize("weight", ["1/reward", "log(reward - 1)", "sqrt(-1 - reward)", "exp(len * 1000)"])
def test_a_weight_that_is_not_finite_names_its_line(weight: str) -> None:
    text = f"key: nll()\n\nrest: grpo() + entropy(w={weight})\n"
    with pytest.raises(ValueError, match=r"line 3: .*entropy\(w=.*not a finite"):
        lowered(text, batch_of([2]))


@pytest.mark.parametrize("advantage", ["1/reward", "exp(90 + len)"])
def test_an_advantage_that_is_not_a_float32_number_names_its_line(advantage: str) -> None:
    """exp(92) is a double and no float32."""
    with pytest.raises(ValueError, match=r"line 1: the advantage of pg\(.*not a finite"):
        lowered(f"rest: pg(adv={advantage})\n", batch_of([2]))


def test_per_token_without_a_token_of_the_model_is_refused() -> None:
    batch = batch_of([2], tool=[(0, 0), (0, 1)])
    with pytest.raises(ValueError, match=r"line 1: per=token divides nll\(per=token\) by the tokens the model wrote"):
        lowered("rest when source == tool: nll(per=token)\nrest: none\n", batch)


@pytest.mark.parametrize(("share", "taken"), [("20%", 1), ("50%", 1), ("60%", 2), ("100%", 2)])
def test_top_takes_at_least_its_share(share: str, taken: int) -> None:
    found = weights(f"rest when top(pos, {share}, over=row): nll(per=const(1))\nrest: none\n", batch_of([2]))
    assert sum(weight != 0 for weight in found) == taken


def test_an_empty_response_has_no_mean_to_reduce() -> None:
    """The mean log-prob is (-1 - 1.25) / 2 and, for the empty response, none: the largest is -1.125, not 0."""
    found = weights("rest: nll(w=max(mean(old_logp, over=row), over=batch), per=const(1))\n", batch_of([2, 0]))
    assert found == pytest.approx([-1.125 / 2, -1.125 / 2])


def test_a_weight_may_be_infinite_where_it_trains_nothing() -> None:
    """1/reward is infinite on the wrong row, which the route does not take."""
    found = weights("rest when correct: nll(w=1/reward)\n", batch_of([1, 1], reward=[1.0, 0.0]))
    assert found == [0.5, 0.0]
