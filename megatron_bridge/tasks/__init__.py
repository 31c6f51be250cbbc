"""Tasks: problems, verifiers and annotators over text. One ships with the project; a run file can describe another."""

from __future__ import annotations

import difflib
from pathlib import Path

from megatron_bridge.tasks.base import Task
from megatron_bridge.tasks.data_task import DataTask
from megatron_bridge.tasks.ledger import LedgerTask
from megatron_bridge.tasks.ledger_controls import Control
from megatron_bridge.tasks.settings import TaskSettings

_TASKS: dict[str, Task] = {task.name: task for task in map(LedgerTask, (None, *Control))}


def get_task(name: str) -> Task:
    """The task a run file names. Raises ValueError, with the allowed names and the nearest one, for any other."""
    if name in _TASKS:
        return _TASKS[name]
    near = difflib.get_close_matches(name, _TASKS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(
        f"unknown task {name!r}: allowed are {', '.join(map(repr, sorted(_TASKS)))}{hint} (a mapping with data, prompt "
        "and verifier describes a task of your own)"
    )


def open_task(settings: str | TaskSettings, *, folder: Path, cache: Path) -> Task:
    """The task of a run file that stands in `folder`; a server's annotations are kept in `cache`.

    Nothing is read or started before it is asked for. Raises ValueError for an unknown name.
    """
    if isinstance(settings, str):
        return get_task(settings)
    return DataTask(settings, folder=folder, cache=cache)
