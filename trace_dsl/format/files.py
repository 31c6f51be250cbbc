"""Spec files written aside and renamed, so that none is ever half there."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from pathlib import Path

from trace_dsl.errors import SpecError
from trace_dsl.spec_files import read_spec_bytes

_EXTENDS = re.compile(r'^\s*extends\s*"([^"\n]+)"', flags=re.MULTILINE)


def extended_by(path: Path) -> Path | None:
    """A spec of the same folder or below it that extends this one; raises SpecError when one cannot be read."""
    for other in sorted(path.parent.rglob("*.trace")):
        text = read_spec_bytes(str(other)).text if other.is_file() else ""
        if any((other.parent / target).resolve() == path.resolve() for target in _EXTENDS.findall(text)):
            return other
    return None


def replace_file(path: str, content: bytes) -> None:
    """Put `content` in a file's place, with its permissions: readers see the old file or the new one, nothing between.

    A link stays a link. Raises SpecError when the folder cannot be written to; the file is untouched then.
    """
    target = Path(path).resolve()
    aside: Path | None = None
    try:
        mode = stat.S_IMODE(target.stat().st_mode)
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{target.name}.", delete=False) as file:
            aside = Path(file.name)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.chmod(mode)
        aside.replace(target)
    except OSError as error:
        if aside is not None:
            aside.unlink(missing_ok=True)
        raise SpecError(f"{path} cannot be written: {(error.strerror or str(error)).lower()}") from error
