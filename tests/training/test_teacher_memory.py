"""What of a teacher is on the device, and for how long; that where it waits changes no bit of a gradient."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from transformers import AutoTokenizer

from megatron_bridge.device import megatron_runtime, training_device
from megatron_bridge.model.gpt import build_model
from megatron_bridge.model.hf import load_hf
from megatron_bridge.model.shape import Layout, read_shape
from megatron_bridge.parallel import start_parallel
from megatron_bridge.run_settings import OptimizerSettings, TeacherSettings
from megatron_bridge.tasks import get_task
from megatron_bridge.training.forward import hidden_rows
from megatron_bridge.training.host_memory import OffloadedWeights, in_host_memory
from megatron_bridge.training.microbatch import MicroBatch, Share, cut
from megatron_bridge.training.models import make_teacher
from megatron_bridge.training.optimize import accumulate_gradients, make_trainer
from megatron_bridge.training.teacher import TeacherModel, TeacherRows
from tests.distributed import run_distributed
from tests.training.test_packing import rollout
from trace_dsl.errors import OffloadError
from trace_dsl.lowering.fused import DivergenceKernel, FusedRouting, NllKernel
from trace_dsl.model import DivergenceKind, Ema, Place, Sees, SelfTeacher, Teacher

POLICY = Path("specs/demo/policy")
PLACE = Place(line=1, column=1, end_line=1, end_column=2)
TEACHER = Teacher(name="teacher", source=SelfTeacher(update=Ema(0.25)), sees=Sees.NOTHING, place=PLACE)
LENGTHS = (5, 7, 3, 6, 4, 8)


def micro_batches() -> list[MicroBatch]:
    """Three of two responses; at every third token a divergence, nowhere in the responses of 3 and 4 tokens."""
    rollouts = [rollout(n, 2, length) for n, length in enumerate(LENGTHS)]
    row_of_T = torch.arange(len(LENGTHS)).repeat_interleave(torch.tensor(LENGTHS))
    weight_CT = torch.full((2, sum(LENGTHS)), 0.1)
    weight_CT[1, (torch.arange(sum(LENGTHS)) % 3 > 0) | (row_of_T == 2) | (row_of_T == 4)] = 0
    routing = FusedRouting(
        kernels=(NllKernel(), DivergenceKernel(DivergenceKind.RKL, "teacher")),
        weight_CT=weight_CT,
        advantage_CT=torch.zeros_like(weight_CT),
        row_of_T=row_of_T,
    )
    return cut(rollouts, routing, micro_batch=2, part=Share(), device=torch.device("cpu"))


def policy(dtype: torch.dtype = torch.float32) -> torch.nn.ModuleList:
    model = build_model(read_shape(POLICY), Layout(), dtype=dtype)
    load_hf(model, POLICY)
    return model


def moved(model: torch.nn.ModuleList, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


def steps(*, offload: bool, dtype: torch.dtype) -> list[torch.Tensor]:
    """The gradients of two steps, between which the policy moves and the teacher follows it; and its weights then."""
    average = policy() if dtype is torch.bfloat16 else None
    tokenizer = AutoTokenizer.from_pretrained(POLICY)
    teacher = TeacherModel(TEACHER, policy(dtype), get_task("ledger"), tokenizer, average=average, offload=offload)
    student, found = policy(dtype), []
    trainer = make_trainer(student, OptimizerSettings(), 2)
    for step in range(2):
        teacher.before_step(student, step)
        moved(student, step)
        for chunk in trainer.model:
            chunk.zero_grad_buffer()
        accumulate_gradients(trainer.model, micro_batches(), [teacher], Share(), temperature=1.0, vocab_size=128)
        found += [parameter.main_grad.clone() for parameter in student.parameters()]
        teacher.after_step(student)
    return found + [parameter.detach().clone() for m in (teacher.model, teacher.kept) for parameter in m.parameters()]


def runs() -> dict[str, Any]:
    start_parallel(Layout(), seed=0)
    with megatron_runtime():
        compared = {
            f"{dtype} {offload}": steps(offload=offload, dtype=dtype)
            for dtype in (torch.float32, torch.bfloat16)
            for offload in (False, True)
        }
        return compared | watched()


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return run_distributed(runs, 1)[0]


def test_offloading_changes_no_bit(found: dict[str, Any]) -> None:
    """Two steps of a moving average, in bfloat16 with its float32 copy too."""
    for dtype in (torch.float32, torch.bfloat16):
        plain, offloaded = found[f"{dtype} False"], found[f"{dtype} True"]
        assert all(torch.equal(one, other) for one, other in zip(plain, offloaded, strict=True))
        assert any(gradient.any() for gradient in plain)


def references(model: torch.nn.Module) -> list[StorageWeakRef]:
    return [StorageWeakRef(parameter.untyped_storage()) for parameter in model.parameters()]


def watched() -> dict[str, Any]:
    """One pass of an offloaded teacher and one accumulation, with what was alive when."""
    with pytest.MonkeyPatch.context() as patch:
        tokenizer = AutoTokenizer.from_pretrained(POLICY)
        teacher = TeacherModel(TEACHER, policy(), get_task("ledger"), tokenizer, offload=True)
        batches = micro_batches()
        wanted = [batch.routing.teacher_tokens("teacher") for batch in batches]
        waiting = [parameter.data_ptr() for parameter in teacher.model.parameters()]
        inside: list[StorageWeakRef] = []
        hook = teacher.model[0].register_forward_pre_hook(lambda model, _: inside.extend(references(model)))
        rows = teacher.hidden_rows(batches, wanted, Share())
        hook.remove()
        found: dict[str, Any] = {
            "back": waiting == [parameter.data_ptr() for parameter in teacher.model.parameters()],
            "copies": len({ref.cdata for ref in inside})
            and not {ref.cdata for ref in inside} & {ref.cdata for ref in references(teacher.model)},
            "kept_with_rows": len({ref.cdata for ref in inside if not ref.expired()}),
            "rows": [None if one is None else len(one.hidden_rH) for one in rows],
            "wanted": [len(token_t) for token_t in wanted],
        }
        del rows
        found["kept_after"] = sum(not ref.expired() for ref in inside)
        nothing = [torch.zeros(0, dtype=torch.int64)] * len(batches)
        patch.setattr(OffloadedWeights, "there", lambda *_: pytest.fail("brought for nothing"))
        found["unasked"] = teacher.hidden_rows(batches, nothing, Share())
        patch.undo()

        for_loss, brought = TeacherRows.for_loss, []

        def to_device(rows: TeacherRows) -> Any:
            there = for_loss(rows)
            there = replace(there, hidden_RH=there.hidden_RH.clone())  # on a CPU the way to the device copies nothing
            found.setdefault("alive", []).append(sum(not ref.expired() for ref in brought))
            brought.append(StorageWeakRef(there.hidden_RH.untyped_storage()))
            return there

        patch.setattr(TeacherRows, "for_loss", to_device)
        trainer = make_trainer(policy(), OptimizerSettings(), 2)
        accumulate_gradients(trainer.model, batches, [teacher], Share(), temperature=1.0, vocab_size=128)
        found["alive_after"] = sum(not ref.expired() for ref in brought)

        read: list[StorageWeakRef] = []

        def count(_number: int, hidden_tH: torch.Tensor) -> int:
            alive = sum(not ref.expired() for ref in read)
            read.append(StorageWeakRef(hidden_tH.untyped_storage()))
            return alive

        found["alive_in_pass"] = hidden_rows(teacher.model, [batch.sequences for batch in batches], count)
    return found


def test_a_device_holds_the_weights_while_they_read_and_the_rows_of_one_micro_batch(found: dict[str, Any]) -> None:
    assert found["back"]
    assert found["copies"]
    assert found["kept_with_rows"] == 1  # the output weight, which the loss reads
    assert found["kept_after"] == 0
    assert found["rows"] == [None if count == 0 else count for count in found["wanted"]]
    assert found["rows"].count(None) == 1
    assert found["unasked"] == [None] * 3
    assert found["alive"] == [0, 0]
    assert found["alive_after"] == 0
    assert found["alive_in_pass"] == [0, 0, 0]


def test_weights_come_back_when_a_pass_fails() -> None:
    model = torch.nn.Linear(3, 2)
    before, values = [p.data_ptr() for p in model.parameters()], [p.detach().clone() for p in model.parameters()]
    weights = OffloadedWeights(model)

    def fails() -> None:
        with weights.there(torch.device("cpu")):
            assert not set(before) & {p.data_ptr() for p in model.parameters()}
            raise RuntimeError("pass")

    with pytest.raises(RuntimeError, match="pass"):
        fails()
    assert before == [p.data_ptr() for p in model.parameters()]
    assert all(torch.equal(p, value) for p, value in zip(model.parameters(), values, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_host_memory_is_pinned_and_whole() -> None:
    rows = torch.randn(1000, 64, device=training_device())
    waiting = in_host_memory(rows)
    assert waiting.is_pinned()
    assert torch.equal(waiting.to(rows.device, non_blocking=True), rows)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
def test_a_machine_without_a_gpu_has_nothing_to_offload_from() -> None:
    loaded = SimpleNamespace(file=SimpleNamespace(teacher=TeacherSettings(offload=True)))
    with pytest.raises(OffloadError, match=r"^teacher\.offload: there is no CUDA device here.* leave it out$"):
        make_teacher(TEACHER, loaded, get_task("ledger"), None)  # type: ignore[arg-type]
