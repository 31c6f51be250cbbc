"""How long ranks wait for each other: longer than anything that one of them may have to do meanwhile."""

from __future__ import annotations

from datetime import timedelta

from megatron_bridge.annotate.settings import OpenAISettings
from megatron_bridge.run_file import RunFile
from megatron_bridge.tasks.settings import TaskSettings
from megatron_bridge.verify.settings import WorkerSettings
from megatron_bridge.workers import START_SECONDS

_MARGIN = 1800.0  # seconds for a rank's own work, such as a checkpoint


def patience(file: RunFile) -> timedelta:
    """The time-out of collectives: half an hour above the longest of what the run file lets one rank wait for.

    That is a verifier or a program that annotates at its time-out for every response, the annotator's deadline, servers
    that start, and one call of a weight update.
    """
    layout, rollout = file.layout, file.rollout
    sampling = layout.dp * layout.cp
    responses = max(-(-rollout.prompts // sampling) * rollout.group_size, -(-file.evaluation.problems // sampling))
    waits = [rollout.started.start_timeout, rollout.request_timeout, rollout.server_timeout]
    if isinstance(file.task, TaskSettings):
        waits.append(_of_workers(file.task.verifier, responses))
        waits.append(_of_workers(file.task.annotator, responses))
        if isinstance(file.task.annotator, OpenAISettings):
            waits.append(file.task.annotator.deadline + file.task.annotator.timeout)
    return timedelta(seconds=max(waits) + _MARGIN)


def _of_workers(settings: object, responses: int) -> float:
    """Seconds for as many calls as there are responses, each at its limit, in the processes that there are."""
    match settings:
        case WorkerSettings(timeout=timeout, workers=workers):
            return START_SECONDS + -(-responses // workers) * timeout
        case _:
            return 0.0
