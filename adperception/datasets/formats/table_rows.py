"""Rows of label tables: CSV with a header line, or JSON lines."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

__all__ = ["TABLE_SUFFIXES", "read_rows"]

TABLE_SUFFIXES = (".csv", ".jsonl")


def read_rows(path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number (from 1) and columns of every row.

    Args:
        path: a ``.csv`` or ``.jsonl`` file.
        required: columns that the header of a CSV file must name.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for another suffix, a missing column, or a line that is not readable; with file, line and fix.
    """
    if path.suffix not in TABLE_SUFFIXES:
        raise ValueError(f'label table: {path}: "{path.suffix}" is not known; use {" or ".join(TABLE_SUFFIXES)}.')
    if not path.is_file():
        raise FileNotFoundError(f"label table: {path} does not exist.")
    yield from _read_csv(path, required) if path.suffix == ".csv" else _read_json_lines(path)


def _read_csv(path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            header = [name.strip() for name in next(reader, [])]
            missing = [name for name in required if name not in header]
            if missing or len(set(header)) < len(header):
                problem = f"no column {', '.join(missing)}" if missing else "a column twice"
                raise ValueError(
                    f"{path}:1: the header has {problem}; it reads: {', '.join(header)[:200] or '(nothing)'}. The "
                    f"first line must name the columns, separated by commas: {','.join(required)}"
                )
            for row in reader:
                if not row:
                    continue
                if len(row) != len(header):
                    raise ValueError(
                        f"{path}:{reader.line_num}: {len(row)} values, but the header names {len(header)} columns. Was "
                        "the file cut off? Correct the line or remove it."
                    )
                yield reader.line_num, {k: v.strip() for k, v in zip(header, row, strict=True)}
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(
                f"{path}:{reader.line_num + 1}: not readable as CSV ({error}). Write comma-separated UTF-8 text."
            ) from error


def _read_json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise ValueError(
                    f"{path}:{number}: not a JSON object on a line of its own ({error}). Was the file cut off? Correct "
                    "the line or remove it."
                ) from error
            if not isinstance(row, dict):
                raise ValueError(f"{path}:{number}: a {type(row).__name__} where an object of columns is wanted.")
            yield number, row
