"""Predictions of a detector over a dataset, and the file they are kept in.

The file has one JSON object per line and frame, so it can be read by anything and by eye::

    {"frame_id": "000008", "names": ["Car"], "scores": [0.93], "boxes": [[x, y, z, length, width, height, yaw]]}

Boxes are centres in metres in the LiDAR frame, yaw in radians counter-clockwise from +x.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adperception.models.base import DetectionModel
from adperception.structures import Boxes3D, Detections, LidarBatch

__all__ = ["predict_frames", "read_predictions", "write_predictions"]


def predict_frames(
    model: DetectionModel, batches: Iterable[LidarBatch], *, device: torch.device
) -> dict[str, Detections]:
    """Detections by frame name, in the order of the batches; the model's training mode is left as it was.

    Args:
        model: the detector on ``device``.
        batches: collated batches on the CPU.
        device: where to compute.
    """
    was_training = model.training
    model.eval()
    found: dict[str, Detections] = {}
    try:
        with torch.no_grad():
            for batch in batches:
                predictions = model.predict(batch.to(device))
                found.update(zip(batch.frame_ids, predictions, strict=True))
    finally:
        model.train(was_training)
    return found


def write_predictions(path: str | Path, predictions: Mapping[str, Detections]) -> None:
    """Write predictions, six significant digits and more where float32 needs them to be read back unchanged."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for frame_id, detections in predictions.items():
        record = {
            "frame_id": frame_id,
            "names": list(detections.boxes.names),
            "scores": [_shortest(value) for value in detections.scores],
            "boxes": [[_shortest(value) for value in box] for box in detections.boxes.boxes],
        }
        lines.append(json.dumps(record, allow_nan=False) + "\n")
    temporary = path.with_name(path.name + ".partial")
    temporary.write_text("".join(lines), encoding="utf-8")
    temporary.replace(path)


def read_predictions(path: str | Path) -> dict[str, Detections]:
    """Read what ``write_predictions`` wrote.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a line that is not a frame's predictions, with file, line and reason.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there are no predictions here.")
    found: dict[str, Detections] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            frame_id, detections = record["frame_id"], _parse(record)
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}:{number}: not a frame's predictions ({type(error).__name__}: {error}). Each line holds "
                "frame_id, names, scores and boxes [x, y, z, length, width, height, yaw]."
            ) from error
        if frame_id in found:
            raise ValueError(f"{path}:{number}: frame {frame_id} is there twice. Remove one of the lines.")
        found[frame_id] = detections
    return found


def _parse(record: Mapping[str, Any]) -> Detections:
    boxes = np.asarray(record["boxes"], dtype=np.float32).reshape(-1, 7)
    scores = np.asarray(record["scores"], dtype=np.float32)
    if not (np.isfinite(boxes).all() and np.isfinite(scores).all()):
        raise ValueError("a number is not finite")
    return Detections(Boxes3D(boxes, tuple(str(name) for name in record["names"])), scores)


def _shortest(value: np.float32) -> float:
    """The shortest decimal that reads back as the same float32."""
    if not math.isfinite(value):
        raise ValueError(f"predictions hold {value}; a detector must give finite boxes and scores.")
    return float(str(value))
