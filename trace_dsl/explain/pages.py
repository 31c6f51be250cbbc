"""The pages of the rules. Their text is docs/rules.md, which ships inside the wheel as trace_dsl/pages/rules.md."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path

_SECTION = re.compile(r"^### ([a-z0-9-]+)\n(.*?)(?=^##|\Z)", flags=re.M | re.S)
_BLOCK = re.compile(r"^```[a-z]*([^\n]*)\n(.*?)^```$\n?", flags=re.M | re.S)
_LINK = re.compile(r"\[([^\]]+)\]\(([^)]+)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Paragraph:
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A spec; `label` says what it shows: "bad", "good"."""

    label: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RulePage:
    rule: str
    parts: tuple[Paragraph | Example, ...]


def rules_text() -> str:
    """The text of all pages: from the installed package, or from the repository when running from its source tree."""
    installed = resources.files("trace_dsl").joinpath("pages", "rules.md")
    if installed.is_file():
        return installed.read_text(encoding="utf-8")
    return (Path(__file__).parents[2] / "docs" / "rules.md").read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def rule_pages() -> dict[str, RulePage]:
    """The page of every rule, by its name, in the order of the text."""
    return {rule: RulePage(rule=rule, parts=_parts(body)) for rule, body in _SECTION.findall(rules_text())}


def _parts(body: str) -> tuple[Paragraph | Example, ...]:
    found: list[Paragraph | Example] = []
    end = 0
    for block in _BLOCK.finditer(body):
        found.extend(_paragraphs(body[end : block.start()]))
        found.append(Example(label=block[1].strip(), text=block[2].rstrip("\n")))
        end = block.end()
    return (*found, *_paragraphs(body[end:]))


def _paragraphs(text: str) -> list[Paragraph]:
    """Paragraphs without their line breaks; a link becomes its text and its target."""
    plain = _LINK.sub(lambda link: f"{link[1]} ({_target(link[2])})", text)
    return [Paragraph(text=" ".join(part.split())) for part in plain.split("\n\n") if part.strip()]


def _target(link: str) -> str:
    return link if "://" in link else f"docs/{link}"
