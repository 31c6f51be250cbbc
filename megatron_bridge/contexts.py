"""What a privileged teacher is shown beside the problem, and the templates that show it.

The classes are the guard: a diagnosis holds one word and nothing else, so that neither the text of a rollout nor the
place of a span can reach a teacher that sees the diagnosis (arXiv 2605.10194, section 3.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import assert_never

from megatron_bridge.templates import Template
from trace_dsl.errors import TraceError

_TYPE_LABEL = re.compile(r"[a-z][a-z0-9_]{0,39}")


class ContextError(TraceError, ValueError):
    """A teacher would be shown something that it must not see."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """The type label of the first span, `sign_error`: letters, digits and underscores, at most 40 of them."""

    kind: str

    def __post_init__(self) -> None:
        if not is_type_label(self.kind):
            raise ContextError(
                f"{self.kind[:60]!r} is no type label: a diagnosis is one word of at most 40 characters (a-z, 0-9, _)"
            )


@dataclass(frozen=True, slots=True)
class Solution:
    """The worked solution that the data has."""

    text: str


@dataclass(frozen=True, slots=True)
class Sibling:
    """Another response to the same prompt, one the verifier found correct."""

    text: str


@dataclass(frozen=True, slots=True)
class Feedback:
    """What the verifier said of this very response."""

    text: str


Context = Diagnosis | Solution | Sibling | Feedback

# The last word of each is the one name beside {prompt} that the template of this context may show.
TEMPLATES: Mapping[str, str] = {
    "diagnosis": "Keep this in mind: {diagnosis}.\n\n{prompt}",
    "solution": "{prompt}\n\nA worked solution:\n{solution}\n\nNow solve it yourself.\n",
    "sibling": "{prompt}\n\nA solution that was checked:\n{sibling}\n\nNow solve it yourself.\n",
    "feedback": "{prompt}\n\nAn earlier attempt was judged:\n{feedback}\n\nNow solve it.\n",
}
# Words that a template could ask for and no context gives: they are of one rollout.
ROLLOUT_NAMES = ("response", "rollout", "segments", "span", "spans", "start", "end", "place")


def is_type_label(text: str) -> bool:
    """Whether `text` may be a diagnosis."""
    return _TYPE_LABEL.fullmatch(text) is not None


def sees_of(context: Context) -> str:
    """What a teacher that is shown `context` sees, as a spec writes it."""
    match context:
        case Diagnosis():
            return "diagnosis"
        case Solution():
            return "solution"
        case Sibling():
            return "sibling"
        case Feedback():
            return "feedback"
        case _:
            assert_never(context)


def text_of(context: Context) -> str:
    """The text that a context's template shows."""
    return context.kind if isinstance(context, Diagnosis) else context.text


def foreign_names(sees: str, template: Template) -> Iterator[str]:
    """The names in the template of `sees` that it must not show: everything but {prompt} and the context itself."""
    yield from (name for name in template.names if name not in ("prompt", sees))


def render(templates: Mapping[str, Template], prompt: str, context: Context | None) -> str:
    """The prompt of a teacher that is shown `context` (None: the student's own prompt).

    Raises ContextError for a template that shows more than its context, whoever wrote it.
    """
    if context is None:
        return prompt
    sees = sees_of(context)
    template = templates[sees]
    foreign = next(foreign_names(sees, template), None)
    if foreign is not None:
        raise ContextError(f"the template for {sees} shows {{{foreign}}}: it may show {{prompt}} and {{{sees}}} only")
    return template.fill({"prompt": prompt, sees: text_of(context)})
