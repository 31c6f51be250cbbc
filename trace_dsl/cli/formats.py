"""`--format text|json`: the same facts for people and for programs. docs/commands.md lists the fields."""

from __future__ import annotations

import json
from enum import StrEnum

# Changes when a field of some command changes its meaning or goes.
FORMAT = 1


class OutputFormat(StrEnum):
    TEXT = "text"
    JSON = "json"


def print_json(**fields: object) -> None:
    """One JSON object on standard output, with the number of its format."""
    print(json.dumps({"format": FORMAT, **fields}, indent=2))
