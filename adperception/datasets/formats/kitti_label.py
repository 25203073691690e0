"""KITTI object labels (``label_2/*.txt``): reading and writing.

One line per object, separated by blanks: class name, truncation (0..1), occlusion (0 visible, 1 partly, 2 largely
occluded, 3 unknown), alpha (observation angle, radians), 2D box (left, top, right, bottom; pixels of camera 2), height,
width, length (metres), location x, y, z (metres, rectified camera frame, centre of the *bottom* face), rotation_y
(radians about the camera's y axis), and in result files a score. Areas whose objects were not labelled carry the name
``DontCare``; only their 2D box means anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DONT_CARE", "KittiObject", "read_labels", "write_labels"]

DONT_CARE = "DontCare"
_COLUMNS = (
    *("name", "truncation", "occlusion", "alpha", "left", "top", "right", "bottom"),
    *("height", "width", "length", "x", "y", "z", "rotation_y", "score"),
)


@dataclass(frozen=True)
class KittiObject:
    """One line of a label file.

    Attributes:
        name: class name, e.g. ``"Car"``.
        truncation: share of the object outside the image, 0..1 (-1: not given).
        occlusion: 0 visible, 1 partly occluded, 2 largely occluded, 3 unknown (-1: not given).
        alpha: observation angle in radians, -pi..pi.
        box_2d: ``(left, top, right, bottom)`` in pixels of camera 2.
        dimensions: ``(height, width, length)`` in metres.
        location: ``(x, y, z)`` of the centre of the bottom face in metres, rectified camera frame.
        rotation_y: heading about the camera's y axis in radians, -pi..pi.
        score: confidence of a detection; ``None`` for a label.
    """

    name: str
    truncation: float
    occlusion: int
    alpha: float
    box_2d: tuple[float, float, float, float]
    dimensions: tuple[float, float, float]
    location: tuple[float, float, float]
    rotation_y: float
    score: float | None = None

    @property
    def difficulty(self) -> int:
        """0 easy, 1 moderate, 2 hard, -1 harder than that, by the rules of KITTI's benchmark.

        Easy: 2D box at least 40 px high, fully visible, truncation at most 0.15. Moderate: 25 px, partly occluded,
        0.30. Hard: 25 px, largely occluded, 0.50. The height counts both border pixels.
        """
        height = self.box_2d[3] - self.box_2d[1] + 1
        rules = ((40, 0, 0.15), (25, 1, 0.30), (25, 2, 0.50))
        for level, (minimum_height, maximum_occlusion, maximum_truncation) in enumerate(rules):
            if (
                height >= minimum_height
                and self.occlusion <= maximum_occlusion
                and self.truncation <= maximum_truncation
            ):
                return level
        return -1


def read_labels(path: str | Path) -> list[KittiObject]:
    """Objects of a label or result file, in file order, ``DontCare`` areas included.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a line that does not have 15 columns (16 with a score) or holds something else than numbers;
            the message names file, line and fix.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"KITTI labels: {path} does not exist.")
    lines = path.read_text(encoding="utf-8").splitlines()
    return [_parse_line(line.split(), f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]


def write_labels(path: str | Path, objects: Iterable[KittiObject], decimals: int = 2) -> None:
    """Write objects in KITTI's text form.

    Args:
        path: the file.
        objects: its lines.
        decimals: of all numbers; KITTI's labels have two. A score (if there is one) has at least four.
    """
    lines = "".join(_format(o, decimals) + "\n" for o in objects)
    Path(path).write_text(lines, encoding="utf-8", newline="\n")


def _parse_line(columns: list[str], place: str) -> KittiObject:
    if len(columns) not in (15, 16):
        raise ValueError(
            f"{place}: a KITTI label line has 15 columns (16 with a score), this one has {len(columns)}: "
            f'"{" ".join(columns)}". The columns are {" ".join(_COLUMNS)}. Write the missing ones; where a value is '
            "unknown KITTI writes -1 for truncation and occlusion and -10 for alpha."
        )
    values = [_number(text, column, place) for column, text in zip(_COLUMNS[1:], columns[1:], strict=False)]
    if values[1] != int(values[1]):
        raise ValueError(f"{place}: occlusion is {columns[2]}, expected a whole number (0, 1, 2, 3 or -1).")
    v = values
    return KittiObject(
        name=columns[0],
        truncation=v[0],
        occlusion=int(v[1]),
        alpha=v[2],
        box_2d=(v[3], v[4], v[5], v[6]),
        dimensions=(v[7], v[8], v[9]),
        location=(v[10], v[11], v[12]),
        rotation_y=v[13],
        score=v[14] if len(v) == 15 else None,
    )


def _number(text: str, column: str, place: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ValueError(f'{place}: column "{column}" is "{text}", expected a finite number.')
    return value


def _format(o: KittiObject, decimals: int) -> str:
    box_2d = " ".join(f"{v:.{decimals}f}" for v in o.box_2d)
    if o.name == DONT_CARE:  # KITTI writes the place holders of these areas without decimals
        return f"{o.name} -1 -1 -10 {box_2d} -1 -1 -1 -1000 -1000 -1000 -10"
    solid = " ".join(f"{v:.{decimals}f}" for v in (*o.dimensions, *o.location, o.rotation_y))
    score = "" if o.score is None else f" {o.score:.{max(decimals, 4)}f}"
    return f"{o.name} {o.truncation:.{decimals}f} {o.occlusion} {o.alpha:.{decimals}f} {box_2d} {solid}{score}"
