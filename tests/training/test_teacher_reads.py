"""What a teacher is given to read."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch
from transformers import AutoTokenizer

from megatron_bridge.tasks import get_task
from megatron_bridge.training.microbatch import Share, cut
from megatron_bridge.training.teacher import TeacherModel
from tests.training.test_packing import rollout
from trace_dsl.lowering import FusedRouting
from trace_dsl.model import Frozen, Place, Sees, SelfTeacher, Teacher


class Model(torch.nn.Module):
    """Weights are not asked for what is read."""

    config = SimpleNamespace(params_dtype=torch.float32)


PLACE = Place(line=1, column=1, end_line=1, end_column=2)


def test_each_response_up_to_its_last_wanted_token() -> None:
    """Of responses of 5, 7 and 3 tokens, 1 and 3 of the second and 0 of the third are wanted."""
    tokenizer = AutoTokenizer.from_pretrained(Path("specs/demo/policy"))
    teacher = Teacher(name="t", source=SelfTeacher(update=Frozen()), sees=Sees.NOTHING, place=PLACE)
    model = TeacherModel(teacher, torch.nn.ModuleList([Model()]), get_task("ledger"), tokenizer)  # type: ignore[arg-type]
    rollouts = [rollout(n, 2, length) for n, length in enumerate((5, 7, 3))]
    (batch,) = cut(rollouts, FusedRouting.empty(15), micro_batch=3, part=Share(), device=torch.device("cpu"))
    # short ones stand first in a micro-batch: the responses begin at tokens 0 (3 long), 3 (5) and 8 (7)
    read = model._read(batch, torch.tensor([0, 9, 11]), Share())
    assert read.number_R.tolist() == read.sequences.here_t.tolist() == [0, 2, 4]
    assert read.row_r.tolist() == [0, 9, 11]
    responses = [ids[ids >= 100].tolist() for ids in read.sequences.ids_bs]
    assert responses == [[100], [100, 101, 102, 103]]
