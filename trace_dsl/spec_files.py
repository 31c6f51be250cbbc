"""Spec files as bytes. Every command reads specs here, so that what is no small text file is refused in one way."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from typing import BinaryIO

from trace_dsl.errors import SpecError

# A spec of 20 routes has about 1,000 bytes. Anything much larger is another file given by mistake.
MAX_BYTES = 200_000
_MARK = b"\xef\xbb\xbf"


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


def read_spec_bytes(path: str) -> SpecBytes:
    """A spec file; raises SpecError when it cannot be read, is no file, is too large or is no text.

    No more than MAX_BYTES are read, and nothing is waited for: a named pipe is refused, not read.
    """
    try:
        # Without O_NONBLOCK, opening a named pipe would wait for somebody to write to it.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        kind = os.fstat(descriptor)
        if not stat.S_ISREG(kind.st_mode):
            os.close(descriptor)
            raise SpecError(f"{path} cannot be read: {_what_it_is(kind.st_mode)}")
        with open(descriptor, "rb") as file:
            return read_stream(file, path, known_size=kind.st_size)
    except (OSError, ValueError) as error:
        if isinstance(error, SpecError):
            raise
        reason = error.strerror if isinstance(error, OSError) else None
        raise SpecError(f"{path} cannot be read: {(reason or str(error)).lower()}") from error


def read_stream(file: BinaryIO, path: str, *, known_size: int = 0) -> SpecBytes:
    """A spec from an open file; `path` names it in messages. Raises SpecError when it is too large or is no text."""
    content = b"" if known_size > MAX_BYTES else file.read(MAX_BYTES + 1)
    if known_size > MAX_BYTES or len(content) > MAX_BYTES:
        size = f"{known_size:,}" if known_size > MAX_BYTES else f"more than {MAX_BYTES:,}"
        raise SpecError(f"{path} cannot be read: it has {size} bytes, and a spec has at most {MAX_BYTES:,}")
    return decode_spec(content, path)


def decode_spec(content: bytes, path: str) -> SpecBytes:
    """Bytes as a spec; raises SpecError when they are no UTF-8 text."""
    try:
        text = content.removeprefix(_MARK).decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not UTF-8 text (byte {error.start})") from error
    if "\0" in text:
        raise SpecError(f"{path} is no text file (byte {content.index(0)} is zero)")
    return SpecBytes(path=path, content=content, text=bare_newlines(text), line_end=line_end_of(text))


def bare_newlines(text: str) -> str:
    """A text whose lines end in bare newlines, however they ended."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def line_end_of(text: str) -> str:
    """The line end of a text's first line; a bare newline for a text of one line."""
    return "\r\n" if text.partition("\n")[0].endswith("\r") and "\n" in text else "\n"


def _what_it_is(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "it is a folder"
    if stat.S_ISFIFO(mode):
        return "it is a pipe; a spec from a pipe is read from standard input, as -"
    return "it is no regular file"
