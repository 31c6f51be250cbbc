"""Packed micro-batches: what goes together, and where each token of it stands."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from megatron_bridge.annotation import Annotation, Problem
from megatron_bridge.rollout.align import AlignedText
from megatron_bridge.training.collect import Rollout
from megatron_bridge.training.microbatch import Share, cut, join
from trace_dsl.lowering import FusedRouting

CPU = torch.device("cpu")
LENGTHS = st.lists(st.tuples(st.integers(1, 30), st.integers(1, 60)), min_size=1, max_size=12)


def rollout(number: int, prompt: int, response: int) -> Rollout:
    return Rollout(
        group=number,
        problem=Problem(prompt="", data=None),
        prompt_ids=(number + 1,) * prompt,
        token_ids=tuple(range(100, 100 + response)),
        logprobs=(-1.0,) * response,
        weight_versions=(0,) * response,
        finish="stop",
        aligned=AlignedText(text="", intervals=()),
        reward=0.0,
        annotation=Annotation(),
    )


@given(lengths=LENGTHS, most=st.integers(40, 200), multiple=st.sampled_from([1, 2, 4]))
def test_packs_hold_every_rollout_once_and_no_more_tokens_than_asked(
    lengths: list[tuple[int, int]], most: int, multiple: int
) -> None:
    rollouts = [rollout(n, *length) for n, length in enumerate(lengths)]
    tokens = sum(response for _, response in lengths)
    part = Share(pack_tokens=most, multiple=multiple)
    batches = cut(rollouts, FusedRouting.empty(tokens), micro_batch=8, part=part, device=CPU)
    assert sorted(place for batch in batches for place in batch.place_T.tolist()) == list(range(tokens))
    for batch in batches:
        rows, places = batch.sequences.ids_bs.shape
        assert rows == 1
        assert places % multiple == 0
        assert places <= most or len(batch.rollouts) == 1
        assert places < sum(len(r.prompt_ids) + len(r.token_ids) + multiple for r in batch.rollouts)
    # no two packs would have fitted into one
    sizes = sorted(batch.sequences.ids_bs.shape[1] for batch in batches)
    assert len(sizes) < 2 or sizes[0] + sizes[1] > most


@settings(max_examples=40)
@given(lengths=LENGTHS, most=st.integers(40, 2000), fewest=st.integers(2, 8))
def test_an_interleaved_pipeline_gets_as_many_packs_as_it_needs(
    lengths: list[tuple[int, int]], most: int, fewest: int
) -> None:
    rollouts = [rollout(n, *length) for n, length in enumerate(lengths * fewest)]
    tokens = sum(len(r.token_ids) for r in rollouts)
    part = Share(pack_tokens=most, fewest=fewest)
    batches = cut(rollouts, FusedRouting.empty(tokens), micro_batch=8, part=part, device=CPU)
    assert len(batches) >= fewest
    assert sorted(place for batch in batches for place in batch.place_T.tolist()) == list(range(tokens))
    plain = cut(rollouts, FusedRouting.empty(tokens), micro_batch=8, part=Share(pack_tokens=most), device=CPU)
    assert len(batches) == max(len(plain), fewest)


@given(lengths=LENGTHS, cp=st.sampled_from([1, 2, 4]))
def test_every_response_token_is_predicted_by_the_place_before_it(lengths: list[tuple[int, int]], cp: int) -> None:
    rollouts = [rollout(n, *length) for n, length in enumerate(lengths)]
    seen: list[int] = []
    row = torch.tensor([n for n, r in enumerate(rollouts) for _ in r.token_ids])
    number = torch.tensor([i for r in rollouts for i in range(len(r.token_ids))])
    for rank in range(cp):
        part = Share(pack_tokens=1000, cp=cp, cp_rank=rank, multiple=2 * cp if cp > 1 else 1)
        sequences = join([r.prompt_ids for r in rollouts], [r.token_ids for r in rollouts], CPU, part)
        here_t = sequences.here_t
        seen += here_t.tolist()
        prompt_t = torch.tensor([len(r.prompt_ids) for r in rollouts])[row[here_t]]
        assert torch.equal(sequences.places_s[sequences.at_t], prompt_t + number[here_t] - 1)
        before_t = torch.where(number[here_t] == 0, row[here_t] + 1, 99 + number[here_t])
        assert torch.equal(sequences.ids_bs[0, sequences.at_t], before_t)
        begins = sequences.packed.cu_seqlens_q
        assert begins[-1] == cp * sequences.ids_bs.shape[1]
        assert begins.diff().max() == sequences.packed.max_seqlen_q
    assert sorted(seen) == list(range(len(row)))
