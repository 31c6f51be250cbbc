"""The same tokens scored by the trainer and by its servers: the proof that a weight update arrived.

Suffixes: B sequences, S tokens each, h hidden, v = padded vocabulary / tp, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist

from megatron_bridge.device import training_device
from megatron_bridge.model.gpt import bare

_SEQUENCES, _TOKENS = 2, 48


def probe_tokens(vocab_size: int, max_context: int) -> list[list[int]]:
    """Token ids that depend on nothing but the sizes; random, so that much of the embedding is read.

    The vocabulary's last token is not among them: SGLang 0.5.20 names it 0 beside the log-prob of an input.
    """
    generator = torch.Generator().manual_seed(0)
    length = min(_TOKENS, max_context - 1)
    return torch.randint(0, vocab_size - 1, (_SEQUENCES, length), generator=generator).tolist()


@torch.no_grad()
def trainer_logprobs(model: torch.nn.Module, token_ids: Sequence[Sequence[int]], vocab_size: int) -> list[list[float]]:
    """log p of every token but the first under the model of now, at temperature 1.

    Sequences have one length; the model has one pipeline stage. Collectives: those of the layers and one all-gather of
    logits, over tp; the same on every tp rank.
    """
    model = bare(model)
    training = model.training
    model.eval()
    ids_BS = torch.tensor(token_ids, device=training_device())
    positions_BS = torch.arange(ids_BS.shape[1], device=ids_BS.device).expand_as(ids_BS)
    hidden_SBh = model(ids_BS, positions_BS, None, return_hidden=True)
    model.train(training)
    logits_SBv = torch.nn.functional.linear(hidden_SBh, model.output_weight())
    tp: dist.ProcessGroup = model.pg_collection.tp
    if tp.size() > 1:
        shards = [torch.empty_like(logits_SBv) for _ in range(tp.size())]
        dist.all_gather(shards, logits_SBv.contiguous(), group=tp)
        logits_SBv = torch.cat(shards, -1)
    logp_BSV = torch.log_softmax(logits_SBv[..., :vocab_size].double(), -1).transpose(0, 1)
    return logp_BSV[:, :-1].gather(2, ids_BS[:, 1:, None]).squeeze(2).tolist()


def largest_gap(one: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> float:
    """The largest difference between two scores of the same tokens."""
    return max(abs(a - b) for x, y in zip(one, other, strict=True) for a, b in zip(x, y, strict=True))
