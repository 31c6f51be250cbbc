"""Load a Hugging Face model directory into the ranks of a model, and save one from them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch
import torch.distributed as dist
from megatron.core import parallel_state
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from megatron_bridge.atomic import replace_directory
from megatron_bridge.model.gpt import RoutedGPTModel, bare, uses_transformer_engine
from megatron_bridge.model.hf_mapping import (
    Entry,
    Kind,
    Stage,
    entries,
    hf_to_megatron,
    megatron_to_hf,
    shard,
    unshard,
)
from megatron_bridge.model.shape import ModelShape, padded_vocab, read_shape
from megatron_bridge.verdict import CheckpointError, Verdict
from trace_dsl.errors import PolicyError

__all__ = ["CheckpointError", "chunk_stage", "collect_hf", "hf_to_megatron", "load_hf", "megatron_to_hf", "save_hf"]

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_DTYPE_KEYS = ("dtype", "torch_dtype")  # transformers 5, and before


def chunk_stage(chunk: RoutedGPTModel) -> Stage:
    """The layers that a chunk has, and whether it is the first and the last one of the model."""
    numbers = [layer.layer_number - 1 for layer in chunk.decoder.layers]
    return Stage(layers=range(numbers[0], numbers[-1] + 1), first=chunk.pre_process, last=chunk.post_process)


def load_hf(model: torch.nn.ModuleList, directory: str | Path) -> None:
    """Read this rank's weights from a Hugging Face directory into the chunks of `model` (wrapped or not), in their own
    dtype.

    Each rank reads the tensors of its layers, one parameter at a time. No collectives. Raises
    FileNotFoundError where weights are missing, ValueError where the directory holds another shape or other
    tensors.
    """
    directory = Path(directory)
    shape = read_shape(directory)
    chunks = [bare(chunk) for chunk in model]
    _check_shape(chunks[0], shape, directory)
    files = _weight_files(directory)
    _check_names(shape, files.keys(), directory)
    for chunk in chunks:
        _load_chunk(chunk, shape, files)


def _load_chunk(chunk: RoutedGPTModel, shape: ModelShape, files: Mapping[str, Path]) -> None:
    tp = chunk.pg_collection.tp
    parameters = dict(chunk.named_parameters())
    for entry in entries(shape, chunk_stage(chunk), fused_norms=uses_transformer_engine(chunk)):
        tensors = []
        for name in entry.hf:
            with safe_open(files[name], framework="pt") as weights:
                tensors.append(weights.get_tensor(name))
        part = shard(
            entry.kind,
            tensors,
            shape,
            tp_rank=tp.rank(),
            tp_size=tp.size(),
            padded_vocab=padded_vocab(shape.vocab_size, tp.size()),
        )
        with torch.no_grad():
            parameters.pop(entry.megatron).copy_(part)
    if parameters:
        raise ValueError(
            f"no weights for {', '.join(parameters)}: these parameters have no place in a {shape.family.name} directory"
        )


def _check_shape(model: RoutedGPTModel, shape: ModelShape, directory: Path) -> None:
    config = model.config
    for name, here, there in (
        ("layers", config.num_layers, shape.layers),
        ("hidden size", config.hidden_size, shape.hidden_size),
        ("ffn size", config.ffn_hidden_size, shape.ffn_size),
        ("heads", config.num_attention_heads, shape.heads),
        ("kv heads", config.num_query_groups, shape.kv_heads),
        ("head dim", config.kv_channels, shape.head_dim),
        ("tied embeddings", model.share_embeddings_and_output_weights, shape.tied),
        (
            "rows of the padded vocabulary",
            model.vocab_size,
            padded_vocab(shape.vocab_size, model.pg_collection.tp.size()),
        ),
    ):
        if here != there:
            raise PolicyError(
                f"the model has {name} {here}, {directory} has {there}: "
                "build the model from that directory's config.json"
            )


def _weight_files(directory: Path) -> dict[str, Path]:
    """Which file holds each tensor."""
    if (directory / INDEX).is_file():
        index = json.loads((directory / INDEX).read_text(encoding="utf-8"))
        return {name: directory / file for name, file in index["weight_map"].items()}
    path = directory / WEIGHTS
    if not path.is_file():
        raise FileNotFoundError(f"no {WEIGHTS} in {directory}: save the model with save_pretrained")
    with safe_open(path, framework="pt") as weights:
        return dict.fromkeys(weights.keys(), path)


def _check_names(shape: ModelShape, present: Iterable[str], directory: Path) -> None:
    expected = {name for entry in entries(shape, Stage.whole(shape)) for name in entry.hf}
    present = set(present)
    if missing := expected - present:
        raise PolicyError(f"{directory} lacks {len(missing)} tensors, such as {min(missing)}: it is no whole model")
    allowed = {"lm_head.weight"} if shape.tied else set()  # some tied models repeat the embedding
    if unknown := present - expected - allowed:
        raise PolicyError(
            f"{directory} holds {len(unknown)} unknown tensors, such as {min(unknown)}: it is no {shape.family.name}"
        )


def save_hf(
    model: torch.nn.ModuleList,
    shape: ModelShape,
    source_directory: str | Path,
    target_directory: str | Path,
    *,
    file_bytes: int = 5 * 10**9,
) -> None:
    """Write `model` as a Hugging Face directory: weights, configuration and the other small files of the
    source.

    Weights keep the model's dtype and go into files of `file_bytes` each, with an index where there are several, as
    transformers does; rank 0 holds one file's weights at a time. `config.json` is the source's with that dtype.
    Everything is written beside `target_directory` and renamed when whole. All ranks call it; rank 0 writes.
    Collectives: all-gathers over tp, point to point over pp, one agreement over all. Raises CheckpointError on every
    rank where writing failed; the directory that was there is then untouched.
    """
    source, target = Path(source_directory), Path(target_directory)
    aside = target.with_name(target.name + ".partial")
    tensors = collect_hf(model, shape)
    verdict = Verdict(lambda reason: f"cannot save the model to {target}: {reason}; what was there is untouched")
    if dist.get_rank() == 0:
        with verdict.guard():
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir(parents=True)
            _write(tensors, source, aside, file_bytes)
            replace_directory(aside, target)
    for _ in tensors:  # where writing failed, the other ranks still send what they have
        pass
    verdict.agree(cleanup=lambda: shutil.rmtree(aside, ignore_errors=True))


def collect_hf(
    model: torch.nn.ModuleList, shape: ModelShape, *, to_cpu: bool = True
) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors of the model by their Hugging Face names, one parameter at a time, on rank 0; none elsewhere.

    Every rank has to run through it to its end. Collectives: all-gathers over tp, point to point over pp.
    """
    if parallel_state.get_data_parallel_rank() != 0:
        return
    chunks = [bare(chunk) for chunk in model]
    tp, pp = chunks[0].pg_collection.tp, chunks[0].pg_collection.pp
    stages = [[chunk_stage(chunk) for chunk in chunks]]
    if pp.size() > 1:
        mine, stages = stages[0], stages * pp.size()
        dist.all_gather_object(stages, mine, group=pp)
    for turn, chunk in enumerate(chunks):
        parameters = dict(chunk.named_parameters())
        for number, there in enumerate(stages):
            for entry in entries(shape, there[turn], fused_norms=uses_transformer_engine(chunk)):
                if entry.megatron == "output_layer.weight" and shape.tied:
                    continue  # the last stage's copy of the embedding
                gathered = _gather(entry, parameters[entry.megatron], shape, tp) if number == pp.rank() else None
                if number and tp.rank() == 0:
                    gathered = _send_to_first(gathered, number, pp)
                if gathered is not None and dist.get_rank() == 0:
                    yield from zip(entry.hf, (t.cpu() if to_cpu else t for t in gathered), strict=True)


def _gather(
    entry: Entry, parameter: torch.Tensor, shape: ModelShape, tp: dist.ProcessGroup
) -> tuple[torch.Tensor, ...]:
    mine = parameter.detach()
    shards = [mine]
    if tp.size() > 1 and entry.kind is not Kind.WHOLE:
        shards = [torch.empty_like(mine) for _ in range(tp.size())]
        dist.all_gather(shards, mine.contiguous(), group=tp)
    return unshard(entry.kind, shards, shape)


def _send_to_first(
    tensors: tuple[torch.Tensor, ...] | None, stage: int, pp: dist.ProcessGroup
) -> tuple[torch.Tensor, ...] | None:
    """Move one entry from pipeline stage `stage` to the first stage; None on every other stage."""
    box: list[tuple[torch.Tensor, ...] | None] = [None]
    if pp.rank() == stage:
        assert tensors is not None
        box = [tuple(tensor.cpu() for tensor in tensors)]
        dist.send_object_list(box, group=pp, group_dst=0)
        return None
    if pp.rank() == 0:
        dist.recv_object_list(box, group=pp, group_src=stage)
    return box[0]


def _write(tensors: Iterable[tuple[str, torch.Tensor]], source: Path, aside: Path, file_bytes: int) -> None:
    dtype = _write_weights(tensors, aside, file_bytes)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    name = str(dtype).removeprefix("torch.")
    config.update(dict.fromkeys([key for key in _DTYPE_KEYS if key in config] or ["dtype"], name))
    (aside / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    for path in sorted(source.iterdir()):
        weights = ".safetensors" in path.name or path.suffix in (".bin", ".pt", ".pth")
        if path.is_file() and not weights and path.name not in ("config.json", "README.md"):  # the card is the source's
            shutil.copy2(path, aside / path.name)


def _write_weights(tensors: Iterable[tuple[str, torch.Tensor]], aside: Path, file_bytes: int) -> torch.dtype:
    """Write the weights as they come, file by file; gives their dtype."""
    files: list[tuple[str, ...]] = []
    total = 0
    for part in _parts(tensors, file_bytes):
        try:
            save_file(part, aside / f"part-{len(files)}.safetensors", metadata={"format": "pt"})
        except SafetensorError as error:  # a full disk, say
            raise OSError(str(error)) from error
        files.append(tuple(part))
        total += sum(tensor.nbytes for tensor in part.values())
        dtype = next(iter(part.values())).dtype
        del part  # else it is held while the next one is gathered
    if len(files) == 1:
        (aside / "part-0.safetensors").rename(aside / WEIGHTS)
        return dtype
    where: dict[str, str] = {}
    for number, names in enumerate(files):
        file = f"model-{number + 1:05}-of-{len(files):05}.safetensors"
        (aside / f"part-{number}.safetensors").rename(aside / file)
        where |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
    (aside / INDEX).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return dtype


def _parts(tensors: Iterable[tuple[str, torch.Tensor]], file_bytes: int) -> Iterator[dict[str, torch.Tensor]]:
    """The weights in parts of at most so many bytes; a larger one has a part of its own."""
    part: dict[str, torch.Tensor] = {}
    held = 0
    for name, tensor in tensors:
        if part and held + tensor.nbytes > file_bytes:
            yield part
            part, held = {}, 0
        part[name] = tensor
        held += tensor.nbytes
    yield part
