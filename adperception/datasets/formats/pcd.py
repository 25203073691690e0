"""PCD point-cloud files (version 0.7): ascii, binary and binary_compressed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.formats.lzf import decompress_lzf

__all__ = ["read_pcd"]

_TYPES = {
    **{("F", 4): "<f4", ("F", 8): "<f8", ("I", 1): "<i1", ("I", 2): "<i2", ("I", 4): "<i4", ("I", 8): "<i8"},
    **{("U", 1): "<u1", ("U", 2): "<u2", ("U", 4): "<u4", ("U", 8): "<u8"},
}


@dataclass(frozen=True)
class _Header:
    """What a PCD header says; ``dtypes`` and ``counts`` go with ``fields``."""

    fields: tuple[str, ...]
    dtypes: tuple[np.dtype[np.generic], ...]
    counts: tuple[int, ...]
    num_points: int
    encoding: str
    size: int
    """Bytes of the header itself."""

    @property
    def bytes_per_point(self) -> int:
        return sum(t.itemsize * c for t, c in zip(self.dtypes, self.counts, strict=True))


def read_pcd(path: str | Path) -> dict[str, NDArray[np.generic]]:
    """Columns of a PCD file by (lower-case) field name, each ``(N,)`` in the file's own type.

    Organised clouds (height above 1) come row by row. Fields with more than one value per point are left out.

    Raises:
        ValueError: for a header that cannot be understood or data of another size than it announces.
    """
    path = Path(path)
    data = path.read_bytes()
    header = _read_header(data, path)
    body = data[header.size :]
    if header.encoding == "ascii":
        columns = _read_ascii(body, header, path)
    elif header.encoding == "binary":
        columns = _read_binary(body, header, path)
    else:
        columns = _read_compressed(body, header, path)
    return {
        name: column
        for name, column, count in zip(header.fields, columns, header.counts, strict=True)
        if count == 1 and name != "_"  # "_" is padding
    }


def _read_header(data: bytes, path: Path) -> _Header:
    entries: dict[str, list[str]] = {}
    position = 0
    while "DATA" not in entries:
        end = data.find(b"\n", position)
        if end < 0 or position > 65536:
            raise ValueError(f"{path}: not a PCD file: no DATA line in its header.")
        words = data[position:end].decode("utf-8", errors="replace").split()
        position = end + 1
        if words and not words[0].startswith("#"):
            entries[words[0]] = words[1:]
    try:
        fields = tuple(name.lower() for name in entries["FIELDS"])
        sizes = [int(s) for s in entries["SIZE"]]
        dtypes = tuple(np.dtype(_TYPES[key]) for key in zip(entries["TYPE"], sizes, strict=True))
        counts = tuple(int(c) for c in entries.get("COUNT", ["1"] * len(fields)))
        points = entries.get("POINTS") or [str(int(entries["WIDTH"][0]) * int(entries["HEIGHT"][0]))]
        header = _Header(fields, dtypes, counts, int(points[0]), entries["DATA"][0].lower(), position)
    except (KeyError, ValueError, IndexError) as error:
        raise ValueError(f"{path}: the PCD header is incomplete or contradicts itself (at {error}).") from error
    if header.encoding not in ("ascii", "binary", "binary_compressed") or not (
        len(fields) == len(dtypes) == len(counts)
    ):
        raise ValueError(
            f"{path}: the PCD header has {len(fields)} fields, {len(dtypes)} types, {len(counts)} counts and the "
            f'encoding "{header.encoding}" (known: ascii, binary, binary_compressed).'
        )
    return header


def _require(actual: int, expected: int, header: _Header, path: Path) -> None:
    if actual < expected:
        raise ValueError(
            f"{path}: {actual:,} bytes of data, but {header.num_points:,} points need {expected:,}: the file was cut "
            "off. Copy it again."
        )


def _read_ascii(body: bytes, header: _Header, path: Path) -> list[NDArray[np.generic]]:
    width = sum(header.counts)
    try:
        values = np.array(body.split(), dtype=np.float64)
    except ValueError as error:
        raise ValueError(f"{path}: something in the ascii data is not a number ({error}).") from error
    if values.size != header.num_points * width:
        raise ValueError(
            f"{path}: {values.size:,} numbers, but {header.num_points:,} points of {width} need "
            f"{header.num_points * width:,}: the file was cut off. Copy it again."
        )
    table = values.reshape(header.num_points, width)
    starts = np.cumsum([0, *header.counts])
    return [table[:, start] for start in starts[:-1]]


def _read_binary(body: bytes, header: _Header, path: Path) -> list[NDArray[np.generic]]:
    expected = header.bytes_per_point * header.num_points
    _require(len(body), expected, header, path)
    record = np.dtype([(f"f{i}", t, (c,)) for i, (t, c) in enumerate(zip(header.dtypes, header.counts, strict=True))])
    table = np.frombuffer(body, dtype=record, count=header.num_points)
    return [table[f"f{i}"][:, 0] for i in range(len(header.fields))]


def _read_compressed(body: bytes, header: _Header, path: Path) -> list[NDArray[np.generic]]:
    _require(len(body), 8, header, path)
    compressed, size = (int(v) for v in np.frombuffer(body, dtype="<u4", count=2))
    _require(len(body) - 8, compressed, header, path)
    try:
        raw = decompress_lzf(body[8 : 8 + compressed], size)
    except ValueError as error:
        raise ValueError(f"{path}: {error} The file is damaged; copy it again.") from error
    _require(len(raw), header.bytes_per_point * header.num_points, header, path)
    columns: list[NDArray[np.generic]] = []
    position = 0
    for dtype, count in zip(header.dtypes, header.counts, strict=True):  # column after column, not point after point
        values = np.frombuffer(raw, dtype=dtype, count=header.num_points * count, offset=position)
        columns.append(values.reshape(header.num_points, count)[:, 0])
        position += values.nbytes
    return columns
