"""The models that a run holds: its policy, and the teachers that are copies of it or other models."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from megatron_bridge.device import training_device
from megatron_bridge.model.config import DTYPES
from megatron_bridge.model.gpt import build_model
from megatron_bridge.model.hf import load_hf
from megatron_bridge.model.shape import ModelShape
from megatron_bridge.run_file import LoadedRun
from megatron_bridge.tasks.base import Task
from megatron_bridge.teacher_models import teacher_files
from megatron_bridge.training.teacher import TeacherModel, needs_average
from trace_dsl.errors import OffloadError
from trace_dsl.model import ModelTeacher, Teacher


def make_policy(loaded: LoadedRun, dtype: torch.dtype | None = None) -> torch.nn.ModuleList:
    """The policy as it stands in its directory, in the run's precision or in `dtype`. Collective, as `load_hf`."""
    return _model(loaded, loaded.shape, loaded.policy_path, dtype)


def make_teacher(teacher: Teacher, loaded: LoadedRun, task: Task, tokenizer: PreTrainedTokenizerBase) -> TeacherModel:
    """A teacher with the weights of its directory, or those that the run started from. Collective, as `load_hf`.

    Raises OffloadError where its weights are to stand in host memory and do already.
    """
    offload = loaded.file.teacher.offload
    if offload and training_device().type != "cuda":
        raise OffloadError(
            "teacher.offload: there is no CUDA device here, so a teacher's weights are in host memory already; set it "
            "to false, or leave it out"
        )
    if isinstance(teacher.source, ModelTeacher):
        files = teacher_files(teacher, loaded.spec_path)
        return TeacherModel(teacher, _model(loaded, files.shape, files.directory), task, tokenizer, offload=offload)
    average = make_policy(loaded, torch.float32) if needs_average(teacher, DTYPES[loaded.file.precision]) else None
    return TeacherModel(teacher, make_policy(loaded), task, tokenizer, average=average, offload=offload)


def _model(
    loaded: LoadedRun, shape: ModelShape, directory: Path, dtype: torch.dtype | None = None
) -> torch.nn.ModuleList:
    run = loaded.file
    model = build_model(
        shape,
        run.layout.layout,
        dtype=dtype or DTYPES[run.precision],
        recompute=run.layout.recompute,
        transformer_impl=run.transformer_impl,
    )
    load_hf(model, directory)
    return model
