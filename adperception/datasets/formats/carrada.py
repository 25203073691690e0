"""CARRADA's native layout: index files, frames, annotations, time stamps.

Written from the layout's description in docs/radar_datasets.md, which says what is verified and what is not::

    ROOT/data_seq_ref.json                       per sequence: split, instances, frame boundaries
    ROOT/light_dataset_frame_oriented.json       {sequence: [frame, ...]}: the frames used for segmentation
    ROOT/annotations_frame_oriented.json         {sequence: {frame: {instance: {view: sparse, dense, box, label}}}}
    ROOT/sensor.json                             ours, of simulated trees: see radar_sensor.py; CARRADA has none
    ROOT/SEQUENCE/range_doppler_processed/000000.npy ...
    ROOT/SEQUENCE/annotations/{dense,sparse}/000000/{range_doppler,range_angle}.npy     one-hot
    RAD_ROOT/SEQUENCE/RAD_numpy/000000.npy       magnitudes (range, azimuth, Doppler)
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.formats.npy_arrays import read_array, read_array_into, require_magnitudes
from adperception.datasets.formats.radar_instances import RadarInstance, ViewLabel
from adperception.datasets.formats.radar_sensor import SENSOR_FILE, RadarSensor, read_radar_sensor
from adperception.structures import RadarGrid

__all__ = [
    "CLASSES",
    "LABELLED_VIEWS",
    "SPLITS",
    "VIEWS",
    "Instances",
    "cube_file",
    "frame_range",
    "mask_file",
    "read_adc_times",
    "read_annotations",
    "read_boxes",
    "read_cube",
    "read_frames",
    "read_json",
    "read_mask",
    "read_sensor",
    "read_splits",
    "read_view",
    "view_file",
    "view_shapes",
]

SPLITS = ("Train", "Validation", "Test")
CLASSES = ("pedestrian", "cyclist", "car")
VIEWS = ("range_doppler", "range_angle", "angle_doppler")
LABELLED_VIEWS = ("range_doppler", "range_angle")

Instances = Mapping[str, Mapping[str, tuple[RadarInstance, ...]]]
"""Sequence to frame to the labelled objects; frames without any are not in it."""

_DOWNLOAD = "Unpack CARRADA's archive there, or correct root=."


def read_sensor(root: Path) -> RadarSensor:
    """The sensor of a tree; without ``sensor.json`` it is CARRADA's, with labels linear in the angle.

    Raises:
        ValueError: for a damaged file, or one that describes cubes in another order of axes than CARRADA's.
    """
    path = root / SENSOR_FILE
    if not path.is_file():
        return RadarSensor(label_axis="angle")
    sensor = read_radar_sensor(path)
    if sensor != RadarSensor(sensor.grid, label_axis=sensor.label_axis, radar=sensor.radar):
        raise ValueError(f"{path}: CARRADA's cubes are range (far first), azimuth, Doppler; another order is stated.")
    return sensor


def read_json(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for text that is not JSON (with the line), or another kind of value.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. {_DOWNLOAD}")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}:{error.lineno}: not readable as JSON ({error.msg}, column {error.colno}). The file was cut off or "
            "edited: copy it again."
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file ({error}). Copy it again.") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}, expected an object {{...}}. Copy it again.")
    return content


def read_splits(root: Path) -> dict[str, str]:
    """Sequence to split, of ``data_seq_ref.json``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a sequence without one of the three splits.
    """
    path = root / "data_seq_ref.json"
    splits = {}
    for sequence, entry in read_json(path).items():
        split = entry.get("split") if isinstance(entry, Mapping) else None
        if split not in SPLITS:
            raise ValueError(f"{path}: sequence {sequence}: split is {split!r}, must be one of {', '.join(SPLITS)}.")
        splits[sequence] = split
    return splits


def read_frames(root: Path) -> dict[str, tuple[str, ...]]:
    """Sequence to its frames in the order of time, of ``light_dataset_frame_oriented.json``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a name that is no number, or frames twice or out of order.
    """
    path = root / "light_dataset_frame_oriented.json"
    frames = {}
    for sequence, names in read_json(path).items():
        if not isinstance(names, list) or not all(isinstance(n, str) and n.isascii() and n.isdigit() for n in names):
            raise ValueError(f'{path}: sequence {sequence}: must list frame names like "000012".')
        numbers = [int(n) for n in names]
        if any(later <= earlier for earlier, later in pairwise(numbers)):
            raise ValueError(f"{path}: sequence {sequence}: frames are listed twice or not in the order of time.")
        frames[sequence] = tuple(names)
    return frames


def read_annotations(root: Path, sequences: Collection[str] | None = None) -> Instances | None:
    """The labelled objects of ``annotations_frame_oriented.json``; ``None`` if there is no such file.

    Args:
        root: folder of the file.
        sequences: only these; ``None``: all.

    Raises:
        ValueError: for an object without one of the two views, or another form, naming sequence, frame and instance.
    """
    path = root / "annotations_frame_oriented.json"
    if not path.is_file():
        return None
    out: dict[str, dict[str, tuple[RadarInstance, ...]]] = {}
    for sequence, frames in read_json(path).items():
        if sequences is not None and sequence not in sequences:
            continue
        out[sequence] = {
            frame: tuple(_instance(f"{path}: {sequence}/{frame}", name, views) for name, views in instances.items())
            for frame, instances in frames.items()
            if instances
        }
    return out


def read_boxes(root: Path, sequence: str, view: str) -> dict[str, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Frame to ``(N, 4)`` boxes and ``(N,)`` class ids, of ``annotations/box/<view>_light.json``.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for boxes of another form.
    """
    path = root / sequence / "annotations" / "box" / f"{view}_light.json"
    boxes = {}
    for frame, entry in read_json(path).items():
        try:
            corners = np.array(entry["boxes"], dtype=np.int64).reshape(-1, 4)
            classes = np.array(entry["labels"], dtype=np.int64)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: frame {frame}: must hold boxes of four numbers and labels ({error}).") from error
        _require_boxes(f"{path}: frame {frame}", corners, classes)
        boxes[frame] = (corners, classes)
    return boxes


def view_shapes(grid: RadarGrid) -> dict[str, tuple[int, int]]:
    """Rows and columns of each view."""
    rows, azimuths, dopplers = grid.shape
    return {
        "range_doppler": (rows, dopplers),
        "range_angle": (rows, azimuths),
        "angle_doppler": (azimuths, dopplers),
    }


def view_file(root: Path, sequence: str, view: str, kind: Literal["raw", "processed"], frame: str) -> Path:
    """Path of a view."""
    return root / sequence / f"{view}_{kind}" / f"{frame}.npy"


def cube_file(rad_root: Path, sequence: str, frame: str) -> Path:
    """Path of a RAD tensor."""
    return rad_root / sequence / "RAD_numpy" / f"{frame}.npy"


def mask_file(root: Path, sequence: str, annotation: str, frame: str, view: str) -> Path:
    """Path of a mask; ``annotation`` is ``"dense"`` or ``"sparse"``."""
    return root / sequence / "annotations" / annotation / frame / f"{view}.npy"


def read_cube(path: Path, grid: RadarGrid, out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Magnitudes ``(range, azimuth, Doppler)`` of a RAD tensor.

    Args:
        path: of the file.
        grid: what the cells mean.
        out: array that is filled and returned; ``None`` makes one.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a damaged file, another shape or dtype, or values that no magnitude has (NaN).
    """
    values = np.empty(grid.shape, dtype=np.float32) if out is None else out
    read_array_into(path, values, "(range, azimuth, Doppler)", "f", "Unpack Carrada_RAD there, or set rad_root=.")
    require_magnitudes(values, str(path))
    return values


def read_view(path: Path, shape: tuple[int, int]) -> NDArray[np.float64]:
    """A view as it is stored.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a damaged file, another shape or dtype, or values that are not finite.
    """
    values = read_array(path, shape, "(rows, columns)", "f", _DOWNLOAD)
    _require_finite(values, str(path))
    return values


def _require_finite(values: NDArray[Any], origin: str) -> None:
    """Refuse views with NaN or infinity.

    Raises:
        ValueError: naming ``origin``.
    """
    if not np.isfinite(values).all():
        bad = int(np.count_nonzero(~np.isfinite(values)))
        raise ValueError(f"{origin}: {bad:,} of {values.size:,} values are NaN or infinite. Make or copy it again.")


def read_mask(path: Path, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Classes ``(rows, columns)`` of a mask file ``(4, rows, columns)``: the first layer that holds the pixel.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a damaged file, another shape, or values other than 0 and 1.
    """
    layers = read_array(path, (1 + len(CLASSES), *shape), "(class, rows, columns)", advice=_DOWNLOAD)
    if not (layers.min() == 0 and layers.max() == 1):
        raise ValueError(f"{path}: values from {layers.min()} to {layers.max()}, a one-hot mask has 0 and 1 only.")
    classes = np.zeros(shape, dtype=np.uint8)
    for class_id in range(len(layers) - 1, 0, -1):
        classes[layers[class_id] != 0] = class_id
    classes[layers[0] != 0] = 0
    return classes


def read_adc_times(root: Path, sequence: str) -> NDArray[np.int64] | None:
    """``(N,)`` times of the frames in nanoseconds, the last number of each line; ``None`` if there is no file.

    Raises:
        ValueError: for a line that does not end in a number.
    """
    path = root / sequence / f"adc_ts_{sequence}.txt"
    if not path.is_file():
        return None
    times = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            times.append(int(line.replace(",", " ").split()[-1]))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {line!r} does not end in nanoseconds. Copy it again.") from error
    return np.array(times, dtype=np.int64)


def frame_range(frame: str, moments: int) -> list[str]:
    """The names of ``moments`` consecutive frames that end with ``frame``, oldest first, none before frame 0."""
    last = int(frame)
    return [f"{number:0{len(frame)}d}" for number in range(max(0, last - moments + 1), last + 1)]


def _instance(origin: str, name: str, views: Any) -> RadarInstance:
    labels = {}
    classes = set()
    for view in LABELLED_VIEWS:
        entry = views.get(view) if isinstance(views, Mapping) else None
        if not isinstance(entry, Mapping):
            raise ValueError(f"{origin}: instance {name} has no {view}. Take it out, or copy the file again.")
        try:
            box = np.array(entry["box"], dtype=np.int64).reshape(4)
            sparse, dense = (np.array(entry[k], dtype=np.int64).reshape(-1, 2) for k in ("sparse", "dense"))
            classes.add(int(entry["label"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{origin}: instance {name}, {view}: must hold sparse and dense (lists of [row, column]), box "
                f"([[row, column], [row, column]]) and label, but {error} is missing or wrong."
            ) from error
        labels[view] = ViewLabel(sparse, dense, box)
    class_id = classes.pop()
    if classes or not 1 <= class_id <= len(CLASSES):
        raise ValueError(
            f"{origin}: instance {name}: label must be one of 1 to {len(CLASSES)}, the same in both views."
        )
    return RadarInstance(name, class_id, labels["range_doppler"], labels["range_angle"])


def _require_boxes(origin: str, boxes: NDArray[np.int64], classes: NDArray[np.int64]) -> None:
    if len(boxes) != len(classes):
        raise ValueError(f"{origin}: {len(boxes)} boxes but {len(classes)} labels.")
    if len(boxes) and not (classes.min() >= 1 and classes.max() <= len(CLASSES)):
        raise ValueError(f"{origin}: labels {classes.tolist()} must be 1 to {len(CLASSES)}.")
