"""The interface of what answers an annotator's questions, and the keys under which answers are kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from megatron_bridge.annotate.questions import Question
from megatron_bridge.annotation import Reply
from trace_dsl.errors import TraceError


class AnnotatorError(TraceError, RuntimeError):
    """An annotator cannot work, or failed on more responses than the run allows."""


class Asker(Protocol):
    """Answers questions: a server, the policy, or a cache in front of one."""

    def start(self) -> None:
        """Find out whether it can work at all. Raises AnnotatorError."""
        ...

    def ask(self, questions: Sequence[Question], *, of: int) -> list[Reply]:
        """The reply to each question, in order; never an exception for one that has no good answer.

        of: responses of the iteration, see `Annotator.annotate`.
        """
        ...


def key_of(question: Question, settings: Mapping[str, Any]) -> str:
    """Under which an answer is kept: of everything that decides it, the model and its settings included."""
    content = {"system": question.system, "user": question.user, "schema": question.schema, "settings": dict(settings)}
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=20).hexdigest()
