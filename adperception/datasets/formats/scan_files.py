"""Reading a scan that nobody described: whatever a sensor, a ROS export or a colleague left, for a model's channels.

Every conclusion is said in a sentence. What cannot be concluded is an error that names the option to give.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.formats.las import read_las
from adperception.datasets.formats.pcd import read_pcd
from adperception.datasets.formats.ply import read_ply
from adperception.datasets.formats.point_files import POINT_SUFFIXES, drop_non_finite, read_points
from adperception.structures import PointCloud

__all__ = ["Scan", "fit_channels", "read_scan"]

# What other programs call a channel.
_ALIASES = {
    "intensity": ("i", "intensities", "reflectance", "reflectivity", "remission", "signal", "strength"),
}
_WIDTHS = range(3, 9)
_SAMPLE = 200_000
_CLEARLY = 0.1
"""Nats that another record width must explain better."""


@dataclass(frozen=True)
class Scan:
    """A scan as a model wants it.

    Attributes:
        cloud: finite points with the model's channels, intensity in 0..1.
        reading: one line that says how the file was read.
    """

    cloud: PointCloud
    reading: str


def read_scan(
    source: str | Path,
    wanted: Sequence[str],
    *,
    channels: Sequence[str] | None = None,
    intensity_max: float | None = None,
    fill_missing: float | None = None,
) -> Scan:
    """Read a point-cloud file for a model.

    Args:
        source: a ``.bin .npy .npz .pcd .ply .las .laz`` file.
        wanted: channels that the model reads.
        channels: what a file without named columns holds per point; ``None``: the model's channels.
        intensity_max, fill_missing: see ``fit_channels``.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if the library for ``.ply`` or ``.las`` files is not installed.
        ValueError: if the file is damaged, does not hold the declared channels, or lacks one that the model reads.
    """
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no scan here.")
    suffix = path.suffix.lower()
    if suffix not in POINT_SUFFIXES:
        raise ValueError(f'{path}: "{path.suffix}" files cannot be read; known are {", ".join(POINT_SUFFIXES)}.')
    columns = _named_columns(path, suffix)
    if columns is None:
        declared = tuple(channels if channels is not None else wanted)
        if channels is None and suffix == ".bin":
            _check_record_width(path, declared)
        cloud = read_points(path, declared)
    else:
        present = tuple(name for name in columns if columns[name].dtype.kind in "iufb")
        kept = ("x", "y", "z", *(n for n in present if n in wanted or any(n in _ALIASES.get(w, ()) for w in wanted)))
        cloud = read_points(path, tuple(dict.fromkeys(kept)))
    return fit_channels(cloud, wanted, str(path), intensity_max=intensity_max, fill_missing=fill_missing)


def fit_channels(
    cloud: PointCloud,
    wanted: Sequence[str],
    origin: str,
    *,
    intensity_max: float | None = None,
    fill_missing: float | None = None,
) -> Scan:
    """Bring a cloud into the form that a model reads.

    Args:
        cloud: any channels, intensity in any scale.
        wanted: channels that the model reads.
        origin: where it comes from, for messages.
        intensity_max: the largest value that intensity can have there; ``None``: concluded from the values.
        fill_missing: value for channels that the cloud lacks; ``None`` refuses such a cloud.

    Raises:
        ValueError: if a channel is missing and not to be filled, or intensities have no known scale.
    """
    cloud, dropped = drop_non_finite(cloud)
    columns: list[NDArray[np.float32]] = []
    filled: list[str] = []
    remarks = [f"{dropped:,} with NaN or infinity dropped"] if dropped else []
    for name in wanted:
        source = _find(cloud.channels, name)
        if source is not None:
            column = cloud.points[:, cloud.channels.index(source)]
            if source != name:
                remarks.append(f'"{source}" taken as {name}')
            if name == "intensity":
                column, remark = _rescale(column, intensity_max, origin)
                remarks += [remark] if remark else []
            columns.append(column)
        elif fill_missing is None:
            raise ValueError(
                f"{origin}: has the channels {', '.join(cloud.channels)}, but the model reads {', '.join(wanted)}: no "
                f"{name}. --fill-missing 0 puts zeros there (expect fewer detections: the model learnt from real "
                "values), --channels says what a file without named columns holds."
            )
        else:
            columns.append(np.full(len(cloud), fill_missing, dtype=np.float32))
            filled.append(name)
    if filled:
        remarks.append(f"no {', '.join(filled)} in the file: filled with {fill_missing:g}")
    reading = f"read {len(cloud):,} points, channels {' '.join(cloud.channels)}"
    points = np.stack(columns, axis=1) if len(cloud) else np.zeros((0, len(wanted)), dtype=np.float32)
    return Scan(
        PointCloud(np.ascontiguousarray(points, dtype=np.float32), tuple(wanted)), "; ".join([reading, *remarks])
    )


def _named_columns(path: Path, suffix: str) -> Mapping[str, NDArray[np.generic]] | None:
    """The columns of a file that names them; ``None`` for one that does not."""
    if suffix == ".pcd":
        return read_pcd(path)
    if suffix == ".ply":
        return read_ply(path)
    if suffix in (".las", ".laz"):
        return read_las(path)
    if suffix == ".npy":
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError):
            return None  # the reader of arrays says what is wrong
        if array.dtype.names:
            return {name: array[name].ravel() for name in array.dtype.names}
    return None


def _find(channels: Sequence[str], name: str) -> str | None:
    return next((candidate for candidate in (name, *_ALIASES.get(name, ())) if candidate in channels), None)


def _rescale(
    column: NDArray[np.float32], intensity_max: float | None, origin: str
) -> tuple[NDArray[np.float32], str | None]:
    """Intensity in 0..1, and what was done."""
    low, high = (round(float(f(column)), 2) for f in (np.min, np.max)) if len(column) else (0.0, 0.0)
    if intensity_max is None:
        if low < -1e-3:
            raise ValueError(
                f"{origin}: intensity spans {low:g}…{high:g}, but a model expects 0…1. Shift and scale it before."
            )
        intensity_max = next((m for m in (1.0, 255.0, 65535.0) if high <= m * 1.001), 0.0)
        if not intensity_max:
            raise ValueError(
                f"{origin}: intensity reaches {high:g}, which is no known scale. Give --intensity-max the largest "
                "value that the sensor can give."
            )
    if intensity_max == 1.0:
        return column, None
    action = f"intensity spans {low:g}…{high:g}, model expects 0…1: dividing by {intensity_max:g}"
    return column / np.float32(intensity_max), action


def _check_record_width(path: Path, assumed: tuple[str, ...]) -> None:
    """Refuse a raw file whose numbers fall into columns much better at another width than the assumed one."""
    values = np.fromfile(path, dtype="<f4", count=_SAMPLE)
    size = path.stat().st_size
    order = {width: _column_information(values, width) for width in _WIDTHS if size % (4 * width) == 0}
    if len(values) < _SAMPLE // 100 or not order:
        return
    # Two points side by side are columns as well: the narrowest of equals.
    best = next(width for width in sorted(order) if order[width] > 0.9 * max(order.values()))
    if best != len(assumed) and order[best] > order.get(len(assumed), 0.0) + _CLEARLY:
        raise ValueError(
            f"{path}: looks like {best} values per point, but the model reads {len(assumed)} ({' '.join(assumed)}). "
            f"Say what the file holds, e.g. --channels {' '.join([*assumed, 'ring', 'time', 'a', 'b', 'c'][:best])}."
        )


def _column_information(values: NDArray[np.float32], width: int) -> float:
    """How much (in nats) the column of a number says about its value, in rows of ``width`` numbers.

    At the right width each channel has its own distribution; at a wrong one every column mixes all channels.
    """
    rows = values[: len(values) // width * width].reshape(-1, width)
    logarithms = np.sign(rows) * np.log1p(20 * np.abs(np.nan_to_num(rows, posinf=0, neginf=0)))
    bins = np.clip((logarithms * 4).astype(np.int64) + 40, 0, 79)
    counts = np.stack([np.bincount(bins[:, column], minlength=80) for column in range(width)])
    share = counts / max(1, counts.sum())
    independent = share.sum(axis=1, keepdims=True) * share.sum(axis=0, keepdims=True)
    filled = share > 0
    return float((share[filled] * np.log(share[filled] / independent[filled])).sum())
