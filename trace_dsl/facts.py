"""What a run knows that a spec does not: its length, its groups, what its annotator can emit."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTeacher:
    """What the file behind a `cached` rollout source holds of one teacher at each position.

    top_k: the log-probabilities of so many of its likeliest tokens; 0: of the sampled token alone; None: of the full
    vocabulary.
    """

    rollouts: str
    teacher: str
    top_k: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """Facts of one run, taken from its run file.

    total_steps: optimizer steps of the run; group_size: rollouts a prompt; annotator_labels: the span labels the
    annotator can emit; teacher_contexts: what the task can show a teacher (see `model.Sees`); vocab_size: the student's
    vocabulary; max_response_tokens: where a response is cut; stored_teachers: teachers whose log-probabilities
    are read from a file of rollouts instead of being computed; context_fields: for each context whose template the run
    file can change, the names that the template shows; stop_tokens: the ids at which the policy's responses end, none
    where its files do not say.
    """

    total_steps: int
    group_size: int
    annotator_labels: tuple[str, ...]
    teacher_contexts: tuple[str, ...]
    vocab_size: int
    max_response_tokens: int
    temperature: float = 1.0
    stored_teachers: tuple[StoredTeacher, ...] = ()
    context_fields: tuple[tuple[str, tuple[str, ...]], ...] = ()
    stop_tokens: tuple[int, ...] = ()


def run_of_length(total_steps: int) -> RunFacts:
    """A run of which only the length is known: enough for weights, not for what the rules ask of a run."""
    return RunFacts(
        total_steps=total_steps,
        group_size=1,
        annotator_labels=(),
        teacher_contexts=(),
        vocab_size=1,
        max_response_tokens=1,
    )
