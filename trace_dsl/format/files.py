"""Spec files as bytes: read with their line ends, written aside and renamed, so that none is ever half there."""

from __future__ import annotations

import os
import re
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from trace_dsl.errors import SpecError

_MARK = b"\xef\xbb\xbf"
_EXTENDS = re.compile(r'^\s*extends\s*"([^"\n]+)"', flags=re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecBytes:
    """A spec as it lies on disk: `text` with bare newlines; `line_end` is the one its first line has."""

    path: str
    content: bytes
    text: str
    line_end: str

    def encoded(self, text: str) -> bytes:
        """`text` as the bytes of this file: its line ends, UTF-8, no byte order mark."""
        return text.replace("\n", self.line_end).encode("utf-8")


def decode_spec(content: bytes, path: str) -> SpecBytes:
    """Bytes as a spec; raises SpecError when they are no UTF-8 text."""
    try:
        text = content.removeprefix(_MARK).decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not UTF-8 text (byte {error.start})") from error
    return SpecBytes(path=path, content=content, text=bare_newlines(text), line_end=line_end_of(text))


def bare_newlines(text: str) -> str:
    """A text whose lines end in bare newlines, however they ended."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def line_end_of(text: str) -> str:
    """The line end of a text's first line; a bare newline for a text of one line."""
    return "\r\n" if text.partition("\n")[0].endswith("\r") and "\n" in text else "\n"


def read_spec_bytes(path: str) -> SpecBytes:
    """A spec file; raises SpecError when it cannot be read."""
    try:
        content = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise SpecError(f"{path} cannot be read: {(reason or str(error)).lower()}") from error
    return decode_spec(content, path)


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
