"""Tables of radar objects: one row per object, as CSV with a header line or as JSON lines.

Columns ``frame, class, range_m, azimuth_deg, velocity_mps`` (azimuth grows with the azimuth column, approaching is
positive), optionally the full extents ``range_size_m, azimuth_size_deg, velocity_size_mps``; others are ignored. A row
with nothing but a frame says that the frame was labelled and has no object.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adperception.datasets.formats.table_rows import read_rows
from adperception.structures import RadarGrid, RadarObjects

__all__ = ["read_radar_objects"]

_PLACE = ("range_m", "azimuth_deg", "velocity_mps")
_SIZE = ("range_size_m", "azimuth_size_deg", "velocity_size_mps")
_REQUIRED = ("frame", "class", *_PLACE)


def read_radar_objects(path: Path, class_names: Sequence[str], grid: RadarGrid) -> dict[str, RadarObjects]:
    """The objects of every frame that the table names, in cube coordinates; velocities wrap around as they do in cubes.

    Args:
        path: a ``.csv`` or ``.jsonl`` file.
        class_names: the classes that may occur; class id c is ``class_names[c - 1]``.
        grid: the cells.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a missing column, a value that is no number or beyond the cube, an unknown class; with file,
            line and fix.
    """
    rows: dict[str, list[tuple[int, list[float], list[float]]]] = {}
    for line, row in read_rows(path, _REQUIRED):
        place = f"{path}:{line}"
        frame = row.get("frame")
        if not isinstance(frame, str) or not frame.strip():
            raise ValueError(f"{place}: frame is {frame!r}. Give SEQUENCE/FRAME, without the suffix of the file.")
        of_frame = rows.setdefault(frame, [])
        if any(row.get(name) not in (None, "") for name in _REQUIRED[1:]):
            of_frame.append(_parse(row, class_names, grid, place))
    return {frame: _objects(found) for frame, found in rows.items()}


def _parse(
    row: Mapping[str, Any], class_names: Sequence[str], grid: RadarGrid, place: str
) -> tuple[int, list[float], list[float]]:
    """Class id, centre and size in cells."""
    name = str(row.get("class", "")).strip()
    if name not in class_names:
        raise ValueError(f"{place}: class {name!r} is not one of class_names ({', '.join(class_names)}).")
    range_m, azimuth, velocity = (_number(row, key, place) for key in _PLACE)
    if not 0 <= range_m <= grid.range_m(0):
        raise ValueError(f"{place}: range_m={range_m:g} is not within the cube's 0 to {float(grid.range_m(0)):g} m.")
    if not -90 <= azimuth <= 90:
        raise ValueError(f"{place}: azimuth_deg={azimuth:g} is not within -90 and 90 degrees from straight ahead.")
    sizes = [_number(row, key, place) if row.get(key) not in (None, "") else 0.0 for key in _SIZE]
    if min(sizes) < 0:
        raise ValueError(f"{place}: {', '.join(_SIZE)} must not be negative.")
    half = sizes[1] / 2
    columns = grid.azimuth_column(min(azimuth + half, 90)) - grid.azimuth_column(max(azimuth - half, -90))
    column = float(grid.azimuth_column(azimuth)) % grid.azimuth_bins
    centre = [float(grid.row(range_m)), column, float(grid.doppler_column(velocity))]
    extent = [sizes[0] / grid.range_bin_m, float(columns), sizes[2] / grid.doppler_bin_mps]
    return class_names.index(name) + 1, centre, extent


def _number(row: Mapping[str, Any], key: str, place: str) -> float:
    text = row.get(key)
    try:
        if text is None or isinstance(text, bool):
            raise ValueError
        value = float(text)
    except (TypeError, ValueError):
        raise ValueError(f"{place}: {key} is {text!r}, not a number. Every object needs {', '.join(_PLACE)}.") from None
    if not math.isfinite(value):
        raise ValueError(f"{place}: {key}={value} is not finite. Correct the object or remove the row.")
    return value


def _objects(rows: Sequence[tuple[int, list[float], list[float]]]) -> RadarObjects:
    if not rows:
        return RadarObjects.empty()
    return RadarObjects(
        np.array([centre for _, centre, _ in rows], dtype=np.float32),
        np.array([extent for _, _, extent in rows], dtype=np.float32),
        np.array([class_id for class_id, _, _ in rows], dtype=np.int64),
        np.ones(len(rows), dtype=np.float32),
    )
