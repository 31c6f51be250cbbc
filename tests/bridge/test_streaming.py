"""Weights are read and written piece by piece: never is the whole model in memory a second time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.multiprocessing.reductions import StorageWeakRef

import megatron_bridge.model.hf as hf
from megatron_bridge.model.gpt import build_model
from megatron_bridge.model.hf import load_hf, save_hf
from megatron_bridge.model.shape import Layout, read_shape
from tests.bridge.ranks import under
from tests.bridge.tiny import make_model
from tests.distributed import run_distributed

pytestmark = pytest.mark.distributed
LAYERS, FILE_BYTES = 8, 200_000


class Held:
    """The bytes of watched tensors that are in memory, and the most there ever were."""

    def __init__(self) -> None:
        self._watched: list[tuple[StorageWeakRef, int]] = []
        self.most = 0

    def watch(self, tensor: torch.Tensor) -> torch.Tensor:
        self._watched = [(one, size) for one, size in self._watched if not one.expired()]
        self._watched.append((StorageWeakRef(tensor.untyped_storage()), tensor.untyped_storage().nbytes()))
        self.most = max(self.most, sum(size for _, size in self._watched))
        return tensor


class WatchedFile:
    """A safetensors file whose tensors are watched."""

    def __init__(self, held: Held, path: Path) -> None:
        self._held, self._path = held, path

    def __enter__(self) -> WatchedFile:
        self._file: Any = safe_open(self._path, framework="pt").__enter__()
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.__exit__(*raised)

    def keys(self) -> list[str]:
        return list(self._file.keys())

    def get_tensor(self, name: str) -> torch.Tensor:
        return self._held.watch(self._file.get_tensor(name).clone())


def read_and_write(source: str, target: str) -> dict[str, int]:
    """On each of two tensor-parallel ranks, the most bytes held while reading and while writing, and how many files."""
    reading, writing, files = Held(), Held(), []
    gather = hf._gather
    hf.safe_open = lambda path, framework: WatchedFile(reading, path)
    hf._gather = lambda *args: tuple(map(writing.watch, gather(*args)))
    hf.save_file = lambda part, path, metadata: files.append(save_file(part, path, metadata=metadata))
    layout = Layout(tp=2)
    with under(layout):
        model = build_model(read_shape(source), layout)
        load_hf(model, source)
        save_hf(model, read_shape(source), source, target, file_bytes=FILE_BYTES)
    return {"reading": reading.most, "writing": writing.most, "files": len(files)}


def test_a_model_is_never_twice_in_memory(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    make_model(source, tied=False, layers=LAYERS)
    sizes = [tensor.nbytes for tensor in load_file(source / "model.safetensors").values()]
    whole, largest = sum(sizes), max(sizes)
    first, second = run_distributed(read_and_write, 2, str(source), str(target))
    assert whole > 5 * FILE_BYTES  # enough that a file is a small part of it
    assert first["files"] > 5
    for rank in (first, second):
        assert 0 < rank["reading"] <= 4 * largest  # what makes up one parameter, and the last one's
    assert 0 < first["writing"] <= FILE_BYTES + 4 * largest
    assert second["writing"] <= 4 * largest  # it gathers, and keeps nothing
