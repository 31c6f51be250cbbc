"""The table of all messages of the parser: every message with the places where it is given.

`python -m tests.language.parser_states_update` writes it anew; review the diff. `⟨word⟩` is what was found, ¤ the same
in a message or fix. Behind them stands where the message is given at first, and how often.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from tests.language.parser_states import complaints, prefixes, read_as_a_name, unexpected

EXPECTED = Path(__file__).parent / "golden" / "parser_states.txt"
SHOWN = 4


def table_text() -> str:
    """All messages, in the order in which the walk meets them."""
    cases: dict[tuple[str, str], list[str]] = defaultdict(list)
    for prefix in prefixes():
        for word in unexpected(prefix):
            for found in () if read_as_a_name(prefix, word) else complaints(prefix, word):
                place = f"{prefix.text} ⟨{word}⟩".strip().replace("\0", "U+0000")
                cases[_without(word, found.message), _without(word, found.fix)].append(place)
    blocks = []
    for (message, fix), places in cases.items():
        shown = "".join(f"    {place}\n" for place in places[:SHOWN])
        more = f"    ... {len(places)} in all\n" if len(places) > SHOWN else ""
        blocks.append(f"{message}\n  fix: {fix}\n{shown}{more}")
    return "\n".join(blocks)


def _without(word: str, text: str) -> str:
    return text.replace(f"`{word}`", "¤") if word else text


if __name__ == "__main__":
    EXPECTED.write_text(table_text(), encoding="utf-8")
