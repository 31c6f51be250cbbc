"""The annotator that asks a language model: a server, or the policy in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from megatron_bridge.annotate.answers import read_answer
from megatron_bridge.annotate.ask import Asker
from megatron_bridge.annotate.questions import Question, question
from megatron_bridge.annotate.settings import LanguageModelSettings
from megatron_bridge.annotation import Annotation, Message, Missing, Policy, Reply, Written


class LanguageModelAnnotator:
    """Asks one question a response, once."""

    def __init__(self, asker: Asker, settings: LanguageModelSettings) -> None:
        self._asker, self._settings = asker, settings
        self.asks_policy = isinstance(asker, PolicyAsker)

    def start(self) -> None:
        """See `Annotator.start`."""
        self._asker.start()

    def close(self) -> None:
        """Nothing to end."""

    def annotate(self, written: Sequence[Written], *, of: int | None = None) -> list[Annotation]:
        """See `Annotator.annotate`. A response without text is not asked about."""
        questions = {n: self._question(one) for n, one in enumerate(written) if self._is_asked(one)}
        asked = self._asker.ask(list(questions.values()), of=len(written) if of is None else of)
        replies = dict(zip(questions, asked, strict=True))
        return [
            _annotation(questions[n], replies[n]) if n in questions else self._unasked(one)
            for n, one in enumerate(written)
        ]

    def _is_asked(self, one: Written) -> bool:
        return bool(one.response.strip()) and len(one.response) <= self._settings.max_characters

    def _unasked(self, one: Written) -> Annotation:
        too_long = len(one.response) > self._settings.max_characters
        return Annotation(missing=Missing.TOO_LONG if too_long else None)

    def _question(self, one: Written) -> Question:
        types = self._settings.key_types if one.correct else self._settings.error_types
        return question(problem=one.problem.prompt, response=one.response, correct=one.correct, types=types)


def _annotation(asked: Question, reply: Reply) -> Annotation:
    if reply.missing is not None:
        return Annotation(missing=reply.missing, note=reply.note, usage=reply.usage)
    found = read_answer(reply.text, asked)
    note = reply.text[:200] if found.missing is not None else ""
    return replace(found, note=note, usage=reply.usage)


class PolicyAsker:
    """Asks the policy in training, whose answers change with its weights and are not kept."""

    def __init__(self, policy: Policy, settings: LanguageModelSettings) -> None:
        self._policy, self._settings = policy, settings

    def start(self) -> None:
        """Nothing to find out."""

    def ask(self, questions: Sequence[Question], *, of: int) -> list[Reply]:
        """See `Asker.ask`."""
        messages = [Message(system=one.system, user=one.user) for one in questions]
        return self._policy.answer(
            messages, max_tokens=self._settings.max_tokens, temperature=self._settings.temperature
        )
