"""Whether a tokenizer can write chats, read from its files. No torch here."""

from __future__ import annotations

import json
from pathlib import Path


def has_chat_template(directory: Path) -> bool:
    """Whether a Hugging Face directory holds a chat template; False for a tokenizer_config.json that is no JSON."""
    if (directory / "chat_template.jinja").is_file():
        return True
    try:
        config = json.loads((directory / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and bool(config.get("chat_template"))
