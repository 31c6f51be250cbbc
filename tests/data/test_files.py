"""Rows of JSONL and parquet files: by number, as they stand, with clear errors."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Any

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from megatron_bridge.data import DataError, open_rows
from megatron_bridge.data.files import first_row

ROWS = [{"question": f"q{n} 漢", "answer": n, "list": [n, None]} for n in range(25)]


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows), encoding="utf-8")
    return path


def test_rows_are_those_of_the_files_in_order(tmp_path: Path) -> None:
    one, two = jsonl(tmp_path / "a.jsonl", ROWS[:10]), tmp_path / "b.parquet"
    parquet.write_table(arrow.Table.from_pylist(ROWS[10:]), two, row_group_size=4)
    rows = open_rows([one, two])
    assert [rows.row(n) for n in range(len(rows))] == ROWS
    assert [rows.row(n) for n in reversed(range(len(rows)))] == ROWS[::-1]
    assert rows.blocks == (10, 4, 4, 4, 3)
    assert open_rows([one]).blocks == (10,)
    for number in (25, -1):
        with pytest.raises(IndexError):
            rows.row(number)
    assert first_row(one) == ROWS[0]
    assert first_row(two) == ROWS[10]
    assert open_rows([one], ["answer"]).row(3) == {"answer": 3}


def test_lines_as_people_leave_them(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'\n{"a": 1}\r\n  \n\n{"a": 2}')
    rows = open_rows([path])
    assert [rows.row(n) for n in range(len(rows))] == [{"a": 1}, {"a": 2}]


def test_the_digest_is_of_the_bytes_and_their_order(tmp_path: Path) -> None:
    one, two = jsonl(tmp_path / "a.jsonl", ROWS[:3]), jsonl(tmp_path / "b.jsonl", ROWS[3:6])
    digests = {open_rows(paths).digest for paths in ([one], [two], [one, two], [two, one])}
    assert len(digests) == 4
    before = open_rows([one]).digest
    assert open_rows([one]).digest == before
    one.write_text(one.read_text().replace("q1", "q2"))
    assert open_rows([one]).digest != before


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "a.jsonl: it holds no row"),
        ("a.jsonl", b'{"a": 1}\n{"a": \n', "a.jsonl: row 2 is no JSON: Expecting value"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', "a.jsonl: row 2 is no JSON object of columns"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', "a.jsonl: row 2 is no JSON: 'utf-8' codec can't decode byte 0xff"),
        ("a.jsonl", b'{"a": 1}\n{"a": "\\ud800"}\n', "a.jsonl: row 2 holds half of a surrogate pair"),
        ("a.jsonl", b'{"a": 1}\n' + b"[" * 100_000 + b"\n", "a.jsonl: row 2 is no JSON"),
        ("a.csv", b"a\n1\n", r"a.csv: .csv is no kind of data: use .jsonl or .parquet"),
        ("a.parquet", b"not parquet", "a.parquet: is no parquet file"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_rows([tmp_path / name]).row(1)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for name in ("gone.jsonl", "gone.parquet"):
        with pytest.raises(DataError, match=f"{name}: cannot be read: no such file"):
            open_rows([tmp_path / name])


def test_columns_that_are_missing_or_no_json(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(arrow.table({"day": [datetime.date(2026, 1, 1)], "n": [1]}), path)
    with pytest.raises(DataError, match=r"row 1: column 'day' holds a date, which is no JSON value; leave it out of"):
        open_rows([path]).row(0)
    assert open_rows([path], ["n"]).row(0) == {"n": 1}
    with pytest.raises(DataError, match="row 1: no column 'm'; it has n"):
        open_rows([path], ["n", "m"]).row(0)


def test_a_damaged_row_group(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = arrow.table({"a": [f"text {n}" * 50 for n in range(100)]})
    parquet.write_table(table, path, compression="snappy", use_dictionary=False)
    whole = bytearray(path.read_bytes())
    whole[4 : len(whole) // 2] = bytes(len(whole) // 2 - 4)
    path.write_bytes(whole)
    with pytest.raises(DataError, match="row group 0 cannot be read"):
        open_rows([path]).row(0)
