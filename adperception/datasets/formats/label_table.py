"""Tables of labelled boxes: one row per box, as CSV with a header line or as JSON lines.

Columns ``frame, name, x, y, z, length, width, height, yaw`` (box centre, metres and radians, LiDAR frame: the package's
convention), optionally ``num_points`` and ``difficulty``; others are ignored. A row with nothing but a frame says that
the frame was labelled and has no object.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.formats.table_rows import TABLE_SUFFIXES, read_rows
from adperception.structures import Boxes3D

__all__ = ["TABLE_SUFFIXES", "LabelTable", "read_label_table", "write_label_table"]

_BOX = ("x", "y", "z", "length", "width", "height", "yaw")
_REQUIRED = ("frame", "name", *_BOX)
_OPTIONAL = ("num_points", "difficulty")
_LARGEST_YAW = 2 * math.pi + 0.01
_LARGEST_M = 1e5


@dataclass(frozen=True)
class LabelTable:
    """M boxes of F frames, ordered by frame; in arrays, which data workers share without copies.

    Attributes:
        frames: F frame names, in order of first appearance.
        lines: ``(F,)`` line of the first row of each frame, counted from 1.
        first: ``(F + 1,)``; the boxes of frame i are ``first[i]`` to ``first[i + 1]``.
        boxes: ``(M, 7)`` float32.
        classes: names of the classes.
        class_numbers: ``(M,)`` int32 positions in ``classes``.
        num_points: ``(M,)`` int64 numbers of points in the boxes as the table states them, -1 where it does not.
        difficulties: ``(M,)`` int32, 0 where the table states none.
    """

    frames: tuple[str, ...]
    lines: NDArray[np.int64]
    first: NDArray[np.int64]
    boxes: NDArray[np.float32]
    classes: tuple[str, ...]
    class_numbers: NDArray[np.int32]
    num_points: NDArray[np.int64]
    difficulties: NDArray[np.int32]

    def rows(self, frame: int) -> slice:
        """Where the boxes of frame number ``frame`` are in the arrays."""
        return slice(int(self.first[frame]), int(self.first[frame + 1]))

    def boxes_of(self, frame: int) -> Boxes3D:
        """The boxes of frame number ``frame``."""
        rows = self.rows(frame)
        return Boxes3D(self.boxes[rows].copy(), tuple(self.classes[c] for c in self.class_numbers[rows]))


def read_label_table(path: str | Path) -> LabelTable:
    """Read a ``.csv`` or ``.jsonl`` table.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for another suffix, a missing column, a value that is no number, a size that is not positive, an
            angle that looks like degrees; with file, line and fix.
    """
    path = Path(path)
    frames: dict[str, int] = {}
    classes: dict[str, int] = {}
    lines: list[int] = []
    owners: list[int] = []
    rows: list[tuple[Any, ...]] = []
    for line, row in read_rows(path, _REQUIRED):
        place = f"{path}:{line}"
        frame = row.get("frame")
        if not isinstance(frame, str) or not frame.strip():
            raise ValueError(f"{place}: frame is {frame!r}. Give the name of the cloud file below the folder.")
        if frame not in frames:
            frames[frame] = len(frames)
            lines.append(line)
        given = [name for name in (*_REQUIRED, *_OPTIONAL) if name != "frame" and row.get(name) not in (None, "")]
        if given:
            owners.append(frames[frame])
            rows.append(_parse_row(row, classes, place))
    order = np.argsort(np.array(owners, dtype=np.int64), kind="stable")
    counts = np.bincount(np.array(owners, dtype=np.int64), minlength=len(frames))
    values = np.array([r[:7] for r in rows], dtype=np.float32).reshape(-1, 7)
    rest = np.array([r[7:] for r in rows], dtype=np.int64).reshape(-1, 3)
    return LabelTable(
        frames=tuple(frames),
        lines=np.array(lines, dtype=np.int64),
        first=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=values[order],
        classes=tuple(classes),
        class_numbers=rest[order, 0].astype(np.int32),
        num_points=rest[order, 1],
        difficulties=rest[order, 2].astype(np.int32),
    )


def write_label_table(
    path: str | Path, frames: Mapping[str, Boxes3D], num_points: Mapping[str, NDArray[np.integer]] | None = None
) -> None:
    """Write a table that ``read_label_table`` reads; numbers keep their float32 value.

    Args:
        path: a ``.csv`` or ``.jsonl`` file.
        frames: boxes by frame name; a frame without boxes gets a row of its own.
        num_points: numbers of points in the boxes, by frame name.

    Raises:
        ValueError: for another suffix.
    """
    path = Path(path)
    if path.suffix not in TABLE_SUFFIXES:
        raise ValueError(f'label table: {path}: "{path.suffix}" is not known; use {" or ".join(TABLE_SUFFIXES)}.')
    rows: list[dict[str, Any]] = []
    for frame, boxes in frames.items():
        if not boxes:
            rows.append({"frame": frame})
        for i, (name, box) in enumerate(zip(boxes.names, boxes.boxes, strict=True)):
            # The shortest decimal that gives the same float32 again.
            row = {"frame": frame, "name": name, **{key: float(str(v)) for key, v in zip(_BOX, box, strict=True)}}
            if num_points is not None:
                row["num_points"] = int(num_points[frame][i])
            rows.append(row)
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        else:
            columns = [*_REQUIRED, *(["num_points"] if num_points is not None else [])]
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def _parse_row(row: Mapping[str, Any], classes: dict[str, int], place: str) -> tuple[Any, ...]:
    """x, y, z, length, width, height, yaw, class number, num_points, difficulty."""
    name = row.get("name")
    if not isinstance(name, str) or not name.strip():
        raise ValueError(f"{place}: name is {name!r}. Every box needs a class name.")
    box = [_number(row, key, place) for key in _BOX]
    for key, value in zip(_BOX[:3], box[:3], strict=True):
        if abs(value) > _LARGEST_M:
            raise ValueError(
                f"{place}: {key}={value:g} m is a position on a map. Boxes are wanted in the LiDAR frame, in metres "
                "from the sensor."
            )
    for key, value in zip(_BOX[3:6], box[3:6], strict=True):
        if value <= 0:
            raise ValueError(f"{place}: {key}={value:g} must be above 0 metres. Correct the box or remove the row.")
    if abs(box[6]) > _LARGEST_YAW:
        raise ValueError(
            f"{place}: yaw={box[6]:g} is not within -2 pi and 2 pi. Angles are in radians, counter-clockwise from +x: "
            "convert degrees with math.radians."
        )
    num_points = _whole_number(row, "num_points", -1, place)
    difficulty = _whole_number(row, "difficulty", 0, place)
    return (*box, classes.setdefault(name.strip(), len(classes)), num_points, difficulty)


def _number(row: Mapping[str, Any], key: str, place: str) -> float:
    text = row.get(key)
    try:
        if text is None or isinstance(text, bool):
            raise ValueError
        value = float(text)
    except (TypeError, ValueError):
        raise ValueError(f"{place}: {key} is {text!r}, not a number. Every box needs {', '.join(_BOX)}.") from None
    if not math.isfinite(value):
        raise ValueError(f"{place}: {key}={value} is not finite. Correct the box or remove the row.")
    return value


def _whole_number(row: Mapping[str, Any], key: str, default: int, place: str) -> int:
    if row.get(key) in (None, ""):
        return default
    value = _number(row, key, place)
    if value != int(value) or abs(value) > 2**31 - 1:
        raise ValueError(f"{place}: {key}={value:g} must be a whole number (or leave it empty).")
    return int(value)
