"""What a run file says of its task, known before the task is opened, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from megatron_bridge.model.chat import has_chat_template
from megatron_bridge.tasks import get_task
from megatron_bridge.tasks.settings import (
    TaskSettings,
    context_templates,
    contexts_of,
    span_labels,
    splits_of,
    task_problems,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFacts:
    """The labels that its annotator can give, what it can show teachers and by templates that show which names, its
    splits.
    """

    name: str
    labels: tuple[str, ...]
    contexts: tuple[str, ...]
    splits: tuple[str, ...]
    context_fields: tuple[tuple[str, tuple[str, ...]], ...] = ()


def task_facts(settings: str | TaskSettings) -> TaskFacts | None:
    """The facts of a task; None for a name or a template that is a mistake."""
    try:
        if isinstance(settings, str):
            task = get_task(settings)
            return TaskFacts(name=task.name, labels=task.labels, contexts=task.contexts, splits=task.splits)
        templates = context_templates(settings)
    except ValueError:
        return None
    return TaskFacts(
        name=settings.name,
        labels=span_labels(settings),
        contexts=contexts_of(settings),
        splits=splits_of(settings),
        context_fields=tuple((sees, template.names) for sees, template in templates.items()),
    )


def task_mistakes(settings: str | TaskSettings, folder: Path, policy: Path) -> Iterator[tuple[str, str]]:
    """(setting, what is wrong with it): of a task whose run file stands in `folder`, for the policy in `policy`."""
    if isinstance(settings, str):
        try:
            get_task(settings)
        except ValueError as error:
            yield "task", str(error)
        return
    yield from ((f"task.{place}", text) for place, text in task_problems(settings, folder))
    if settings.prompt.chat and (policy / "tokenizer.json").is_file() and not has_chat_template(policy):
        yield "task.prompt.chat", f"the tokenizer in {str(policy)!r} has no chat template; write chat: false"
