"""Point-cloud files: ``.bin`` (float32 records, as KITTI), ``.npy`` and ``.pcd``, read as typed clouds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.formats.pcd import read_pcd
from adperception.structures import XYZI, PointCloud

__all__ = ["POINT_SUFFIXES", "drop_non_finite", "read_points", "read_points_with_notes", "write_bin"]

POINT_SUFFIXES = (".bin", ".npy", ".pcd")


def read_points(path: str | Path, channels: Sequence[str] = XYZI) -> PointCloud:
    """The finite points of a file (see ``read_points_with_notes``, which also says what was dropped)."""
    return read_points_with_notes(path, channels)[0]


def read_points_with_notes(path: str | Path, channels: Sequence[str] = XYZI) -> tuple[PointCloud, tuple[str, ...]]:
    """The points of a file without those that hold NaN or infinity, and a remark if there were any.

    Args:
        path: ``.bin`` (float32, one record of ``len(channels)`` values per point), ``.npy`` (``(N, C)`` numbers, or a
            structured array with named columns) or ``.pcd`` (columns are taken by name).
        channels: names of the channels, starting with ``x, y, z``. A ``.bin`` or plain ``.npy`` file must have exactly
            these; of named columns others are left out.

    Returns:
        The cloud in float32, in file order, and zero or one sentences for ``LidarFrame.notes``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for an unknown suffix, a truncated file, or channels that the file does not have.
    """
    path, channels = Path(path), tuple(channels)
    if not path.is_file():
        raise FileNotFoundError(f"points: {path} does not exist.")
    if path.suffix == ".bin":
        points = _read_bin(path, channels)
    elif path.suffix == ".npy":
        points = _read_npy(path, channels)
    elif path.suffix == ".pcd":
        points = _from_columns(read_pcd(path), channels, path)
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


def _read_npy(path: Path, channels: tuple[str, ...]) -> NDArray[np.float32]:
    try:
        array = np.load(path, allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: not a readable array of numbers ({error}).") from error
    if array.dtype.names:
        return _from_columns({name: array[name].ravel() for name in array.dtype.names}, channels, path)
    if array.ndim != 2 or array.shape[1] != len(channels):
        raise ValueError(
            f"{path}: the array has shape {array.shape}, but {len(channels)} channels are declared "
            f"({', '.join(channels)}): expected (N, {len(channels)}). Declare the channels that the file really has."
        )
    return np.ascontiguousarray(array, dtype=np.float32)


def _from_columns(
    columns: Mapping[str, NDArray[np.generic]], channels: tuple[str, ...], path: Path
) -> NDArray[np.float32]:
    missing = [name for name in channels if name not in columns]
    if missing:
        raise ValueError(
            f"{path}: declared channels are {', '.join(channels)}, but the file has {', '.join(columns)}: no "
            f"{', '.join(missing)}. Declare the channels that the file really has."
        )
    return np.stack([columns[name].astype(np.float32) for name in channels], axis=1)
