"""The checkpoint with the best evaluation: found from what checkpoints say, so that a kill loses nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch.distributed as dist

from megatron_bridge.checkpoint_files import ACCURACY, best_checkpoint, checkpoint_name, note_accuracy, read_meta
from megatron_bridge.training.together import agreed, gathered


def keep_evaluation(directory: Path, step: int, accuracy: float, save: Callable[[], None], *, best: bool) -> None:
    """Note an evaluation in the checkpoint of its step. Where there is none, `save` one if the accuracy is better than
    those of all others, when `best` is wanted.

    Collectives over all ranks: two of objects, in which the view of the first rank counts, and those of `save`. Raises
    OSError on every rank.
    """
    path = directory / checkpoint_name(step)
    if gathered(path.is_dir(), dist.group.WORLD)[0]:
        agreed(lambda: note_accuracy(path, accuracy) if dist.get_rank() == 0 else None)
    elif best and gathered(_is_better(directory, accuracy), dist.group.WORLD)[0]:
        save()


def _is_better(directory: Path, accuracy: float) -> bool:
    before = best_checkpoint(directory)
    return before is None or accuracy > read_meta(before)[ACCURACY]
