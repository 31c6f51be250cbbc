"""Text with styles, before it is known whether a terminal will show them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Styled:
    """Pieces of text, each with the name of its style ("" for none), as rich knows styles."""

    parts: list[tuple[str, str]] = field(default_factory=list)

    def append(self, text: str, style: str = "") -> None:
        self.parts.append((text, style))

    @property
    def plain(self) -> str:
        """The text alone."""
        return "".join(text for text, _ in self.parts)
