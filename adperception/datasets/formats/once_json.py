"""ONCE's sequence files, ``data/SEQUENCE/SEQUENCE.json``, and its axes.

A file has ``meta_info``, ``calib`` of seven cameras and ``frames``: each with ``frame_id`` (time in milliseconds),
``pose`` (quaternion x, y, z, w, then position) and, if it was annotated, ``annos``: ``names``, ``boxes_3d`` (centre x,
y, z, length, width, height, yaw; LiDAR frame), ``boxes_2d`` per camera and ``num_points_in_gt``. ONCE's LiDAR frame has
**x to the left, y to the back** and z up; its yaw is counter-clockwise from its +x. Facts: ONCE's documentation page
and ``once_devkit``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CAMERAS", "CLASSES", "OnceFrame", "boxes_from_once", "from_once", "read_sequence", "to_once"]

CAMERAS = ("cam01", "cam03", "cam05", "cam06", "cam07", "cam08", "cam09")
CLASSES = ("Car", "Bus", "Truck", "Pedestrian", "Cyclist")


@dataclass(frozen=True)
class OnceFrame:
    """A frame of a sequence as the file has it.

    Attributes:
        frame_id: name of the cloud's file.
        names: class names of the labelled objects; ``None`` for a frame that was not annotated.
        boxes: ``(M, 7)`` float32 x, y, z, length, width, height, yaw in ONCE's axes; ``None`` as ``names``.
        points: ``(M,)`` points in the boxes as the file states them, -1 where it does not; ``None`` as ``names``.
    """

    frame_id: str
    names: tuple[str, ...] | None = None
    boxes: NDArray[np.float32] | None = None
    points: NDArray[np.int64] | None = None


def read_sequence(path: Path) -> list[OnceFrame]:
    """The frames of a sequence file, in the order of their names.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for text that is not JSON (with the line), or frames and annotations of another form.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist. Copy the sequence's .json there, or take the sequence out of the split."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{path}:{error.lineno}: not readable as JSON ({error.msg}, column {error.colno}). The file was cut off or "
            "edited: copy it again."
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not a text file ({error.reason}). Copy it again.") from error
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list):
        raise ValueError(f'{path}: no list "frames". This is no sequence file of ONCE.')
    read = [_frame(path, number, frame) for number, frame in enumerate(frames)]
    return sorted(read, key=lambda frame: frame.frame_id)


def from_once(xyz: NDArray[np.floating]) -> NDArray[np.float32]:
    """Positions ``(N, 3)`` of ONCE's axes (left, back, up) in ours (forward, left, up)."""
    return np.stack([-xyz[:, 1], xyz[:, 0], xyz[:, 2]], axis=1).astype(np.float32, copy=False)


def to_once(xyz: NDArray[np.floating]) -> NDArray[np.float32]:
    """Positions ``(N, 3)`` of our axes (forward, left, up) in ONCE's (left, back, up)."""
    return np.stack([xyz[:, 1], -xyz[:, 0], xyz[:, 2]], axis=1).astype(np.float32, copy=False)


def boxes_from_once(boxes: NDArray[np.floating], *, inverse: bool = False) -> NDArray[np.float32]:
    """``(M, 7)`` boxes of ONCE's axes in ours, or back with ``inverse``: the yaw grows by a quarter turn."""
    out = boxes.astype(np.float32)
    out[:, :3] = (to_once if inverse else from_once)(boxes[:, :3])
    turned = boxes[:, 6].astype(np.float64) + (-np.pi / 2 if inverse else np.pi / 2)
    out[:, 6] = (turned + np.pi) % (2 * np.pi) - np.pi
    return out


def _frame(path: Path, number: int, frame: Any) -> OnceFrame:
    if not isinstance(frame, Mapping) or "frame_id" not in frame:
        raise ValueError(f"{path}: entry {number + 1} of frames has no frame_id. Copy the file again.")
    frame_id = str(frame["frame_id"])
    annotations = frame.get("annos")
    if annotations is None:
        return OnceFrame(frame_id)
    # The documentation says "name", the files and the development kit say "names".
    names = annotations.get("names", annotations.get("name"))
    boxes = annotations.get("boxes_3d")
    if names is None or boxes is None or len(names) != len(boxes):
        raise ValueError(
            f"{path}: frame {frame_id}: annos must hold as many names as boxes_3d, but there are "
            f"{'no' if names is None else len(names)} names and {'no' if boxes is None else len(boxes)} boxes."
        )
    points = annotations.get("num_points_in_gt")
    if points is None or len(points) != len(names):  # they are only compared by the data check
        points = [-1] * len(names)
    counts = np.array(points, dtype=np.int64)
    return OnceFrame(frame_id, tuple(str(name) for name in names), _boxes(path, frame_id, boxes), counts)


def _boxes(path: Path, frame_id: str, boxes: Sequence[Sequence[float]]) -> NDArray[np.float32]:
    rows = np.zeros((len(boxes), 7), dtype=np.float32)
    for i, box in enumerate(boxes):
        try:
            rows[i] = box
            usable = len(box) == 7 and bool(np.isfinite(rows[i]).all()) and bool((rows[i, 3:6] > 0).all())
        except (TypeError, ValueError):
            usable = False
        if not usable:
            raise ValueError(
                f"{path}: frame {frame_id}: box {i + 1} of {len(boxes)} reads {box}; it must be 7 finite numbers x, y, "
                "z, length, width, height, yaw with positive sizes. Correct it, or take it out with its name."
            )
    return rows
