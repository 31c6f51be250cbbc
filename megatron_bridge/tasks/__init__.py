"""Tasks: problems, verifiers and annotators in plain Python over text."""

from __future__ import annotations

import difflib

from megatron_bridge.tasks.base import Task
from megatron_bridge.tasks.ledger import LedgerTask

_TASKS: dict[str, Task] = {"ledger": LedgerTask()}


def get_task(name: str) -> Task:
    """The task a spec names. Raises ValueError, with the allowed names and the nearest one, for any other."""
    if name in _TASKS:
        return _TASKS[name]
    near = difflib.get_close_matches(name, _TASKS, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown task {name!r}: allowed are {', '.join(map(repr, sorted(_TASKS)))}{hint}")
