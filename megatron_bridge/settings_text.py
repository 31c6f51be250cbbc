"""The text of a run file and of what the command line changes in it, before anything is known of settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from trace_dsl.errors import RunFileError
from trace_dsl.strict_yaml import YamlError, load_yaml


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a run file. Raises RunFileError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise RunFileError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise RunFileError(f"{path}: is not UTF-8 text (byte {error.start})") from error
    if path.suffix == ".trace":
        raise RunFileError(f"{path}: this is a spec; a run file (YAML) names it under 'spec:'")
    try:
        data = load_yaml(text)
    except YamlError as error:
        raise RunFileError(f"{path}{error.place}: not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise RunFileError(f"{path}: a run file is a mapping of settings such as 'spec: trace.trace'")
    return data


def override(data: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """`data` with `a.b=value` items in place, values read as YAML. Raises RunFileError."""
    for item in overrides:
        key, equals, text = item.partition("=")
        if not equals or not key:
            raise RunFileError(f"{item!r}: an override is written key=value, for example optim.lr=3e-4")
        try:
            value = load_yaml(text)
        except YamlError as error:
            raise RunFileError(f"{item!r}: the value is not valid YAML: {error}") from error
        *folders, leaf = key.split(".")
        place = data
        for folder in folders:
            inner = place.setdefault(folder, {})
            if not isinstance(inner, dict):
                raise RunFileError(f"{item!r}: {folder!r} is a value, not a group of settings")
            place = inner
        place[leaf] = value
    return data
