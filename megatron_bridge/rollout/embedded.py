"""Sampling in the training process: batched, with a key/value cache, under any tensor and pipeline layout.

Every tp rank draws the same tokens: it sees the same gathered logits, and the noise is a pure function of the
seed, the request's key and its sample index. Noise goes through the inverse of the cumulative distribution in
float64, so that the last bits in which two layouts differ almost never change a token. With pipeline stages the
last stage draws and tells the others.

Suffixes: B requests in flight, T response positions, P prompt positions, V vocabulary, v = padded V / tp, h
hidden.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.distributed as dist

from megatron_bridge.device import training_device
from megatron_bridge.losses import gemm
from megatron_bridge.model.attention import RaggedCache
from megatron_bridge.model.gpt import bare
from megatron_bridge.rollout.engine import Begun, Drawn, Finish, Sample, SamplingParams, check_budgets

_COMPACT_BELOW = 0.8  # drop finished rows once fewer than this share is still in flight


@dataclass(frozen=True, slots=True)
class _Request:
    """Sample `index` of prompt number `prompt`; `budget` new tokens fit."""

    prompt: int
    index: int
    budget: int


class EmbeddedEngine:
    """A `RolloutEngine` over the model in training: its weights are always the trainer's."""

    def __init__(self, model: torch.nn.ModuleList, *, vocab_size: int, max_context: int, max_batch: int = 256) -> None:
        """`vocab_size` without padding, `max_context` in tokens (prompt and response), `max_batch` rows at
        once.

        Raises ValueError for a context longer than the model's.
        """
        self.model = torch.nn.ModuleList(bare(chunk) for chunk in model)
        self._last = bare(model[-1])
        longest = self._last.max_sequence_length
        if not 2 <= max_context <= longest:
            raise ValueError(f"max_context {max_context}: choose 2 to {longest} tokens, the model's longest")
        if max_batch < 1:
            raise ValueError(f"max_batch {max_batch}: sample at least 1 row at once")
        self.vocab_size = vocab_size
        self.max_context = max_context
        self.max_batch = max_batch
        self.weight_version = 0
        self._tp: dist.ProcessGroup = self._last.pg_collection.tp
        self._pp: dist.ProcessGroup = self._last.pg_collection.pp

    def sync(self, step: int) -> None:
        """See `RolloutEngine`; samples say from here on that `step` drew them."""
        self.weight_version = step

    def start(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        params: SamplingParams,
        *,
        keys: Sequence[int],
        begun: Sequence[Sequence[Begun]] | None = None,
    ) -> EmbeddedPending:
        """See `RolloutEngine`; nothing is drawn before `result()`, and `begun`, of another engine, is not read."""
        return EmbeddedPending(engine=self, prompts=prompts, n=n, params=params, keys=keys)

    def metrics(self) -> dict[str, float]:
        """See `RolloutEngine`: nothing can happen here."""
        return {}

    def close(self) -> None:
        """See `RolloutEngine`: nothing was started."""

    def generate(
        self, prompts: Sequence[Sequence[int]], n: int, params: SamplingParams, *, keys: Sequence[int]
    ) -> list[list[Sample]]:
        """The samples of `RolloutEngine.start`. Call it inside `megatron_runtime()`; no gradient, model in eval mode.

        `max_new_tokens` is cut to what fits into the context ("length"). Collectives: those of the layers and
        one all-gather of logits a step, over tp; with pp > 1 hidden states from stage to stage and one
        broadcast a step. Raises PromptError for a prompt that is empty, leaves no room or holds a token outside of
        the vocabulary.
        """
        if len(keys) != len(prompts):
            raise ValueError(f"{len(prompts)} prompts with {len(keys)} keys: give one key a prompt")
        budgets = check_budgets(prompts, params, max_context=self.max_context, vocab_size=self.vocab_size)
        requests = [_Request(i, j, budget) for i, budget in enumerate(budgets) for j in range(n)]
        requests.sort(key=lambda request: (len(prompts[request.prompt]), request.prompt, request.index))
        answers: dict[tuple[int, int], Sample] = {}
        with torch.no_grad(), _eval_mode(self.model), _whole_sequences(self.model):
            for start in range(0, len(requests), self.max_batch):
                piece = requests[start : start + self.max_batch]
                for request, sample in zip(piece, self._sample(piece, prompts, params, keys), strict=True):
                    answers[request.prompt, request.index] = sample
        return [[answers[i, j] for j in range(n)] for i in range(len(prompts))]

    def score(self, sequences: Sequence[Sequence[int]], *, temperature: float = 1.0) -> list[list[float]]:
        """log p of every token but the first of each sequence, at `temperature`; the same on every rank.

        Collectives: as `generate`, for one step.
        """
        longest = max(len(sequence) for sequence in sequences)
        ids_BP = torch.tensor([[*sequence, *[0] * (longest - len(sequence))] for sequence in sequences])
        ids_BP = ids_BP.to(training_device())
        logp_BP = torch.empty(len(sequences), longest - 1, dtype=torch.float64, device=ids_BP.device)
        with torch.no_grad(), _eval_mode(self.model), _whole_sequences(self.model):
            cache = self._cache(longest)
            cache.prefill(longest)
            hidden_PBh = self._forward(ids_BP, cache)
            if self._pp.rank() == self._pp.size() - 1:
                logits_BPV = self._logits(hidden_PBh[:-1].transpose(0, 1).flatten(0, 1)).view(*logp_BP.shape, -1)
                logp_BP = torch.log_softmax(logits_BPV / temperature, -1).gather(2, ids_BP[:, 1:, None]).squeeze(2)
        if self._pp.size() > 1:
            dist.broadcast(logp_BP, group=self._pp, group_src=self._pp.size() - 1)
        return [row[: len(sequence) - 1] for row, sequence in zip(logp_BP.tolist(), sequences, strict=True)]

    def _sample(
        self,
        requests: Sequence[_Request],
        prompts: Sequence[Sequence[int]],
        params: SamplingParams,
        keys: Sequence[int],
    ) -> list[Sample]:
        """Draw the responses to `requests` together. Distinct prompts are read once each."""
        device = training_device()
        distinct = sorted({request.prompt for request in requests})
        row_of = {prompt: row for row, prompt in enumerate(distinct)}
        rows_B = torch.tensor([row_of[request.prompt] for request in requests], device=device)
        budgets = [request.budget for request in requests]
        budget_B = torch.tensor(budgets, device=device)
        stop_ids = torch.tensor(params.stop_token_ids, dtype=torch.long, device=device)
        steps = max(budgets)
        longest = max(len(prompts[i]) for i in distinct)
        noise_BT = _noise([(keys[r.prompt], r.index) for r in requests], steps, params.seed).to(device)
        tokens_BT = torch.zeros(len(requests), steps, dtype=torch.long, device=device)
        logprobs_BT = torch.zeros(len(requests), steps, dtype=torch.float64, device=device)

        cache = self._cache(longest + steps)
        hidden_Bh, position_B = self._prefill([prompts[i] for i in distinct], cache)
        cache.select(rows_B)
        hidden_Bh, position_B = hidden_Bh[rows_B], position_B[rows_B]
        flight_B = torch.arange(len(requests), device=device)  # which request a cached row is
        done_B = torch.zeros_like(flight_B, dtype=torch.bool)  # done rows draw on, unread, until they are dropped
        for step in range(steps):
            token_B, logprob_B = self._draw(hidden_Bh, noise_BT[flight_B, step], params.temperature)
            tokens_BT[flight_B, step], logprobs_BT[flight_B, step] = token_B, logprob_B
            done_B |= torch.isin(token_B, stop_ids) | (budget_B[flight_B] <= step + 1)
            alive = len(done_B) - int(done_B.sum())
            if alive == 0:
                break
            if alive < _COMPACT_BELOW * len(done_B):
                keep = (~done_B).nonzero().squeeze(1)
                cache.select(keep)
                flight_B, done_B = flight_B[keep], done_B[keep]
                token_B, position_B = token_B[keep], position_B[keep]
            cache.advance(position_B, longest + step + 1)
            hidden_Bh = self._forward(token_B[:, None], cache)[0]
            position_B = position_B + 1
        return self._read(tokens_BT, logprobs_BT, budgets, params.stop_token_ids)

    def _cache(self, capacity: int) -> RaggedCache:
        capacity += capacity % 2  # megatron-core halves it under context parallelism
        cos_Sd, sin_Sd = self._last.rotary_pos_emb.get_cos_sin(capacity)
        device = training_device()
        return RaggedCache(cos_Sd=cos_Sd.to(device), sin_Sd=sin_Sd.to(device))

    def _forward(self, tokens_BP: torch.Tensor, cache: RaggedCache) -> torch.Tensor:
        """Hidden states [P, B, h] of tokens that `cache` was told of; on the last stage those after the final norm."""
        stage, stages = self._pp.rank(), self._pp.size()
        for chunk in self.model:
            if not chunk.pre_process:
                rows, length = tokens_BP.shape
                config = chunk.config
                received_PBh = torch.empty(
                    length, rows, config.hidden_size, dtype=config.pipeline_dtype, device=tokens_BP.device
                )
                dist.recv(received_PBh, group=self._pp, group_src=(stage - 1) % stages)
                chunk.set_input_tensor(received_PBh)
            # Positions enter through the cache: the model has no learned position embedding.
            hidden_PBh = chunk(tokens_BP, None, None, inference_context=cache, return_hidden=True)
            chunk.set_input_tensor(None)
            if not chunk.post_process:
                dist.send(hidden_PBh.contiguous(), group=self._pp, group_dst=(stage + 1) % stages)
        return hidden_PBh

    def _prefill(self, prompts: Sequence[Sequence[int]], cache: RaggedCache) -> tuple[torch.Tensor, torch.Tensor]:
        """Read prompts into the cache: the hidden states of their last tokens [B, h], and their lengths [B].

        Prompts are padded on the right. Causal attention hides the padding from every prompt token, and its
        cache slots are overwritten by the response before they can be seen.
        """
        lengths = [len(prompt) for prompt in prompts]
        tokens_BP = torch.zeros(len(prompts), max(lengths), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            tokens_BP[row, : len(prompt)] = torch.tensor(prompt)
        length_B = torch.tensor(lengths, device=training_device())
        cache.prefill(max(lengths))
        hidden_PBh = self._forward(tokens_BP.to(length_B.device), cache)
        rows_B = torch.arange(len(prompts), device=length_B.device)
        return hidden_PBh[length_B - 1, rows_B], length_B

    def _draw(
        self, hidden_Bh: torch.Tensor, noise_B: torch.Tensor, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw one token a row and its log-probability, [B] each; the same on every tp rank and every stage."""
        if self._pp.size() == 1:
            return self._draw_here(hidden_Bh, noise_B, temperature)
        last = self._pp.size() - 1
        drawn_2B = torch.empty(2, len(noise_B), dtype=torch.float64, device=noise_B.device)
        if self._pp.rank() == last:
            drawn_2B = torch.stack([x.double() for x in self._draw_here(hidden_Bh, noise_B, temperature)])
        dist.broadcast(drawn_2B, group=self._pp, group_src=last)
        return drawn_2B[0].long(), drawn_2B[1]

    def _draw_here(
        self, hidden_Bh: torch.Tensor, noise_B: torch.Tensor, temperature: float
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw on the last stage; padded columns are never drawn."""
        logits_BV = self._logits(hidden_Bh)
        logp_BV = torch.log_softmax(logits_BV / temperature if temperature else logits_BV, 1)
        token_B = inverse_cdf(logp_BV.exp(), noise_B) if temperature else logp_BV.argmax(1)
        return token_B, logp_BV.gather(1, token_B[:, None]).squeeze(1)

    def _logits(self, hidden_Bh: torch.Tensor) -> torch.Tensor:
        """Logits [B, V] in float64 on the last stage, gathered over tp, without padding."""
        dtype = gemm.compute_dtype(hidden_Bh.dtype)  # as the loss: logits are float32, whatever they are made of
        weight_vh = gemm.operand(self._last.output_weight(), dtype)
        logits_BV = gemm.product(gemm.operand(hidden_Bh, dtype), weight_vh.t(), dtype)
        if self._tp.size() > 1:
            shards = [torch.empty_like(logits_BV) for _ in range(self._tp.size())]
            dist.all_gather(shards, logits_BV, group=self._tp)
            logits_BV = torch.cat(shards, 1)
        return logits_BV[:, : self.vocab_size].double()

    def _read(
        self,
        tokens_BT: torch.Tensor,
        logprobs_BT: torch.Tensor,
        budgets: Sequence[int],
        stop_token_ids: Sequence[int],
    ) -> list[Sample]:
        """Cut each row at its first stop token or its budget."""
        stops, samples = set(stop_token_ids), []
        for tokens, logprobs, budget in zip(tokens_BT.tolist(), logprobs_BT.tolist(), budgets, strict=True):
            end = next((t + 1 for t in range(budget) if tokens[t] in stops), None)
            finish: Finish = "length" if end is None else "stop"
            end = end or budget
            samples.append(
                Sample(
                    token_ids=tuple(tokens[:end]),
                    logprobs=tuple(logprobs[:end]),
                    finish=finish,
                    weight_versions=(self.weight_version,) * end,
                )
            )
        return samples


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedPending:
    """Samples that are drawn when they are waited for."""

    engine: EmbeddedEngine
    prompts: Sequence[Sequence[int]]
    n: int
    params: SamplingParams
    keys: Sequence[int]

    def result(self) -> Drawn:
        """See `EmbeddedEngine.generate`."""
        began = time.perf_counter()
        samples = self.engine.generate(self.prompts, self.n, self.params, keys=self.keys)
        return Drawn(samples=samples, seconds=time.perf_counter() - began)

    def so_far(self) -> None:
        """See `Pending`: the same weights draw the same samples again."""


def inverse_cdf(probability_BV: torch.Tensor, noise_B: torch.Tensor) -> torch.Tensor:
    """The index at which the cumulative probability first exceeds noise x total, [B]; noise is uniform on [0,
    1).

    An index of probability 0 is never returned.
    """
    cumulative_BV = probability_BV.cumsum(1)
    total_B = cumulative_BV[:, -1]
    # A product that rounds up to the total would lie past the end.
    target_B = torch.minimum(noise_B * total_B, torch.nextafter(total_B, torch.zeros_like(total_B)))
    return torch.searchsorted(cumulative_BV, target_B[:, None], right=True).squeeze(1)


def _noise(requests: Sequence[tuple[int, int]], steps: int, seed: int) -> torch.Tensor:
    """Uniform noise [B, T] in float64: row r is a pure function of (seed, key, sample index), and a prefix of
    any longer.

    Philox is counter-based: seed and key are its key, the sample index stands above the counter of the steps.
    """
    mask = (1 << 64) - 1
    rows = []
    for key, index in requests:
        # numpy would make floats of a list that mixes small and large integers
        words = np.array([seed & mask, key & mask], dtype=np.uint64)
        above = np.array([0, 0, 0, index], dtype=np.uint64)
        rows.append(np.random.Generator(np.random.Philox(key=words, counter=above)).random(steps))
    return torch.from_numpy(np.stack(rows))


@contextlib.contextmanager
def _eval_mode(model: torch.nn.ModuleList) -> Iterator[None]:
    training = model[0].training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@contextlib.contextmanager
def _whole_sequences(model: torch.nn.ModuleList) -> Iterator[None]:
    """Turn sequence parallelism off in the block: a forward of one token a row cannot be cut."""
    config = model[0].config  # of all chunks
    names = ("sequence_parallel", "scatter_to_sequence_parallel", "reduce_scatter_embeddings")
    owners = [(owner, name) for owner in (config, *model.modules()) for name in names if getattr(owner, name, False)]
    if not config.sequence_parallel:
        owners = []
    try:
        for owner, name in owners:
            setattr(owner, name, False)
        yield
    finally:
        for owner, name in owners:
            setattr(owner, name, True)
