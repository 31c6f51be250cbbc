"""Prompt templates: text with {names} that are filled in once; what is filled in is never read as a template."""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass

from trace_dsl.errors import TraceError


class TemplateError(TraceError, ValueError):
    """A template does not parse, or has no value for one of its names."""


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed template: literal text and the name behind it, in order (the last name may be None)."""

    text: str
    parts: tuple[tuple[str, str | None], ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names it shows, each once, in order."""
        return tuple(dict.fromkeys(name for _, name in self.parts if name is not None))

    def fill(self, values: Mapping[str, object]) -> str:
        """The text with every name replaced. Raises TemplateError for a name without a value."""
        missing = [name for name in self.names if name not in values]
        if missing:
            raise TemplateError(f"no value for {{{missing[0]}}}; there is {', '.join(sorted(values)) or 'none'}")
        return "".join(literal + ("" if name is None else str(values[name])) for literal, name in self.parts)


def parse_template(text: str) -> Template:
    """Read a template: `{name}` is filled in, `{{` and `}}` are braces. Raises TemplateError."""
    try:
        parsed = list(string.Formatter().parse(text))
    except ValueError as error:
        raise TemplateError(f"{text!r}: {error}; write {{{{ and }}}} for braces that are meant") from error
    parts = []
    for literal, name, form, conversion in parsed:
        if name is not None and (not name.isidentifier() or form or conversion):
            raise TemplateError(
                f"{text!r}: '{{{name}}}' is no plain name such as {{question}}; write {{{{ and }}}} for braces "
                "that are meant"
            )
        parts.append((literal, name))
    return Template(text=text, parts=tuple(parts))
