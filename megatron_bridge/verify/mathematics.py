"""Boxed answers judged by math-verify. Runs in a worker: parsing hostile LaTeX may take minutes or die."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from math_verify import parse, verify

from megatron_bridge.verify.extract import extract_answer


def grade_math(request: Mapping[str, Any]) -> dict[str, Any]:
    """`reference` is the right answer, with or without LaTeX marks; `response` must box its answer."""
    answer = extract_answer(request["response"], "boxed")
    if answer is None:
        return {"reward": 0.0, "reason": "no \\boxed{} answer"}
    # the worker's time limit stands in for the library's own, which works by signals
    gold = _parsed(str(request["reference"]))
    if not gold:
        raise ValueError(f"the reference answer {request['reference']!r} cannot be parsed")
    given = parse(f"\\boxed{{{answer}}}", parsing_timeout=None)
    if not given:
        return {"reward": 0.0, "reason": "the boxed answer cannot be parsed"}
    if verify(gold, given, timeout_seconds=None):
        return {"reward": 1.0, "reason": "the boxed answer is right"}
    return {"reward": 0.0, "reason": "the boxed answer is wrong"}


def _parsed(reference: str) -> list[Any]:
    marked = reference if "\\boxed{" in reference or "$" in reference else f"\\boxed{{{reference}}}"
    return parse(marked, parsing_timeout=None)
