"""Feather files (Arrow's table format on disk), through pyarrow: columns as numpy arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.formats.optional import import_extra

__all__ = ["read_feather", "write_feather"]


def read_feather(path: str | Path, columns: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Some columns of a table, each ``(N,)`` in the file's own type (texts as Python strings).

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if pyarrow is not installed.
        ValueError: for a damaged file or a missing column.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"feather: {path} does not exist.")
    feather = import_extra("pyarrow.feather", "parquet", ".feather files")
    arrow = import_extra("pyarrow", "parquet", ".feather files")
    try:
        # One thread: data workers are many already.
        table = feather.read_table(str(path), use_threads=False)
    except (arrow.ArrowException, OSError) as error:
        raise ValueError(f"{path}: not a readable Feather file ({error}). It may be cut off: copy it again.") from error
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise ValueError(
            f"{path}: no column {', '.join(missing)}; the file has {', '.join(table.column_names) or 'none'}. Is it of "
            "another data set?"
        )
    return {name: np.asarray(table[name].to_numpy(zero_copy_only=False)) for name in columns}


def write_feather(path: str | Path, columns: Mapping[str, NDArray[Any]]) -> None:
    """Write a table; columns keep their numpy types.

    Raises:
        ImportError: if pyarrow is not installed.
    """
    feather = import_extra("pyarrow.feather", "parquet", ".feather files")
    arrow = import_extra("pyarrow", "parquet", ".feather files")
    feather.write_feather(arrow.table(dict(columns)), str(path))
