"""Checkpoints resume bit for bit, and a failed one leaves the last good one in force on every rank."""

import errno
import json
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from megatron.core.distributed import (
    DistributedDataParallel,
    DistributedDataParallelConfig,
    finalize_model_grads,
)
from megatron.core.optimizer import OptimizerConfig, get_megatron_optimizer
from megatron.core.optimizer_param_scheduler import OptimizerParamScheduler
from megatron.core.pipeline_parallel import get_forward_backward_func
from safetensors.torch import load_file

import megatron_bridge.checkpoint as checkpoint
import megatron_bridge.checkpoint_writer as checkpoint_writer
from megatron_bridge.checkpoint import PendingCheckpoint, load_checkpoint
from megatron_bridge.checkpoint_files import (
    checkpoint_name,
    checkpoints,
    latest_checkpoint,
    read_meta,
)
from megatron_bridge.model.gpt import build_model
from megatron_bridge.model.hf import save_hf
from megatron_bridge.model.shape import Layout, read_shape
from megatron_bridge.verdict import CheckpointError
from tests.bridge.ranks import PP2, TP1, TP2, VPP2, under
from tests.bridge.tiny import VOCAB, make_model, positions, some_ids
from tests.distributed import run_distributed

pytestmark = pytest.mark.distributed

EXTRA = {"seen": [1, 2, 3], "baseline": 0.1, "teacher": torch.arange(5)}
META = {"plan": "1f3a"}
KINDS = {"tp2": (TP2, False), "pp2": (PP2, False), "dp2": (TP1, True), "vpp2": (VPP2, False), "vpp2-dist": (VPP2, True)}
# whose checkpoint is loaded under which layout
ELSEWHERE = {
    "as tp2": ("tp2", TP2),
    "as pp2": ("tp2", PP2),
    "as tp1": ("tp2", TP1),
    "as vpp2": ("tp2", VPP2),
    "vpp2 as vpp2": ("vpp2", VPP2),
    "vpp2 as tp1": ("vpp2", TP1),
}


class _Run:
    """A model in training, and the trained one of another seed beside it."""

    def __init__(self, directory: str, layout: Layout, *, distributed: bool = False) -> None:
        model = build_model(read_shape(directory), layout)
        config = DistributedDataParallelConfig(grad_reduce_in_fp32=True, use_distributed_optimizer=distributed)
        self.model = torch.nn.ModuleList(DistributedDataParallel(model[0].config, config, chunk) for chunk in model)
        for chunk in self.model:
            chunk.broadcast_params()
        model[0].config.finalize_model_grads_func = finalize_model_grads
        self.teacher = build_model(read_shape(directory), layout)
        self.optimizer = get_megatron_optimizer(
            OptimizerConfig(
                optimizer="adam",
                lr=1e-3,
                min_lr=1e-4,
                weight_decay=0.1,
                clip_grad=1.0,
                use_distributed_optimizer=distributed,
            ),
            list(self.model),
        )
        self.scheduler = OptimizerParamScheduler(
            self.optimizer,
            init_lr=0.0,
            max_lr=1e-3,
            min_lr=1e-4,
            lr_warmup_steps=2,
            lr_decay_steps=20,
            lr_decay_style="cosine",
            start_wd=0.1,
            end_wd=0.1,
            wd_incr_steps=20,
            wd_incr_style="constant",
        )

    def step(self, number: int) -> None:
        ids = some_ids(2, 17, seed=number)
        for chunk in self.model:
            chunk.zero_grad_buffer()
        self.optimizer.zero_grad()

        def forward_step(_iterator, module):
            def loss(loss_bs):
                return loss_bs.sum(), torch.tensor(loss_bs.numel(), dtype=torch.int), {}

            inputs = ids[:, :-1]
            return module(inputs, positions(inputs), None, labels=ids[:, 1:].contiguous()), loss

        get_forward_backward_func()(
            forward_step_func=forward_step,
            data_iterator=[None for _ in self.model],
            model=list(self.model),
            num_microbatches=2,
            seq_length=16,
            micro_batch_size=2,
        )
        self.optimizer.step()
        self.scheduler.step(increment=1)

    def begin(self, directory: str, step: int, *, background: bool = False) -> PendingCheckpoint:
        return PendingCheckpoint(
            directory,
            step=step,
            models={"policy": self.model, "teacher": self.teacher},
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            extra=EXTRA,
            meta=META,
            keep_last=2,
            background=background,
        )

    def save(self, directory: str, step: int) -> Path:
        return self.begin(directory, step).finish()

    def load(self, path: str | Path) -> checkpoint.Restored:
        return load_checkpoint(
            path,
            models={"policy": self.model, "teacher": self.teacher},
            optimizer=self.optimizer,
            scheduler=self.scheduler,
        )

    def state(self) -> dict:
        """Everything that a further step depends on, on this rank."""
        state = {f"policy {name}": value for name, value in self.model.named_parameters()}
        state |= {f"teacher {name}": value for name, value in self.teacher.named_parameters()}
        for part in self.optimizer.chained_optimizers:
            for number, parameter in enumerate(p for g in part.optimizer.param_groups for p in g["params"]):
                for key, value in part.optimizer.state[parameter].items():
                    state[f"{key} {number}"] = value
        state |= {f"scheduler {key}": value for key, value in self.scheduler.state_dict().items()}
        state |= {f"lr {number}": group["lr"] for number, group in enumerate(self.optimizer.param_groups)}
        return {key: v.detach().clone() if torch.is_tensor(v) else v for key, v in state.items()}


def _differences(one: dict, other: dict) -> list[str]:
    assert one.keys() == other.keys()
    return [
        key
        for key, value in one.items()
        if not (torch.equal(value, other[key]) if torch.is_tensor(value) else value == other[key])
    ]


def _resume(source: str, directory: str, layout: Layout, *, distributed: bool) -> dict:
    with under(layout, seed=1):
        run = _Run(source, layout, distributed=distributed)
        run.step(0)
        run.step(1)
        torch.manual_seed(100 + dist.get_rank())
        path = run.save(directory, 2)
        at_save, drawn = run.state(), torch.rand(2)
        run.step(2)
        run.step(3)
        straight = run.state()
    with under(layout, seed=2):
        again = _Run(source, layout, distributed=distributed)
        before = again.state()
        restored = again.load(path)
        drawn_again = torch.rand(2)
        loaded_state = again.state()
        again.step(2)
        again.step(3)
        return {
            "fresh": [key for key in before if torch.is_tensor(before[key]) and before[key].dim() > 1],
            "fresh_differs": _differences(before, {k: at_save[k] for k in before}),
            "loaded": _differences(at_save, loaded_state),
            "stepped": _differences(straight, again.state()),
            "steps": {float(value) for key, value in again.state().items() if key.startswith("step ")},
            "random": torch.equal(drawn, drawn_again),
            "restored": restored,
        }


def _everything(source: str, root: str, small: str | None) -> dict:
    found = {}
    for name, (layout, distributed) in KINDS.items():
        found[name] = _resume(source, f"{root}/{name}", layout, distributed=distributed)
    for name, (saved, layout) in ELSEWHERE.items():
        with under(layout, seed=3):
            run = _Run(source, layout)
            run.load(f"{root}/{saved}/{checkpoint_name(2)}")
            save_hf(run.model, read_shape(source), source, f"{root}/{name}")
            run.step(2)
            save_hf(run.model, read_shape(source), source, f"{root}/{name} stepped")
    for name, layout in (("dp2", TP1), ("vpp2", VPP2)):
        found["other optimizer", name] = _there_and_back(source, root, layout, name)
    with under(TP1):
        run = _Run(source, TP1, distributed=True)
        shutil.copytree(f"{root}/tp2", f"{root}/fused") if dist.get_rank() == 0 else None
        dist.barrier()
        path = Path(f"{root}/fused/{checkpoint_name(2)}")
        if dist.get_rank() == 0:
            (path / "meta.json").write_text((path / "meta.json").read_text().replace("FP32Optimizer", "FusedOptimizer"))
        dist.barrier()
        found["unknown optimizer"] = _message(run.load, path)
    with under(TP2):
        run = _Run(source, TP2)
        run.step(0)
        for step in (3, 1, 10, 7):  # 3 and 1: a run that was taken up again from an earlier step
            run.save(f"{root}/kept", step)
        found |= _failures(run, f"{root}/failing")
        found["background"] = _in_background(run, source, f"{root}/background")
        if small is not None:
            found["small"] = _fill(run, small)
        with pytest.raises(ValueError, match=r"step 0, keep_last 2: both are at least 1"):
            run.save(f"{root}/none", 0)
        found["missing"] = _message(run.load, f"{root}/none/step_000002")
        if dist.get_rank() == 0:
            shutil.copytree(f"{root}/kept/step_000010", f"{root}/broken/step_000010")
            (Path(root) / "broken/step_000010/__1_0.distcp").write_bytes(b"torn")
        dist.barrier()
        found["broken"] = _message(run.load, f"{root}/broken/step_000010")
    return found


def _there_and_back(source: str, root: str, layout: Layout, name: str) -> list[str]:
    """What differs on pp2 when the state of tp2 comes by way of a distributed optimizer under `layout`. (Under tp1 and
    pp2 the vocabulary has the same padding.)
    """
    with under(PP2):
        run = _Run(source, PP2)
        run.load(f"{root}/tp2/{checkpoint_name(2)}")
        before = run.state()
    with under(layout):
        other = _Run(source, layout, distributed=True)
        other.load(f"{root}/tp2/{checkpoint_name(2)}")
        path = other.save(f"{root}/distributed {name}", 2)
        save_hf(other.model, read_shape(source), source, f"{root}/as distributed {name}")
        other.step(2)  # it can be trained on
    with under(PP2):
        back = _Run(source, PP2)
        back.load(path)
        return _differences(before, back.state())


def _message(function, *args) -> str:
    with pytest.raises(CheckpointError) as caught:
        function(*args)
    return str(caught.value)


def _full(*_args, **_kwargs):
    raise OSError(errno.ENOSPC, "No space left on device")


def _failures(run: _Run, directory: str) -> dict:
    """Saves that fail at one point, each on one rank only: what both ranks see, and what is left."""
    found = {"first failure": _failing(run, directory, checkpoint, "save_config", 0, 1)}
    run.save(directory, 2)
    for name, (owner, attribute, rank) in {
        "common": (checkpoint.TorchCommonSaveStrategy, "save_common", 0),
        "shards": (checkpoint_writer.torch_checkpoint.FileSystemWriter, "write_data", 1),
        "metadata": (checkpoint_writer.torch_checkpoint.FileSystemWriter, "finish", 0),
        "rename": (checkpoint, "replace_directory", 0),
        "pointer": (checkpoint, "write_text", 0),
    }.items():
        found[name] = _failing(run, directory, owner, attribute, rank, 3)
        latest = latest_checkpoint(directory)
        dist.barrier()
        found[f"left by {name}"] = (latest.name, sorted(path.name for path in Path(directory).glob("*.partial")))
    return found


def _failing(run: _Run, directory: str, owner, attribute: str, rank: int, step: int) -> str:
    with pytest.MonkeyPatch.context() as patch:
        if dist.get_rank() == rank:
            patch.setattr(owner, attribute, _full)
        return _message(run.save, directory, step)


def _in_background(run: _Run, source: str, directory: str) -> dict:
    """A checkpoint that is written while a step is taken, and one that rank 1 cannot write."""
    run.save(directory, 1)
    writer, go_on = checkpoint_writer.torch_checkpoint.FileSystemWriter, threading.Event()
    write, at_begin = writer.write_data, run.state()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "write_data", lambda *args: go_on.wait() and write(*args))
        pending = run.begin(directory, 2, background=True)
        run.step(5)
        found = {"moved": _differences(at_begin, run.state()), "written": pending.written()}
        found["before"] = (latest_checkpoint(directory).name, sorted(p.name for p in Path(directory).iterdir()))
        dist.barrier()
        go_on.set()
        path = pending.finish()
    again = _Run(source, TP2)
    again.load(path)
    found["loaded"] = _differences(at_begin, again.state())
    with pytest.MonkeyPatch.context() as patch:
        if dist.get_rank() == 1:
            patch.setattr(writer, "write_data", _full)
        failing = run.begin(directory, 3, background=True)
        found["message"] = _message(failing.finish)
    found["left"] = (latest_checkpoint(directory).name, sorted(p.name for p in Path(directory).iterdir()))
    return found


def _fill(run: _Run, directory: str) -> dict:
    """Save into a file system that holds one checkpoint, not two."""
    run.save(directory, 1)
    message = _message(run.save, directory, 2)
    latest = latest_checkpoint(directory)
    left = sorted(path.name for path in Path(directory).iterdir())
    dist.barrier()
    run.load(latest)
    return {"message": message, "left": left, "latest": latest.name}


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> str:
    return make_model(tmp_path_factory.mktemp("source"), tied=True, layers=4)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("checkpoints")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A real file system of 3 MB, or None where this user may not mount one."""
    folder = tmp_path_factory.mktemp("small")
    mount = shutil.which("mount")
    command = [mount, "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(folder)]
    if mount is None or subprocess.run(command, capture_output=True).returncode:
        yield None
        return
    yield str(folder)
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="module")
def found(source, root, small) -> list[dict]:
    return run_distributed(_everything, 2, source, str(root), small)


@pytest.mark.parametrize("name", KINDS)
def test_resume_is_bit_exact(found, name):
    for rank in found:
        result = rank[name]
        assert set(result["fresh"]) <= set(result["fresh_differs"])  # there was something to restore
        assert result["loaded"] == []
        assert result["stepped"] == []
        assert result["steps"] == {4.0}
        assert result["random"]


@pytest.mark.parametrize("name", KINDS)
def test_extra_and_meta_come_back(found, name):
    restored = found[1][name]["restored"]
    assert restored.step == 2
    assert restored.meta["plan"] == "1f3a"
    assert torch.equal(restored.extra.pop("teacher"), EXTRA["teacher"])
    assert restored.extra == {"seen": [1, 2, 3], "baseline": 0.1}


@pytest.mark.parametrize(
    "one, others",
    [
        ("as tp1", ("as tp2", "as pp2", "as vpp2", "as distributed dp2", "as distributed vpp2")),
        ("vpp2 as tp1", ("vpp2 as vpp2",)),
    ],
)
def test_another_layout_loads_the_same_weights(found, root, one, others):
    weights = load_file(root / one / "model.safetensors")
    assert weights["model.embed_tokens.weight"].shape[0] == VOCAB
    for name in others:
        other = load_file(root / name / "model.safetensors")
        assert weights.keys() == other.keys()
        assert all(torch.equal(weights[key], other[key]) for key in other)


@pytest.mark.parametrize("one, other", [("as tp1", "as pp2"), ("as tp1", "as vpp2"), ("vpp2 as tp1", "vpp2 as vpp2")])
def test_another_layout_goes_on_with_the_same_moments(found, root, one, other):
    """A step moves each weight by up to 1e-3; without the moments of two steps it would move otherwise."""
    before, first, second = (
        load_file(root / name / "model.safetensors") for name in (one, f"{one} stepped", f"{other} stepped")
    )
    for key, weight in before.items():
        assert (first[key] - weight).abs().max() > 1e-4
        assert (first[key] - second[key]).abs().max() < 1e-6, key


@pytest.mark.parametrize("name", ["dp2", "vpp2"])
def test_state_goes_into_a_distributed_optimizer_and_back_bit_for_bit(found, name):
    for rank in found:
        assert rank["other optimizer", name] == []


def test_meta_is_plain_json(found, root):
    path = root / "pp2" / checkpoint_name(2)
    meta = json.loads((path / "meta.json").read_text())
    assert meta == read_meta(path)
    assert meta["step"] == 2
    assert meta["layout"] == {"tp": 1, "pp": 2, "vpp": 1, "cp": 1, "dp": 1, "world": 2}
    assert meta["versions"]["megatron-core"].startswith("0.")


def test_the_newest_are_kept(found, root):
    assert [path.name for path in checkpoints(root / "kept")] == ["step_000007", "step_000010"]
    assert latest_checkpoint(root / "kept").name == "step_000007"


_POINTS = ["common", "shards", "metadata", "rename", "pointer"]


@pytest.mark.parametrize("point", _POINTS)
def test_a_failed_save_is_the_same_error_on_every_rank(found, root, point):
    rank = 1 if point == "shards" else 0
    wanted = (
        f"cannot save {root}/failing/step_000003: OSError: [Errno 28] No space left on device (rank {rank}); "
        f"the last good checkpoint is {root}/failing/step_000002"
    )
    assert [result[point] for result in found] == [wanted, wanted]


@pytest.mark.parametrize("point", _POINTS)
def test_a_failed_save_leaves_the_last_good_one(found, point):
    assert found[0][f"left by {point}"] == ("step_000002", [])


def test_training_goes_on_while_a_checkpoint_is_written(found):
    """It is the state at its beginning, and nothing before it is whole."""
    for rank in found:
        result = rank["background"]
        assert result["moved"]
        assert result["loaded"] == []
        assert not result["written"]
        assert result["before"] == ("step_000001", ["latest", "step_000001", "step_000002.partial"])


def test_a_failure_in_the_background_is_the_same_error_on_every_rank(found, root):
    for rank in found:
        assert rank["background"]["message"] == (
            f"cannot save {root}/background/step_000003: OSError: [Errno 28] No space left on device (rank 1); "
            f"the last good checkpoint is {root}/background/step_000002"
        )
        assert rank["background"]["left"] == ("step_000002", ["latest", "step_000001", "step_000002"])


def test_the_first_save_fails_without_an_earlier_one(found):
    assert found[1]["first failure"].endswith("(rank 0); there is no earlier checkpoint")


def test_a_file_system_that_is_really_full(found, small):
    if small is None:
        pytest.skip("this user may not mount a small file system")
    for rank in found:
        assert rank["small"]["message"].startswith(f"cannot save {small}/step_000002: ")
        assert f"the last good checkpoint is {small}/step_000001" in rank["small"]["message"]
        assert rank["small"]["left"] == ["latest", "step_000001"]
        assert rank["small"]["latest"] == "step_000001"


def test_what_cannot_be_loaded_is_named(found, root):
    assert found[0]["missing"].startswith(f"no checkpoint at {root}/none/step_000002: it has no meta.json")
    assert found[0]["unknown optimizer"].endswith(
        "it holds the state of a FusedOptimizer, this run has a DistributedOptimizer; "
        "train on in the precision of the run that saved it"
    )
    assert found[0]["broken"].startswith(f"cannot load {root}/broken/step_000010: ")
