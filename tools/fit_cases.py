"""The runs that `bench_fit.py` measures: layouts, precisions, teachers and packing on a model that is large enough."""

from __future__ import annotations

from dataclasses import dataclass, replace

from megatron_bridge.fit.estimate import batch_of
from megatron_bridge.fit.teachers import TeacherLoad
from megatron_bridge.model.shape import ModelShape
from megatron_bridge.rollout.settings import RolloutSettings
from megatron_bridge.run_file import CheckpointSettings, LayoutSettings, OptimizerSettings, RunFile

PROMPT = 64  # tokens
SHAPE = ModelShape(
    model_type="qwen3",
    vocab_size=16384,
    hidden_size=768,
    ffn_size=2304,
    layers=4,
    heads=12,
    kv_heads=4,
    head_dim=64,
    max_position=1024,
    rope_base=1e6,
    norm_eps=1e-6,
    tied=True,
)
TINY = replace(SHAPE, hidden_size=64, ffn_size=64, vocab_size=256, heads=4, head_dim=16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Settings of one run, and its model. taught: the share of response tokens that a frozen teacher teaches; saved: a
    checkpoint is written."""

    file: RunFile
    shape: ModelShape = SHAPE
    taught: float = 0.0
    saved: bool = False

    @property
    def teachers(self) -> tuple[TeacherLoad, ...]:
        """As `fit` counts them."""
        return (
            (TeacherLoad(name="teacher", what="frozen", shape=self.shape, average=False, share=self.taught),)
            if self.taught
            else ()
        )


def _file(layout: LayoutSettings, *, micro_batch: int = 2, micro_batches: int = 2, **settings: object) -> RunFile:
    return RunFile(
        name="fit",
        spec="-",
        policy="-",
        task="ledger",
        steps=2,
        micro_batch=micro_batch,
        rollout=RolloutSettings(
            prompts=micro_batch * micro_batches * layout.dp // 2, group_size=2, max_response_tokens=512 - PROMPT
        ),
        layout=layout,
        **settings,  # type: ignore[arg-type]
    )


CASES = {
    "tp1": Case(file=_file(LayoutSettings())),
    "tp2": Case(file=_file(LayoutSettings(tp=2))),
    "pp2": Case(file=_file(LayoutSettings(pp=2), micro_batches=4)),
    "pp2-vpp2": Case(file=_file(LayoutSettings(pp=2, vpp=2), micro_batches=4)),
    "dp2-distributed": Case(file=_file(LayoutSettings(dp=2), optim=OptimizerSettings(distributed=True))),
    "dp2-distributed-saved": Case(
        file=_file(LayoutSettings(dp=2), optim=OptimizerSettings(distributed=True)), saved=True
    ),
    "tp1-saved-meanwhile": Case(
        file=_file(LayoutSettings(), checkpoint=CheckpointSettings(asynchronous=True)), saved=True
    ),
    "tp2-sp-untied": Case(file=_file(LayoutSettings(tp=2, sp=True)), shape=replace(SHAPE, tied=False)),
    "cp2-recompute": Case(file=_file(LayoutSettings(cp=2, recompute=True), micro_batch=4)),
    "tp1-bf16": Case(file=_file(LayoutSettings(), precision="bf16")),
    "tp2-teacher": Case(file=_file(LayoutSettings(tp=2), micro_batches=4), taught=0.25),
    "tp1-packed": Case(file=_file(LayoutSettings(), micro_batches=3, pack_tokens=1536)),
    "tp1-long": Case(file=_file(LayoutSettings(), micro_batch=8)),
}


def settings_of(case: Case) -> str:
    file, layout = case.file, case.file.layout
    sizes = ("tp", "pp", "vpp", "cp", "dp")
    named = [f"{name} {size}" for name, size in layout.model_dump().items() if size > 1 and name in sizes]
    named += [name for name in ("sp", "recompute") if getattr(layout, name)]
    batch = batch_of(file, case.shape, PROMPT)
    return ", ".join(
        [
            *(named or ["one rank"]),
            file.precision,
            *(["distributed optimizer"] if file.optim.distributed else []),
            "tied embeddings" if case.shape.tied else "an output layer of its own",
            f"{batch.micro_batches} micro-batches of {batch.tokens // batch.length} sequences",
            *(["packed"] if batch.packed else []),
            *([f"a frozen teacher at {case.taught:.0%} of the response tokens"] if case.taught else []),
            *(["a checkpoint", *(["written meanwhile"] if file.checkpoint.asynchronous else [])] if case.saved else []),
        ]
    )
