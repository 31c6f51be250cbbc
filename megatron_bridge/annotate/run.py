"""Annotators as a run uses them: made from settings, their failures counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import assert_never

from megatron_bridge.annotate.ask import AnnotatorError
from megatron_bridge.annotate.cache import CachedAsker
from megatron_bridge.annotate.language_model import LanguageModelAnnotator, PolicyAsker
from megatron_bridge.annotate.programmatic import FunctionAnnotator, WorkerAnnotator
from megatron_bridge.annotate.settings import (
    AnnotatorSettings,
    NoAnnotator,
    OpenAISettings,
    ProgrammaticSettings,
    SelfSettings,
)
from megatron_bridge.annotation import Annotation, Annotator, Policy


def open_annotator(settings: AnnotatorSettings, *, folder: Path, cache: Path, policy: Policy) -> Annotator:
    """The annotator that settings describe. `folder` is the run file's, `cache` where answers of a server are kept.

    Raises AnnotatorError where a package is missing.
    """
    match settings:
        case NoAnnotator():
            return FunctionAnnotator(lambda written: Annotation())
        case ProgrammaticSettings():
            return WorkerAnnotator(settings, str((folder / settings.folder).resolve()))
        case OpenAISettings():
            return LanguageModelAnnotator(_server(settings, cache), settings)
        case SelfSettings():
            return LanguageModelAnnotator(PolicyAsker(policy, settings), settings)
        case _:
            assert_never(settings)


def _server(settings: OpenAISettings, cache: Path) -> CachedAsker:
    try:
        from megatron_bridge.annotate.openai import OpenAIAsker
    except ImportError as error:
        raise AnnotatorError("task.annotator: httpx is not installed: pip install 'trace-dsl[annotate]'") from error
    decides = settings.model_dump(include={"base_url", "model", "temperature", "max_tokens", "structured_output"})
    return CachedAsker(OpenAIAsker(settings), cache, decides)


def check_annotations(annotations: Sequence[Annotation], *, limit: float) -> None:
    """Raises AnnotatorError when the annotator failed on more than the share `limit` of an iteration's responses."""
    failures = Counter(a.missing for a in annotations if a.missing is not None and a.missing.is_failure)
    failed = sum(failures.values())
    if failed <= limit * len(annotations):
        return
    counts = ", ".join(f"{reason} {count}" for reason, count in failures.most_common())
    told = next((a.note for a in annotations if a.missing is failures.most_common(1)[0][0] and a.note), "")
    raise AnnotatorError(
        f"the annotator failed on {failed} of {len(annotations)} responses, over task.annotator.max_failures = "
        f"{limit:g}: {counts}" + (f"; for example: {told}" if told else "")
    )
