"""A TRACE step's gradients under every layout equal the float64 ones of a single process, parameter by parameter."""

from __future__ import annotations

import contextlib
import importlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from megatron.core import parallel_state
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

import megatron_bridge.losses.routed_linear as routed_linear
import megatron_bridge.model.hf as hf
from megatron_bridge.fit.memory import passes_in_flight
from megatron_bridge.model.gpt import RoutedGPTModel, build_model
from megatron_bridge.model.hf import load_hf, save_hf
from megatron_bridge.model.hf_mapping import Stage
from megatron_bridge.model.shape import Layout, read_shape
from megatron_bridge.prepare import prepare_run
from megatron_bridge.tasks import get_task
from megatron_bridge.training import optimize
from megatron_bridge.training.collect import Rollout, to_batch
from megatron_bridge.training.forward import hidden_rows
from megatron_bridge.training.microbatch import Share, cut
from megatron_bridge.training.optimize import Trainer, accumulate_gradients, make_trainer
from megatron_bridge.training.signals import measure
from megatron_bridge.training.step_sums import losses_of
from megatron_bridge.training.teacher import TeacherModel
from tests.bridge.ranks import under
from tests.bridge.tiny import make_model
from tests.distributed import run_distributed
from tests.training.objective import Part, reference_gradients, response_logp
from tests.training.test_gradients import RUN, STEP, rollouts_of
from trace_dsl.lowering import FusedRouting, lower
from trace_dsl.terms import Rank, Signal

pytestmark = [pytest.mark.distributed, pytest.mark.layouts]

DEMO = Path("specs/demo/policy")
SIGNALS = frozenset(
    Signal(name=name, rank=Rank.TOKEN, teacher=teacher)
    for name, teacher in (("logp", None), ("teacher_logp", "teacher"))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A layout of four ranks and how it trains."""

    layout: Layout
    recompute: bool = False
    distributed: bool = False
    micro_batch: int = 2
    pack_tokens: int | None = None
    tied: bool = True


CASES = {
    "dp4": Case(layout=Layout(dp=4), micro_batch=4),
    "dp4-micro1": Case(layout=Layout(dp=4), micro_batch=1),
    "dp4-distributed": Case(layout=Layout(dp=4), distributed=True),
    "dp4-recompute": Case(layout=Layout(dp=4), recompute=True),
    "tp4": Case(layout=Layout(tp=4), micro_batch=16),
    "tp2-dp2": Case(layout=Layout(tp=2, dp=2)),
    "tp2-sp-dp2": Case(layout=Layout(tp=2, dp=2, sp=True)),
    "tp4-sp": Case(layout=Layout(tp=4, sp=True)),
    "pp2-dp2": Case(layout=Layout(pp=2, dp=2)),
    "pp4": Case(layout=Layout(pp=4)),
    "pp2-tp2": Case(layout=Layout(tp=2, pp=2), micro_batch=16),
    "pp2-tp2-sp-recompute": Case(layout=Layout(tp=2, pp=2, sp=True), recompute=True),
    "pp2-dp2-distributed": Case(layout=Layout(pp=2, dp=2), distributed=True),
    "cp2-dp2": Case(layout=Layout(cp=2, dp=2)),
    "cp4": Case(layout=Layout(cp=4)),
    "cp2-tp2-sp": Case(layout=Layout(tp=2, cp=2, sp=True)),
    "cp2-pp2": Case(layout=Layout(cp=2, pp=2)),
    "dp4-packed": Case(layout=Layout(dp=4), pack_tokens=300),
    "pp2-tp2-sp-packed": Case(layout=Layout(tp=2, pp=2, sp=True), pack_tokens=300),
    "cp2-dp2-packed": Case(layout=Layout(cp=2, dp=2), pack_tokens=300),
    "cp2-pp2-packed-recompute": Case(layout=Layout(cp=2, pp=2), pack_tokens=300, recompute=True),
    "pp2-vpp2-dp2": Case(layout=Layout(pp=2, dp=2, vpp=2)),
    "pp2-vpp2-tp2-sp": Case(layout=Layout(pp=2, tp=2, vpp=2, sp=True), micro_batch=6),
    "pp2-vpp2-dp2-distributed-recompute": Case(layout=Layout(pp=2, dp=2, vpp=2), distributed=True, recompute=True),
    "pp2-vpp2-cp2-packed": Case(layout=Layout(pp=2, cp=2, vpp=2), pack_tokens=4000),
    "cp2-dp2-distributed-recompute": Case(layout=Layout(cp=2, dp=2), distributed=True, recompute=True),
    "tp4-untied": Case(layout=Layout(tp=4), micro_batch=16, tied=False),
    "pp2-tp2-sp-untied": Case(layout=Layout(tp=2, pp=2, sp=True), tied=False),
    "pp2-vpp2-dp2-distributed-untied": Case(layout=Layout(pp=2, dp=2, vpp=2), distributed=True, tied=False),
}


def _gather_shards(trainer: Trainer) -> None:
    """Under the distributed optimizer each rank has its part of the reduced gradients: bring them together."""
    for group in (group for chunk in trainer.model for group in chunk.bucket_groups):
        for bucket in group.buckets:
            ranks = group.intra_distributed_optimizer_instance_group
            mine = bucket.grad_data.chunk(ranks.size())[ranks.rank()].clone()
            dist.all_gather_into_tensor(bucket.grad_data, mine, group=ranks)


def _broken(policy: str, rollouts: list[Rollout], folder: str) -> None:
    """Layouts in which one collective is missing, without data-parallel ranks whose sum could be missed as well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routed_linear, "_reduced", lambda gradient_TH, *_: gradient_TH)
        _one(policy, rollouts, CASES["tp4"], f"{folder}/broken-tp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimize, "finalize_model_grads", lambda *_args, **_kwargs: None)
        _one(policy, rollouts, CASES["cp4"], f"{folder}/broken-cp")
    with pytest.MonkeyPatch.context() as patch:
        module = importlib.import_module("megatron.core.distributed.finalize_model_grads")  # hidden by a function
        patch.setattr(module, "_allreduce_word_embedding_grads", lambda *_args, **_kwargs: None)
        _one(policy, rollouts, CASES["pp4"], f"{folder}/broken-pp")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hf, "chunk_stage", _in_a_row)
        _one(policy, rollouts, CASES["pp2-vpp2-dp2"], f"{folder}/broken-chunks")


def _in_a_row(chunk: RoutedGPTModel) -> Stage:
    """Layers as if a stage's chunks followed one another: from a directory and back nothing of it is seen."""
    first = 2 * parallel_state.get_pipeline_model_parallel_rank() + chunk.vp_stage
    return Stage(layers=range(first, first + 1), first=chunk.pre_process, last=chunk.post_process)


def _one(policy: str, rollouts: list[Rollout], case: Case, target: str) -> dict:
    """The loss and the measured signals; gradients are written as a Hugging Face directory."""
    run, plan, _ = prepare_run(RUN)
    shape, layout = read_shape(policy), case.layout
    with under(layout):

        def fresh():
            model = build_model(shape, layout, recompute=case.recompute)
            load_hf(model, policy)
            return model

        tokenizer = AutoTokenizer.from_pretrained(policy)
        teacher = TeacherModel(plan.teachers[0].teacher, fresh(), get_task("ledger"), tokenizer)
        part = Share(
            dp_rank=parallel_state.get_data_parallel_rank(),
            dp=layout.dp,
            cp_rank=parallel_state.get_context_parallel_rank(),
            cp=layout.cp,
            multiple=layout.sequence_multiple,
            pack_tokens=case.pack_tokens,
            fewest=layout.fewest_micro_batches,
        )
        settings = run.file.optim.model_copy(update={"distributed": case.distributed})
        trainer = make_trainer(fresh(), settings, 60)

        def batches(routing):
            return cut(rollouts, routing, micro_batch=case.micro_batch, part=part, device=torch.device("cpu"))

        kwargs = {"temperature": 1.0, "vocab_size": shape.vocab_size}
        tokens = sum(len(r.token_ids) for r in rollouts)
        empty = batches(FusedRouting.empty(tokens))
        signals = measure(SIGNALS, trainer.model, [teacher], empty, part, tokens=tokens, **kwargs)
        rows = hidden_rows(trainer.model, [batch.sequences for batch in empty])
        alone = hidden_rows(trainer.model, [empty[0].sequences])
        routing = lower(plan, to_batch(rollouts), STEP).routing
        for chunk in trainer.model:
            chunk.zero_grad_buffer()
        micro_batches = batches(routing)
        with _passes_in_flight() as most:
            sums = accumulate_gradients(trainer.model, micro_batches, [teacher], part, **kwargs).sums
        stage = parallel_state.get_pipeline_model_parallel_rank()
        if case.distributed:
            _gather_shards(trainer)
        with torch.no_grad():
            for parameter in trainer.model.parameters():
                parameter.copy_(parameter.main_grad)
        save_hf(trainer.model, shape, policy, target)
        return {
            "loss": float(sums["loss_C"].sum()),
            "losses": losses_of(sums),
            "signals": {signal.name: value for signal, value in signals},
            "alone": len(alone) == len(rows[:1]) and all(map(torch.equal, alone, rows)),
            "in flight": (max(most), passes_in_flight(layout, stage, len(micro_batches))),
        }


@contextlib.contextmanager
def _passes_in_flight() -> Iterator[list[int]]:
    """Counts of forward passes whose backward pass has not begun, one after each forward pass."""
    now, seen, forward = 0, [], optimize.hidden_states

    def counted(*args) -> torch.Tensor:
        nonlocal now
        hidden = forward(*args)
        now += 1
        seen.append(now)
        hidden.register_hook(begun)
        return hidden

    def begun(_gradient: torch.Tensor) -> None:
        nonlocal now
        now -= 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimize, "hidden_states", counted)
        yield seen


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A policy, the rollouts of its step, and what that gives in float64: loss, gradients, every loss alone."""

    policy: Path
    rollouts: list[Rollout]
    loss: float
    gradients: dict[str, torch.Tensor]
    parts: dict[str, Part]


def _all(given: dict[bool, tuple[str, list[Rollout]]], folder: str) -> dict[str, dict]:
    found = {name: _one(*given[case.tied], case, f"{folder}/{name}") for name, case in CASES.items()}
    _broken(*given[True], folder)
    return found


@pytest.fixture(scope="module")
def worlds(tmp_path_factory) -> dict[bool, World]:
    """With tied embeddings, and with an output layer of its own: random models with four layers and four key/value
    heads, which read the demo's tokens."""
    drawn, task = run_distributed(rollouts_of, 1, DEMO)[0], get_task("ledger")
    found = {}
    for tied in (True, False):
        policy = tmp_path_factory.mktemp("policy")
        make_model(policy, tied=tied, vocab=128, layers=4, kv_heads=4, sharp=1.0)
        for path in DEMO.glob("tokenizer*"):
            shutil.copy(path, policy)
        rollouts = _near(policy, drawn)
        loss, *rest = reference_gradients(policy, rollouts, task, AutoTokenizer.from_pretrained(policy), STEP)
        found[tied] = World(policy=policy, rollouts=rollouts, loss=loss, gradients=rest[0], parts=rest[1])
    return found


def _near(policy: Path, drawn: list[Rollout]) -> list[Rollout]:
    """Responses of the demo policy, with log-probs near those of the random one."""
    model = AutoModelForCausalLM.from_pretrained(policy, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    found = []
    for rollout in drawn:
        if rollout.token_ids:
            with torch.no_grad():
                logp_tv = response_logp(model, rollout.prompt_ids, rollout.token_ids)
            logp_t = logp_tv.gather(1, torch.tensor(rollout.token_ids)[:, None])[:, 0]
            noise_t = 0.3 * torch.randn(len(logp_t), generator=generator)
            rollout = replace(rollout, logprobs=tuple((logp_t + noise_t).tolist()))
        found.append(rollout)
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("gradients")


@pytest.fixture(scope="module")
def found(worlds, folder) -> list[dict[str, dict]]:
    given = {tied: (str(world.policy), world.rollouts) for tied, world in worlds.items()}
    return run_distributed(_all, 4, given, str(folder))


def _worst(directory: Path, expected: dict[str, torch.Tensor]) -> tuple[float, str]:
    """The largest error of a gradient relative to the largest gradient, and whose it is."""
    scale = max(float(gradient.abs().max()) for gradient in expected.values())
    got = load_file(directory / "model.safetensors")
    assert got.keys() == expected.keys()
    errors = {key: float((got[key].double() - gradient).abs().max()) / scale for key, gradient in expected.items()}
    worst = max(errors, key=errors.__getitem__)
    return errors[worst], worst


@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_the_float64_reference(found, worlds, folder, name) -> None:
    world = worlds[CASES[name].tied]
    error, worst = _worst(folder / name, world.gradients)
    print(f"{name}: worst {error:.2e} at {worst}")
    assert error < 1e-5, f"{worst}: {error:.2e} of the largest gradient"
    for rank in found:
        assert abs(rank[name]["loss"] - world.loss) < 1e-6
        for got, expected in zip(rank[name]["losses"], world.parts.values(), strict=True):
            assert got.loss == pytest.approx(expected.loss, rel=1e-4, abs=1e-7)
            assert got.gradient == pytest.approx(expected.gradient, rel=1e-4)
            assert got.clipped == expected.clipped


@pytest.mark.parametrize("name", CASES)
def test_as_many_passes_wait_for_their_backward_pass_as_the_estimate_says(found, name) -> None:
    for rank in found:
        counted, estimated = rank[name]["in flight"]
        assert counted == estimated


@pytest.mark.parametrize("name", ["broken-tp", "broken-cp", "broken-pp", "broken-chunks"])
def test_a_missing_reduction_or_a_wrong_order_is_seen(found, worlds, folder, name) -> None:
    assert _worst(folder / name, worlds[True].gradients)[0] > 1e-2


@pytest.mark.parametrize("name", CASES)
def test_one_batch_alone_goes_through_every_pipeline(found, name) -> None:
    assert all(rank[name]["alone"] for rank in found)


@pytest.mark.parametrize("name", CASES)
def test_measured_signals_are_the_same_everywhere(found, name) -> None:
    first = next(other for other, case in CASES.items() if case.tied == CASES[name].tied)
    for rank in found:
        for signal, value_T in found[0][first]["signals"].items():
            torch.testing.assert_close(rank[name]["signals"][signal], value_T, rtol=1e-5, atol=1e-5, equal_nan=True)
