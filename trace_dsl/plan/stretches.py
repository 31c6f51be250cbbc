"""Steps of a run as stretches: first and last of each run of neighbours, in order."""

from __future__ import annotations

from collections.abc import Iterable

Stretch = tuple[int, int]


def stretches(steps: Iterable[int]) -> tuple[Stretch, ...]:
    """Ascending steps as the fewest stretches."""
    return joined((step, step) for step in steps)


def joined(parts: Iterable[Stretch]) -> tuple[Stretch, ...]:
    """Stretches in any order, overlapping or not, as the fewest."""
    found: list[Stretch] = []
    for first, last in sorted(parts):
        if found and first <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], last))
        else:
            found.append((first, last))
    return tuple(found)


def stretches_text(parts: tuple[Stretch, ...], *, at_most: int = 6) -> str:
    """`step 4`, `steps 0-39`, `steps 0-9, 20`; what is beyond `at_most` stretches is counted."""
    if not parts:
        return "no step"
    many = len(parts) > 1 or parts[0][0] != parts[0][1]
    shown = ", ".join(f"{a}" if a == b else f"{a}-{b}" for a, b in parts[:at_most])
    more = f" and {len(parts) - at_most} more stretches" if len(parts) > at_most else ""
    return f"step{'s' if many else ''} {shown}{more}"
