"""Rows of JSONL and parquet files by number, read when they are asked for.

A JSONL file is scanned once for where its lines start (8 bytes a row are kept); a parquet file is read one row group
at a time.
"""

from __future__ import annotations

import hashlib
import json
import os
from array import array
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from megatron_bridge.data.errors import DataError

Row = dict[str, Any]
LONGEST_LINE = 1 << 26  # bytes; a longer line is a file of another kind


class _File(Protocol):
    """Rows of one file. `blocks` are rows that are cheap to read together; `digest` is of the file's bytes."""

    path: Path
    blocks: tuple[int, ...]
    digest: str

    def row(self, number: int) -> Row: ...


class Rows:
    """The rows of several files, one after the other."""

    def __init__(self, files: Sequence[_File], columns: Sequence[str] | None) -> None:
        self._files = tuple(files)
        self._columns = None if columns is None else tuple(columns)

    def __len__(self) -> int:
        return sum(sum(file.blocks) for file in self._files)

    @property
    def blocks(self) -> tuple[int, ...]:
        """Rows that are cheap to read together; one block where every row is."""
        if all(isinstance(file, JsonlFile) for file in self._files):
            return (len(self),)
        return tuple(block for file in self._files for block in file.blocks)

    @property
    def digest(self) -> str:
        """Of the bytes of all files, in order."""
        return hashlib.blake2b("".join(f.digest for f in self._files).encode(), digest_size=16).hexdigest()

    def row(self, number: int) -> Row:
        """Row `number`, counted over all files. Raises DataError that names file and row, IndexError past the end."""
        file, place = self._find(number)
        return _selected(file.row(place), self._columns, self.place(number))

    def place(self, number: int) -> str:
        """Where row `number` stands, for a message: its file, and its number there."""
        file, place = self._find(number)
        return f"{file.path}: row {place + 1}"

    def _find(self, number: int) -> tuple[_File, int]:
        place = number
        for file in self._files:
            if 0 <= place < sum(file.blocks):
                return file, place
            place -= sum(file.blocks)
        raise IndexError(number)


def open_rows(paths: Sequence[Path], columns: Sequence[str] | None = None) -> Rows:
    """The rows of `paths` (.jsonl or .parquet). Raises DataError for a file that cannot be read or has no rows."""
    files: list[_File] = []
    for path in paths:
        match path.suffix:
            case ".jsonl":
                file: _File = JsonlFile(path)
            case ".parquet":
                file = ParquetFile(path, columns)
            case other:
                raise DataError(
                    f"{path}: {other or 'a name without an ending'} is no kind of data: use .jsonl or .parquet"
                )
        if not sum(file.blocks):
            raise DataError(f"{path}: it holds no row")
        files.append(file)
    return Rows(files, columns)


class JsonlFile:
    """One JSON object a line; blank lines are left out."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._starts = array("q")
        digest, start = hashlib.blake2b(digest_size=16), 0
        for line in _lines(path):
            digest.update(line)
            if line.strip():
                self._starts.append(start)
            start += len(line)
        self._size = start
        self.blocks: tuple[int, ...] = (len(self._starts),)
        self.digest = digest.hexdigest()
        self._descriptor: int | None = None

    def row(self, number: int) -> Row:
        """See `Rows.row`."""
        start = self._starts[number]
        end = self._starts[number + 1] if number + 1 < len(self._starts) else self._size
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        text = os.pread(self._descriptor, end - start, start)
        return _json_row(text, f"{self.path}: row {number + 1}")


def _json_row(text: bytes, place: str) -> Row:
    try:
        row = json.loads(text)
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{place} holds half of a surrogate pair, which is no text") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{place} is no JSON: {' '.join(str(error).split())}") from error
    if not isinstance(row, dict):
        raise DataError(f"{place} is no JSON object of columns")
    return row


def _selected(row: Row, columns: Sequence[str] | None, place: str) -> Row:
    """The row with `columns` alone, all of them without."""
    if columns is None:
        return row
    missing = [name for name in columns if name not in row]
    if missing:
        raise DataError(f"{place}: no column {missing[0]!r}; it has {', '.join(sorted(row))}")
    return {name: row[name] for name in columns}


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with open(path, "rb") as stream:
            while line := stream.readline(LONGEST_LINE + 1):
                if len(line) > LONGEST_LINE:
                    raise DataError(f"{path}: a line is longer than {LONGEST_LINE} bytes; a row is one line of JSON")
                yield line
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from error


class ParquetFile:
    """Rows of a parquet file; the row groups last used are kept."""

    def __init__(self, path: Path, columns: Sequence[str] | None = None) -> None:
        try:
            import pyarrow as arrow
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise DataError(f"{path}: reading parquet needs pyarrow: pip install 'trace-dsl[data]'") from error
        self.path = path
        digest = hashlib.blake2b(digest_size=16)
        try:
            with open(path, "rb") as stream:
                while piece := stream.read(1 << 20):
                    digest.update(piece)
            self._file = parquet.ParquetFile(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {(error.strerror or str(error)).lower()}") from error
        except arrow.ArrowException as error:
            raise DataError(f"{path}: is no parquet file: {' '.join(str(error).split())[:200]}") from error
        self.digest = digest.hexdigest()
        metadata = self._file.metadata
        self.blocks = tuple(metadata.row_group(group).num_rows for group in range(metadata.num_row_groups))
        names = self._file.schema_arrow.names
        self._columns = names if columns is None else [name for name in names if name in columns]
        self._errors = (arrow.ArrowException, OSError)
        self._group = lru_cache(maxsize=2)(self._read_group)

    def row(self, number: int) -> Row:
        """See `Rows.row`."""
        group, inside = 0, number
        while inside >= self.blocks[group]:
            inside -= self.blocks[group]
            group += 1
        row = {name: column[inside].as_py() for name, column in self._group(group).items()}
        for name, value in row.items():
            _check_json(value, f"{self.path}: row {number + 1}: column {name!r}")
        return row

    def _read_group(self, group: int) -> dict[str, Any]:
        try:
            table = self._file.read_row_group(group, columns=self._columns)
        except self._errors as error:
            raise DataError(
                f"{self.path}: row group {group} cannot be read: {' '.join(str(error).split())[:200]}"
            ) from error
        return dict(zip(table.column_names, table.columns, strict=True))


def _check_json(value: Any, place: str) -> None:
    """Refuse what a verifier in another process could not be given."""
    try:
        json.dumps(value)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{place} holds a {type(value).__name__}, which is no JSON value; leave it out of data.columns"
        ) from error


def first_row(path: Path, columns: Sequence[str] | None = None) -> Row:
    """The first row of a file, without reading the rest of a JSONL file. Raises DataError."""
    if path.suffix != ".jsonl":
        return open_rows([path], columns).row(0)
    for line in _lines(path):
        if line.strip():
            break
    else:
        raise DataError(f"{path}: it holds no row")
    return _selected(_json_row(line, f"{path}: row 1"), columns, f"{path}: row 1")
