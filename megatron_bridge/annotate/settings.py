"""The settings of annotators in a run file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from megatron_bridge.verify.settings import ImportPath, Seconds, Share, WorkerSettings
from trace_dsl.strict_yaml import TYPE_LABEL, Strict

TypeLabel = Annotated[str, Field(pattern=TYPE_LABEL)]


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


TypeLabels = Annotated[tuple[TypeLabel, ...], Field(min_length=1, max_length=64), BeforeValidator(_as_tuple)]
SpanLabels = Annotated[tuple[TypeLabel, ...], Field(min_length=1), BeforeValidator(_as_tuple)]

# Of arXiv 2605.10194, section 3.2.
ERROR_TYPES = (
    *("missed_case", "illegal_step", "wrong_constraint", "wrong_equivalence", "premature_conclusion"),
    *("format_error", "arithmetic_slip", "sign_error", "off_by_one"),
)
KEY_TYPES = (
    *("case_split", "boundary_check", "invariant", "substitution", "constraint_use", "symmetry"),
    *("construction_step", "final_verification", "key_formula", "insight"),
)


class NoAnnotator(Strict):
    """No spans."""

    kind: Literal["none"]


class ProgrammaticSettings(WorkerSettings):
    """A function `module:name` that gives spans; `labels` it may use, `types` a span may be of."""

    kind: Literal["programmatic"]
    function: ImportPath
    folder: str = "."
    labels: SpanLabels = ("key", "error")
    types: TypeLabels


class LanguageModelSettings(Strict):
    """error_types, key_types: what spans may be of; max_characters: longer responses are not annotated;
    max_tokens: of an answer; max_failures: the share of an iteration's answers that may fail."""

    error_types: TypeLabels = ERROR_TYPES
    key_types: TypeLabels = KEY_TYPES
    max_characters: Annotated[int, Field(ge=1)] = 60_000
    max_tokens: Annotated[int, Field(ge=16)] = 1024
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    max_failures: Share = 0.5


class OpenAISettings(LanguageModelSettings):
    """A server that speaks the OpenAI protocol; the key stands in the environment variable `api_key_env`.

    timeout: seconds an answer may take; deadline: seconds for all answers of an iteration; price_per_million: of
    prompt and completion tokens, in one currency.
    """

    kind: Literal["openai"]
    base_url: Annotated[str, Field(pattern=r"^https?://[^\s@]+$")]
    model: str
    api_key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    timeout: Seconds = 60.0
    deadline: Seconds = 600.0
    concurrency: Annotated[int, Field(ge=1, le=1024)] = 16
    retries: Annotated[int, Field(ge=0, le=10)] = 2
    structured_output: bool = True
    cache: str | None = None
    price_per_million: Annotated[
        tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]], BeforeValidator(_as_tuple)
    ] = (0.0, 0.0)


class SelfSettings(LanguageModelSettings):
    """The policy in training annotates its own responses."""

    kind: Literal["self"]


AnnotatorSettings = Annotated[
    NoAnnotator | ProgrammaticSettings | OpenAISettings | SelfSettings, Field(discriminator="kind")
]
