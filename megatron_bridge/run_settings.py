"""The groups of settings that a run file has for layout, optimizer, evaluation and checkpoints."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from megatron_bridge.model.shape import Layout
from megatron_bridge.rollout.settings import Count, Positive
from trace_dsl.strict_yaml import Strict


class LayoutSettings(Strict):
    """How ranks are split; the job runs on tp x pp x cp x dp processes.

    vpp: chunks of layers of each pipeline stage, which take turns (interleaved pipeline, for less waiting). sp: the tp
    ranks share the places of sequences between matrix products. recompute: layers are computed again in the backward
    pass, for less memory.
    """

    tp: Positive = 1
    pp: Positive = 1
    cp: Positive = 1
    dp: Positive = 1
    vpp: Positive = 1
    sp: bool = False
    recompute: bool = False

    @model_validator(mode="after")
    def _sequence_parallel_over_ranks(self) -> LayoutSettings:
        if self.sp and self.tp == 1:
            raise ValueError("sp splits sequences over the tensor parallel ranks: set tp to 2 or more, or sp to false")
        return self

    @model_validator(mode="after")
    def _chunks_of_stages(self) -> LayoutSettings:
        if self.vpp > 1 and self.pp == 1:
            raise ValueError(f"vpp {self.vpp} interleaves pipeline stages: set pp to 2 or more, or vpp to 1")
        return self

    @property
    def layout(self) -> Layout:
        return Layout(tp=self.tp, pp=self.pp, cp=self.cp, dp=self.dp, sp=self.sp, vpp=self.vpp)


class OptimizerSettings(Strict):
    """AdamW. lr: peak learning rate; warmup: steps of linear rise; decay: what follows, down to min_lr.

    distributed: each data-parallel rank holds a part of the state, for less memory.
    """

    lr: Annotated[float, Field(gt=0)] = 1e-5
    warmup: Count = 0
    decay: Literal["constant", "linear", "cosine"] = "constant"
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    beta1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.999
    eps: Annotated[float, Field(gt=0)] = 1e-8
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    clip_grad: Annotated[float, Field(gt=0)] = 1.0
    distributed: bool = False


class TeacherSettings(Strict):
    """offload: teachers' weights stand in host memory and are on the device only while they read."""

    offload: bool = False


class EvaluationSettings(Strict):
    """problems: held-out problems sampled before and after training (and every `every` steps; 0: not in between), of
    `split`, whose accuracy tells which checkpoint is best, and as many of each split in `also`.
    """

    problems: Positive = 512
    every: Count = 0
    split: str = "eval"
    also: list[str] = Field(default_factory=list)
    seed: Count = 1

    @property
    def splits(self) -> tuple[str, ...]:
        """All that are evaluated, the main one first, each once."""
        return tuple(dict.fromkeys((self.split, *self.also)))


class CheckpointSettings(Strict):
    """every: optimizer steps between checkpoints (0: only at the end); keep: how many are kept; best: also the one with
    the best evaluation, of which one is saved whenever it is better than before; asynchronous: threads write a copy in
    host memory while training goes on.
    """

    every: Count = 50
    keep: Positive = 2
    best: bool = False
    asynchronous: bool = False
