"""Cutting the final answer out of a response."""

from __future__ import annotations

from typing import assert_never

from megatron_bridge.verify.settings import Extract

_OPEN, _CLOSE = "<answer>", "</answer>"


def extract_answer(response: str, how: Extract) -> str | None:
    """The answer without spaces at its ends; None where the response gives none.

    `all`: the whole response; `last_line`: the last line that is not blank; `boxed`: the content of the last
    `\\boxed{...}`, braces paired; `tag`: what stands behind the last <answer> that is closed, up to where it is.
    """
    match how:
        case "all":
            found = response
        case "last_line":
            found = next((line for line in reversed(response.splitlines()) if line.strip()), None)
        case "boxed":
            found = _last_boxed(response)
        case "tag":
            found = _last_tagged(response)
        case _:
            assert_never(how)
    return None if found is None else found.strip()


def _last_tagged(text: str) -> str | None:
    """In time that grows with the text alone, however often it repeats a tag."""
    start = text.rfind(_OPEN, 0, max(text.rfind(_CLOSE), 0))
    return None if start < 0 else text[start + len(_OPEN) : text.index(_CLOSE, start)]


def _last_boxed(text: str) -> str | None:
    """The content of the last `\\boxed{...}`; None without one or with braces that do not pair."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    start += len("\\boxed{")
    depth, at = 1, start
    while at < len(text):
        if text[at] == "\\":
            at += 2
            continue
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[start:at]
        at += 1
    return None
