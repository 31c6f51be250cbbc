"""The proof of one weight update: what servers say of a probe, against what the trainer says of the same tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist

from megatron_bridge.model.gpt import bare
from megatron_bridge.rollout.background import Background
from megatron_bridge.rollout.client import Client
from megatron_bridge.rollout.engine import RolloutError
from megatron_bridge.rollout.probe import Probed, ask_probe, largest_gap, probe_tokens, trainer_logprobs
from megatron_bridge.rollout.protocol import BadAnswer
from megatron_bridge.rollout.servers import Server, State
from megatron_bridge.rollout.settings import RolloutSettings

# Where the run file gives no bound. Two implementations of one model agree in float32 to about 1e-5 and in bfloat16,
# whose step is 2^-8 of a number, to some hundredths of a nat.
LOGPROB_BOUNDS = {torch.float32: 1e-3, torch.bfloat16: 0.25}


class Proof:
    """Proves the servers of one update. Its making and `of` are collective over all ranks."""

    def __init__(
        self, model: torch.nn.ModuleList, settings: RolloutSettings, *, vocab_size: int, max_context: int
    ) -> None:
        """`model` holds the weights that are sent."""
        self._model, self._settings = model, settings
        self._vocab_size, self._max_context = vocab_size, max_context
        self._probe = probe_tokens(vocab_size, max_context)
        self._bound = settings.logprob_bound or LOGPROB_BOUNDS[bare(model[-1]).config.params_dtype]
        self._expected = trainer_logprobs(model, self._probe, vocab_size)

    def of(
        self, servers: Sequence[Server], client: Client | None, background: Background | None
    ) -> tuple[str | None, float, list[Server]]:
        """On rank 0: what is wrong with the weights, the largest gap, and the servers that hold them right.

        A server that does not answer is left out.
        """
        asked: list[Probed] = []
        if client is not None and background is not None and servers:
            asked = self._asked(servers, client, background)
        box = [[[*tokens, *more] for one in asked for tokens, more in zip(self._probe, one.drawn, strict=True)]]
        dist.broadcast_object_list(box, src=0)
        (sequences,) = box
        drawn: list[list[float]] = []
        if sequences:
            temperature = self._settings.temperature
            drawn = trainer_logprobs(self._model, sequences, self._vocab_size, temperature=temperature)
        largest = 0.0
        for number, one in enumerate(asked):
            mine = drawn[number * len(self._probe) : (number + 1) * len(self._probe)]
            tails = [row[len(tokens) - 1 :] for row, tokens in zip(mine, self._probe, strict=True)]
            gap, drawn_gap = largest_gap(one.scores, self._expected), largest_gap(one.drawn_logprobs, tails)
            largest = max(largest, gap, drawn_gap)
            if not gap <= self._bound:
                return self._other_weights(one.server.url, gap), largest, []
            if not drawn_gap <= self._bound:
                return self._other_sampling(one.server.url, drawn_gap), largest, []
        return None, largest, [one.server for one in asked]

    def _asked(self, servers: Sequence[Server], client: Client, background: Background) -> list[Probed]:
        calls = [
            background.submit(
                ask_probe(
                    client,
                    server,
                    self._probe,
                    temperature=self._settings.temperature,
                    vocab_size=self._vocab_size,
                    max_context=self._max_context,
                    seconds=self._settings.request_timeout,
                )
            )
            for server in servers
        ]
        found = []
        for server, call in zip(servers, calls, strict=True):
            try:
                found.append(call.result())
            except (RolloutError, BadAnswer) as error:
                client.problem = f"{server.url} did not answer the probe: {error}"
                background.run(client.pool.set_state(server, State.DOWN))
        return found

    def _other_weights(self, url: str, gap: float) -> str:
        return (
            f"{url} does not hold the trainer's weights after sync={self._settings.sync}: the log-probs of a probe "
            f"differ by up to {gap:.3g}, rollout.logprob_bound is {self._bound:g}. Another dtype or "
            "attention backend differs by little, other weights by much: raise the bound in the first case, try "
            "another rollout.sync in the second"
        )

    def _other_sampling(self, url: str, gap: float) -> str:
        return (
            f"{url} holds the trainer's weights and draws from another distribution: the log-probs of tokens that it "
            f"drew at rollout.temperature {self._settings.temperature:g} differ by up to {gap:.3g} from the trainer's, "
            f"rollout.logprob_bound is {self._bound:g}. Start it without sampling defaults of its own"
        )
