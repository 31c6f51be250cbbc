"""What came of a file of expectations, for people and for programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict

from rich.text import Text

from trace_dsl.expect.compare import NO_ROUTE, Mismatch, Outcome, Refused, is_as_expected
from trace_dsl.expect.file import ExpectationFile

_SHOWN = 12
_WHAT = {"weights": "weight", "advantages": "advantage", "routes": "route", "A": "A"}


def file_lines(file: ExpectationFile, outcomes: Sequence[Outcome | Refused], written: Sequence[str]) -> Iterator[Text]:
    """One line for a file, and what differs for every case that is not as expected. `written`: cases now updated."""
    wrong = [o for o in outcomes if not is_as_expected(o) and o.case.name not in written]
    if written:
        names = ", ".join(f"`{name}`" for name in written)
        yield Text(f"{file.path}: wrote {counted(len(written), 'case')} anew ({names})", style="yellow")
    if not wrong:
        if len(written) < len(outcomes):
            yield Text(f"{file.path}: {counted(len(outcomes) - len(written), 'case')} as expected", style="green")
        return
    yield Text(f"{file.path}: {len(wrong)} of {counted(len(outcomes), 'case')} not as expected", style="red")
    for outcome in wrong:
        yield Text(f"  case `{outcome.case.name}`, step {outcome.case.step}", style="bold")
        if isinstance(outcome, Refused):
            yield Text(f"    {outcome.reason}")
            continue
        for mismatch in outcome.mismatches[:_SHOWN]:
            yield Text(f"    {_mismatch_text(mismatch)}")
        if len(outcome.mismatches) > _SHOWN:
            yield Text(f"    and {len(outcome.mismatches) - _SHOWN} more")


def file_fields(
    file: ExpectationFile, outcomes: Sequence[Outcome | Refused], written: Sequence[str]
) -> dict[str, object]:
    """The same as JSON fields; docs/commands.md lists them."""
    return {
        "path": file.path,
        "spec": file.spec_path,
        "cases": [
            {
                "name": outcome.case.name,
                "step": outcome.case.step,
                "as_expected": is_as_expected(outcome),
                "written": outcome.case.name in written,
                "refused": outcome.reason if isinstance(outcome, Refused) else None,
                "mismatches": [asdict(m) for m in outcome.mismatches] if isinstance(outcome, Outcome) else [],
            }
            for outcome in outcomes
        ],
    }


def counted(number: int, noun: str) -> str:
    """`1 case`, `2 cases`."""
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _mismatch_text(mismatch: Mismatch) -> str:
    of = f" of {mismatch.loss}" if mismatch.loss else ""
    at = ""
    if mismatch.tokens is not None:
        first, last = mismatch.tokens
        at = f" at token {first}" if first == last else f" at tokens {first}-{last}"
    expected, found = _value(mismatch.expected), _value(mismatch.found)
    return f"{_WHAT[mismatch.what]}{of}{at} of `{mismatch.rollout}`: expected {expected}, found {found}"


def _value(value: float | str) -> str:
    if isinstance(value, str):
        return "none" if value == NO_ROUTE else value
    return f"{value + 0.0:.6g}"  # + 0.0: no minus zero
