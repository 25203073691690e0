"""Detections as KITTI result files (``RESULTS/000008.txt``), the input of KITTI's own and many other evaluators."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from adperception.datasets.formats.kitti_boxes import to_kitti_camera
from adperception.datasets.formats.kitti_label import KittiObject, read_labels, write_labels
from adperception.structures import Detections, KittiCalibration

__all__ = ["kitti_detections", "read_kitti_results", "write_kitti_results"]

_DECIMALS = 6


def kitti_detections(
    detections: Detections, calibration: KittiCalibration, image_size: tuple[int, int]
) -> list[KittiObject]:
    """Detections of one frame as KITTI objects with scores.

    The 2D box surrounds the projected 3D box and is clipped to the image; alpha follows from position and heading;
    truncation and occlusion are unknown to a detector: -1.

    Args:
        detections: boxes in the LiDAR frame.
        calibration: of the frame.
        image_size: ``(height, width)`` in pixels.
    """
    objects = to_kitti_camera(detections.boxes, calibration, image_size)
    scores = detections.scores.tolist()
    return [replace(o, truncation=-1.0, occlusion=-1, score=s) for o, s in zip(objects, scores, strict=True)]


def write_kitti_results(folder: str | Path, results: Mapping[str, Sequence[KittiObject]]) -> None:
    """Write one file for each frame, an empty one for a frame without detections.

    Args:
        folder: is made if it does not exist.
        results: the detections by frame name.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for frame_id, objects in results.items():
        write_labels(folder / f"{frame_id}.txt", objects, decimals=_DECIMALS)


def read_kitti_results(folder: str | Path, frame_ids: Iterable[str]) -> dict[str, list[KittiObject]]:
    """The detections of the given frames.

    Raises:
        FileNotFoundError: for a frame without a file; KITTI wants an empty one where nothing was found.
        ValueError: for a line that is no KITTI object, or one without a score, with file and line.
    """
    results = {}
    for frame_id in frame_ids:
        path = Path(folder) / f"{frame_id}.txt"
        objects = read_labels(path)
        for number, found in enumerate(objects, 1):
            if found.score is None:
                raise ValueError(
                    f"{path}: object {number} ({found.name}) has no score. A result line has 16 columns, the last one "
                    "is the score; a file of labels cannot be evaluated."
                )
        results[frame_id] = objects
    return results
