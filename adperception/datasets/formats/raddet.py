"""RADDet's layout and labels.

::

    ROOT/{train,test}/RAD/PART/000000.npy       complex64 (range, azimuth, Doppler), row 0 far
    ROOT/{train,test}/gt/PART/000000.pickle     labels as downloaded
    ROOT/{train,test}/gt/PART/000000.json       labels as converted by data_tools/raddet.py; only these are read
    ROOT/sensor.json                            ours, of simulated trees; without it: RADDet's radar

A label file holds ``classes`` (N names), ``boxes`` (N x 6: centre in range, azimuth and Doppler, then the sizes, in
cells of the cube; Doppler may reach beyond its ends, where it wraps around) and ``cart_boxes`` (N x 4, centre and size
in a Cartesian map of 256 x 512 cells). Facts: the code of ZhangAoCanada/RADDet (CRV 2021, arXiv 2105.00363).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.formats.npy_arrays import read_array
from adperception.datasets.formats.plain_pickle import read_plain_pickle
from adperception.structures import RadarGrid, RadarObjects

__all__ = [
    "CLASSES",
    "FOLDERS",
    "RADDetLabels",
    "cube_file",
    "label_file",
    "list_frames",
    "read_cube",
    "read_labels",
    "read_pickled_labels",
    "write_labels",
]

CLASSES = ("person", "bicycle", "car", "motorcycle", "bus", "truck")
FOLDERS = ("train", "test")


@dataclass(frozen=True)
class RADDetLabels:
    """Labels of a frame as the files have them.

    Attributes:
        classes: N names.
        boxes: ``(N, 6)`` float64 centre and size in range, azimuth and Doppler, cells of the cube.
        cart_boxes: ``(N, 4)`` float64 centre and size in the Cartesian map.
    """

    classes: tuple[str, ...]
    boxes: NDArray[np.float64]
    cart_boxes: NDArray[np.float64]

    def objects(self, grid: RadarGrid) -> RadarObjects:
        """The objects in cube coordinates; centres are wrapped into the Doppler and azimuth axes."""
        cells = self.boxes[:, :3].astype(np.float32)
        for axis in (1, 2):
            cells[:, axis] = np.mod(cells[:, axis], grid.shape[axis])
        class_ids = np.array([CLASSES.index(name) + 1 for name in self.classes], dtype=np.int64)
        scores = np.ones(len(class_ids), dtype=np.float32)
        return RadarObjects(cells, self.boxes[:, 3:].astype(np.float32), class_ids, scores)


def list_frames(root: Path, folder: str) -> list[str]:
    """Frames with a cube, ``"<folder>/<part>/<frame>"``, parts and frames in the order of their numbers.

    Raises:
        FileNotFoundError: if there is no such folder, or no cube in it.
    """
    cubes = root / folder / "RAD"
    if not cubes.is_dir():
        raise FileNotFoundError(
            f"RADDet: {cubes} does not exist. root= must hold train/ and test/, each with RAD/ and gt/ in it."
        )
    paths = sorted(cubes.glob("*/*.npy"), key=lambda path: (_natural(path.parent.name), _natural(path.stem)))
    if not paths:
        raise FileNotFoundError(f"RADDet: {cubes} holds no part*/000000.npy. Unpack the cubes there.")
    return [f"{folder}/{path.parent.name}/{path.stem}" for path in paths]


def cube_file(root: Path, frame_id: str) -> Path:
    """Path of the cube of a frame."""
    folder, part, frame = frame_id.split("/")
    return root / folder / "RAD" / part / f"{frame}.npy"


def label_file(root: Path, frame_id: str, suffix: str = ".json") -> Path:
    """Path of the labels of a frame, ``".json"`` or ``".pickle"``."""
    folder, part, frame = frame_id.split("/")
    return root / folder / "gt" / part / f"{frame}{suffix}"


def read_cube(path: Path, grid: RadarGrid) -> NDArray[np.float32]:
    """Magnitudes ``(range, azimuth, Doppler)`` of a cube.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a damaged file, another shape, numbers that are not complex, or NaN.
    """
    values = read_array(path, grid.shape, "(range, azimuth, Doppler)", "c", "Unpack the cubes of RADDet there.")
    magnitude: NDArray[np.float32] = np.abs(values).astype(np.float32, copy=False)
    if not np.isfinite(magnitude.max()):  # NaN wins
        bad = int(np.count_nonzero(~np.isfinite(magnitude)))
        raise ValueError(f"{path}: {bad:,} of {magnitude.size:,} values are NaN or infinite. Copy the file again.")
    return magnitude


def read_labels(path: Path) -> RADDetLabels:
    """The labels in a JSON file.

    Raises:
        FileNotFoundError: if there is none; says whether they still have to be converted.
        ValueError: for text that is not JSON, or labels of another form.
    """
    if not path.is_file():
        pickled = path.with_suffix(".pickle")
        if pickled.is_file():
            raise FileNotFoundError(
                f"{path} does not exist, but {pickled.name} does: labels are pickles, which are never read here. "
                "Convert them once with: python data_tools/raddet.py convert ROOT"
            )
        raise FileNotFoundError(f"{path} does not exist. Unpack the labels (gt) of RADDet there and convert them.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: not readable as JSON ({error}). Delete it and convert the labels again (data_tools/raddet.py)."
        ) from error
    return _labels(path, content)


def read_pickled_labels(path: Path) -> RADDetLabels:
    """The labels in a pickle as downloaded; for the converter only. Nothing in it is executed.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a damaged file, anything but plain values (with its name), or labels of another form.
    """
    return _labels(path, read_plain_pickle(path))


def write_labels(path: Path, labels: RADDetLabels) -> None:
    """Write a JSON file, whole or not at all."""
    content = {
        "classes": list(labels.classes),
        "boxes": labels.boxes.tolist(),
        "cart_boxes": labels.cart_boxes.tolist(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.part")
    temporary.write_text(json.dumps(content) + "\n", encoding="utf-8", newline="\n")
    temporary.replace(path)


def _labels(path: Path, content: Any) -> RADDetLabels:
    if not isinstance(content, Mapping) or not {"classes", "boxes"} <= set(content):
        raise ValueError(f"{path}: must hold classes and boxes. This is no label file of RADDet.")
    names = tuple(str(name) for name in content["classes"])
    unknown = sorted(set(names) - set(CLASSES))
    if unknown:
        raise ValueError(f"{path}: class {unknown[0]!r} is not one of {', '.join(CLASSES)}. Correct it.")
    boxes = _rows(path, "boxes", content["boxes"], len(names), 6)
    if (boxes[:, 3:] < 0).any():
        worst = boxes[(boxes[:, 3:] < 0).any(axis=1)][0]
        raise ValueError(f"{path}: box {worst.tolist()} has a negative size. Correct it.")
    cartesian = content.get("cart_boxes", np.zeros((len(names), 4)))
    return RADDetLabels(names, boxes, _rows(path, "cart_boxes", cartesian, len(names), 4))


def _rows(path: Path, name: str, values: Any, count: int, columns: int) -> NDArray[np.float64]:
    try:
        rows = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {name} must be rows of {columns} numbers ({error}).") from error
    if rows.size == 0:
        rows = rows.reshape(0, columns)
    if rows.shape != (count, columns) or not np.isfinite(rows).all():
        raise ValueError(
            f"{path}: {name} of shape {rows.shape} must be {count} rows (one per class name) of {columns} finite "
            "numbers."
        )
    return rows


def _natural(name: str) -> tuple[str, int, str]:
    """Sorts ``part10`` after ``part9``."""
    digits = len(name) - len(name.rstrip("0123456789"))
    return (name[: len(name) - digits], int(name[-digits:] or 0) if digits else -1, name)
