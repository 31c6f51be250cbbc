"""What the directory of a Hugging Face model says of it, read without loading it.

A file that is not there, or cannot be read, says nothing: whoever loads the model says what is wrong with its files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def vocabulary_size(directory: Path) -> int | None:
    """`vocab_size` of config.json (of its text part); None where it says none."""
    size = _of_config(directory, "vocab_size")
    return size if isinstance(size, int) else None


def stop_tokens(directory: Path) -> tuple[int, ...]:
    """The ids that end a response: `eos_token_id` of generation_config.json, else of config.json; none where neither
    says any.
    """
    found = _read(directory / "generation_config.json").get("eos_token_id")
    if found is None:
        found = _of_config(directory, "eos_token_id")
    listed = found if isinstance(found, list) else [found]
    return tuple(one for one in listed if isinstance(one, int))


def _of_config(directory: Path, name: str) -> Any:
    config = _read(directory / "config.json")
    text = config.get("text_config")
    found = config.get(name)
    return text.get(name) if found is None and isinstance(text, dict) else found


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
