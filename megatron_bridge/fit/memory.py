"""Bytes of each part of a training step on one rank, from first principles: pure functions of sizes.

What autograd keeps is listed tensor by tensor as the layers compute; nothing here is fitted to a measurement. The page
docs/fit.md has the same formulas, and the measured peaks beside the estimates.

Legend: T tokens of a micro-batch on this rank, U = T / tp with sequence parallelism, else T; w bytes of a parameter;
widths as in `parameters`.
"""

from __future__ import annotations

from dataclasses import dataclass

from megatron_bridge.fit.parameters import Parameters, Widths
from megatron_bridge.model.shape import Layout, micro_batch_group

FLOAT = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """A micro-batch on one rank. tokens: of all its sequences, padding included; length: of one sequence on this rank;
    predicted: response tokens, whose logits are formed; cp: ranks that share a sequence."""

    tokens: int
    length: int
    predicted: int
    cp: int = 1
    packed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """How layers compute. width: bytes of an activation; fused_norms: a norm keeps its input alone, where torch's on
    the CPU keeps the normalised rows too, both in float32; sharded: U = T / tp."""

    width: int
    fused_norms: bool
    sharded: bool
    recompute: bool
    tp: int


def states(parameters: int, *, width: int, ranks: int) -> tuple[int, int, int]:
    """(weights, gradients, optimizer): w P, 4 P and, over the `ranks` that share it, 8 P, or 12 P with main weights."""
    of_optimizer = 8 if width == FLOAT else 12
    return width * parameters, FLOAT * parameters, -(-of_optimizer * parameters // ranks)


def norm_bytes(elements: int, groups: int, build: Build, *, owns_input: bool = True) -> int:
    """What an RMS norm over `groups` rows keeps: input and 1/rms, unfused also the normalised rows.

    In float32 an unfused norm keeps the input as it is, in bfloat16 a float32 copy. `owns_input`: the input is kept by
    nothing else.
    """
    scale = FLOAT * groups
    if build.fused_norms:
        return scale + (build.width * elements if owns_input else 0)
    widened = build.width != FLOAT
    return scale + FLOAT * elements + (FLOAT * elements if owns_input or widened else 0)


def layer_bytes(w: Widths, at: Places, build: Build, *, qk_norm: bool) -> int:
    """What one layer keeps for its backward pass."""
    tokens = at.tokens
    rows = tokens // build.tp if build.sharded else tokens
    residual = 2 * norm_bytes(rows * w.hidden, rows, build) + 2 * build.width * rows * w.hidden  # norms, what they give
    qkv = tokens * (w.attention + 2 * w.groups)  # the keys and values that norms and attention keep are views of it
    keys = w.groups * tokens * (at.cp if at.cp > 1 else 1)
    values = keys if at.cp > 1 else 0
    attention = build.width * (qkv + tokens * w.attention + keys + values)  # rotated queries and keys
    attention += build.width * tokens * w.attention * (2 if at.packed and not build.fused_norms else 1)  # its result
    attention += FLOAT * tokens * w.heads  # log-sum-exp, a little more than the heads have
    attention += 4 * build.width * at.length * w.head_dim  # cosines and sines
    if at.cp > 1 and not build.fused_norms:
        attention += (1 + build.width) * at.length * at.length * at.cp  # the mask by place, and as it is added
    if qk_norm:
        of_head = tokens * w.heads
        attention += norm_bytes(tokens * w.attention, of_head, build)
        attention += norm_bytes(tokens * w.groups, 0, build, owns_input=False)
    feed_forward = build.width * 5 * tokens * w.ffn  # gate and up; silu(gate); up again; their product
    return residual + attention + feed_forward


def activation_bytes(layers: int, layer: int, w: Widths, at: Places, build: Build, *, last: bool) -> int:
    """What one micro-batch keeps on a stage, or in a chunk of one: its layers, or with recompute their inputs and one
    layer; the result; at the end of the model the final norm."""
    rows = at.tokens // build.tp if build.sharded else at.tokens
    result = build.width * rows * w.hidden
    final = norm_bytes(rows * w.hidden, rows, build) if last else 0
    if build.recompute:
        return layers * build.width * rows * w.hidden + result + final
    return layers * layer + result + final


def passes_in_flight(layout: Layout, stage: int, micro_batches: int) -> int:
    """How many forward passes of a chunk of a stage wait for their backward pass, at most, in megatron-core's schedule.

    Without interleaving a chunk is all of the stage's layers.
    """
    if layout.vpp == 1:
        return min(layout.pp - stage, micro_batches)
    warmup = 2 * (layout.pp - stage - 1) + (layout.vpp - 1) * micro_batch_group(micro_batches, layout.pp)
    return min(warmup + 1, layout.vpp * micro_batches)


def backward_bytes(layer: int, w: Widths, at: Places, build: Build) -> int:
    """What the backward pass of a layer holds beside what was kept, at most; with recompute, the layer again.

    At the product of gate and up: the gradients of the result (F), of silu(gate) and of up (2 F), less what has been
    let go of (F). Before it, the gradient of the second matrix and of its input. Beside both, the residual's gradient,
    and with sequence parallelism the rows that are gathered: an input and Megatron's buffer, T H each.
    """
    rows = at.tokens // build.tp if build.sharded else at.tokens
    product = 2 * at.tokens * w.ffn
    matrix = at.tokens * w.ffn + w.ffn * w.hidden
    gathered = 2 * at.tokens * w.hidden if build.sharded else 0
    beside = build.width * (max(product, matrix) + rows * w.hidden + gathered)
    return beside + (layer if build.recompute else 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class LossBytes:
    """peak: while the loss is computed; rows: its hidden gradient, until the backward pass has read it; matrix: the
    output weight's gradient, until it is added up."""

    peak: int
    rows: int
    matrix: int


def loss_bytes(w: Widths, at: Places, *, width: int, chunk_rows: int, teachers: int, widened: bool) -> LossBytes:
    """The routed loss: [chunk, v] float32 logits of the student and each teacher, both gradients in float32.

    widened: operands are made float32 first, as on the CPU, where they are not.
    """
    hidden, table = at.predicted * w.hidden, w.vocabulary * w.hidden
    chunk = min(chunk_rows, at.predicted)
    peak = FLOAT * (hidden + table + chunk * w.vocabulary * (1 + teachers) + 3 * chunk * w.hidden)
    peak += width * hidden  # the rows themselves
    if widened and width != FLOAT:
        peak += FLOAT * table * (1 + teachers)
    given = width * hidden, width * table
    if width != FLOAT:  # rounded when the chunks are gone
        peak = max(peak, FLOAT * (hidden + table) + 2 * given[0] + given[1])
    return LossBytes(peak=peak, rows=given[0], matrix=given[1])


def optimizer_step_bytes(parameters: Parameters, *, ranks: int, foreach: bool) -> int:
    """What Adam's update holds: two tensors of the largest parameter, or with `foreach` one of all its parameters."""
    if foreach:
        return FLOAT * -(-parameters.total // ranks)
    return 2 * FLOAT * parameters.largest


def sampling_bytes(w: Widths, layers: int, *, rows: int, context: int, vocabulary: int, width: int, last: bool) -> int:
    """The embedded engine: keys and values of `rows` responses, and on the last stage four [rows, V] in float64."""
    one_layer = 2 * width * rows * context * w.groups
    draw = 4 * 8 * rows * vocabulary if last else 0
    return (layers + 1) * one_layer + draw  # rows that are done are dropped layer by layer
