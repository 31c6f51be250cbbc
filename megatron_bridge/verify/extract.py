"""Cutting the final answer out of a response."""

from __future__ import annotations

import re
from typing import assert_never

from megatron_bridge.verify.settings import Extract

_TAG = re.compile(r"<answer>(.*?)</answer>", re.S)


def extract_answer(response: str, how: Extract) -> str | None:
    """The answer without spaces at its ends; None where the response gives none.

    `all`: the whole response; `last_line`: the last line that is not blank; `boxed`: the content of the last
    `\\boxed{...}`, braces paired; `tag`: what stands in the last <answer>...</answer>.
    """
    match how:
        case "all":
            found = response
        case "last_line":
            found = next((line for line in reversed(response.splitlines()) if line.strip()), None)
        case "boxed":
            found = _last_boxed(response)
        case "tag":
            found = (_TAG.findall(response) or [None])[-1]
        case _:
            assert_never(how)
    return None if found is None else found.strip()


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
