"""Point-cloud files: ``.bin`` (float32 records, as KITTI), ``.npy .npz .pcd .ply .las .laz``, read as typed clouds."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.formats.las import read_las
from adperception.datasets.formats.pcd import read_pcd
from adperception.datasets.formats.ply import read_ply
from adperception.structures import XYZI, PointCloud

__all__ = ["POINT_SUFFIXES", "drop_non_finite", "read_points", "read_points_with_notes", "write_bin"]

POINT_SUFFIXES = (".bin", ".npy", ".npz", ".pcd", ".ply", ".las", ".laz")
_FARTHEST_M = 1e5  # no LiDAR sees 100 km, and float32 resolves but 8 mm there


def read_points(path: str | Path, channels: Sequence[str] = XYZI, field: str | None = None) -> PointCloud:
    """The finite points of a file (see ``read_points_with_notes``, which also says what was dropped)."""
    return read_points_with_notes(path, channels, field)[0]


def read_points_with_notes(
    path: str | Path, channels: Sequence[str] = XYZI, field: str | None = None
) -> tuple[PointCloud, tuple[str, ...]]:
    """The points of a file without those that hold NaN or infinity, and a remark if there were any.

    Args:
        path: ``.bin`` (float32, one record of ``len(channels)`` values per point), ``.npy`` (``(N, C)`` numbers, or a
            structured array with named columns), ``.npz`` (one such array, see ``field``), ``.pcd``, ``.ply``, ``.las``
            or ``.laz`` (columns are taken by name).
        channels: names of the channels, starting with ``x, y, z``. A ``.bin`` or a plain array must have exactly these;
            of named columns others are left out.
        field: name of the array in a ``.npz`` file; ``None`` takes the only one.

    Returns:
        The cloud in float32, in file order, and zero or one sentences for ``LidarFrame.notes``.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if the library for ``.ply`` or ``.las`` files is not installed.
        ValueError: for an unknown suffix, a truncated file, channels that the file does not have, or (named columns)
            positions in a map's coordinates instead of the sensor's.
    """
    path, channels = Path(path), tuple(channels)
    if not path.is_file():
        raise FileNotFoundError(f"points: {path} does not exist.")
    suffix = path.suffix.lower()
    if suffix == ".bin":
        points = _read_bin(path, channels)
    elif suffix in (".npy", ".npz"):
        points = _read_array(path, channels, field)
    elif suffix in _COLUMN_READERS:
        points = _from_columns(_COLUMN_READERS[suffix](path), channels, path)
    else:
        raise ValueError(f'{path}: "{path.suffix}" files cannot be read; known are {", ".join(POINT_SUFFIXES)}.')
    cloud, dropped = drop_non_finite(PointCloud(points, channels))
    notes = (f"{dropped:,} of {len(points):,} points hold NaN or infinity and were dropped.",) if dropped else ()
    return cloud, notes


def drop_non_finite(cloud: PointCloud) -> tuple[PointCloud, int]:
    """The cloud without points that hold NaN or infinity in any channel, and how many these were."""
    numbers = np.isfinite(cloud.points)
    if numbers.all():  # nearly always, and far quicker than asking row by row
        return cloud, 0
    finite = np.asarray(numbers.all(axis=1))
    return cloud.select(finite), len(cloud) - int(np.count_nonzero(finite))


def write_bin(path: str | Path, cloud: PointCloud) -> None:
    """Write a cloud as little-endian float32 records, KITTI's ``.bin`` form."""
    Path(path).write_bytes(np.ascontiguousarray(cloud.points, dtype="<f4").tobytes())


def _read_bin(path: Path, channels: tuple[str, ...]) -> NDArray[np.float32]:
    size, record = path.stat().st_size, 4 * len(channels)
    if size % record:
        raise ValueError(
            f"{path}: {size:,} bytes are not a whole number of points of {record} bytes ({len(channels)} float32: "
            f"{', '.join(channels)}); {size % record} bytes are left after {size // record:,} points. The file was cut "
            "off, or it has other channels: copy it again, or declare the channels that it really has."
        )
    return np.fromfile(path, dtype="<f4").astype(np.float32, copy=False).reshape(-1, len(channels))


def _read_array(path: Path, channels: tuple[str, ...], field: str | None) -> NDArray[np.float32]:
    try:
        content = np.load(path, allow_pickle=False)
        if isinstance(content, np.ndarray):
            array = content
        else:
            with content:
                array = content[_choose_field(content.files, field)]
    except (ValueError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        reason = error.args[0] if isinstance(error, KeyError) else error  # a KeyError prints itself in quotes
        if "pickle" in str(error):  # numpy would advise to allow it
            reason = "it is no array file, or holds Python objects, which are never loaded; write it with numpy.save"
        raise ValueError(f"{path}: not a readable array of numbers ({reason}).") from error
    if array.dtype.names:
        return _from_columns({name: array[name].ravel() for name in array.dtype.names}, channels, path)
    if array.ndim != 2 or array.shape[1] != len(channels):
        raise ValueError(
            f"{path}: the array has shape {array.shape}, but {len(channels)} channels are declared "
            f"({', '.join(channels)}): expected (N, {len(channels)}). Declare the channels that the file really has."
        )
    return np.ascontiguousarray(array, dtype=np.float32)


def _choose_field(fields: Sequence[str], field: str | None) -> str:
    if field is None and len(fields) == 1:
        return fields[0]
    if field is None or field not in fields:
        wanted = "none is named" if field is None else f'field="{field}" is none of them'
        raise KeyError(f"it holds the arrays {', '.join(fields) or '(none)'}, and {wanted}: name one with field=")
    return field


def _from_columns(columns: Mapping[str, NDArray[Any]], channels: tuple[str, ...], path: Path) -> NDArray[np.float32]:
    missing = [name for name in channels if name not in columns]
    if missing:
        raise ValueError(
            f"{path}: declared channels are {', '.join(channels)}, but the file has {', '.join(columns)}: no "
            f"{', '.join(missing)}. Declare the channels that the file really has."
        )
    for name in ("x", "y", "z"):
        farthest = np.abs(columns[name], where=np.isfinite(columns[name]), out=np.zeros(len(columns[name]))).max(
            initial=0
        )
        if farthest > _FARTHEST_M:
            raise ValueError(
                f"{path}: {name} reaches {farthest:,.0f} m. That is a position on a map, not one seen from a sensor: "
                "subtract the sensor's position (in float64) and write the file again."
            )
    return np.stack([columns[name].astype(np.float32) for name in channels], axis=1)


_COLUMN_READERS: Mapping[str, Callable[[Path], dict[str, NDArray[np.generic]]]] = {
    ".pcd": read_pcd,
    ".ply": read_ply,
    ".las": read_las,
    ".laz": read_las,
}
