"""A detector on a point-cloud file: what it finds, how the file was read, and what may be wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from adperception.checkpoint.layout import CheckpointError
from adperception.checkpoint.load import read_metadata
from adperception.datasets.formats.scan_files import Scan, fit_channels, read_scan
from adperception.engine.radar_inference import RadarInference, RadarNetwork, holds_radar_model
from adperception.evaluation.predictions import predict_frames
from adperception.geometry.ground_height import estimate_ground_height
from adperception.geometry.range_coverage import in_range
from adperception.models.base import DetectionModel
from adperception.structures import Boxes3D, Detections, LidarFrame, PointCloud
from adperception.zoo import load_model

__all__ = ["Detector", "Inference", "infer"]

_HEIGHT_TOLERANCE_M = 0.5
_CHANNELS = ("x", "y", "z", "intensity", "elongation")

# z of the road in the frame of each dataset's points: KITTI's sensor stands 1.73 m above it; Waymo's points are in the
# frame of the vehicle, whose origin lies on it.
_GROUND_OF_DATASET = {"KITTI": -1.73, "Waymo": 0.0}


@dataclass(frozen=True)
class Inference:
    """What was found in one scan.

    Attributes:
        frame_id: name of the scan.
        detections: the objects, best first, in the scan's own frame.
        cloud: the points as the model got them, in the scan's own frame.
        point_cloud_range: what the model looked at, in the scan's own frame (metres).
        reading: how the scan was read.
        warnings: what may be wrong, one sentence each.
    """

    frame_id: str
    detections: Detections
    cloud: PointCloud
    point_cloud_range: tuple[float, ...]
    reading: str
    warnings: tuple[str, ...] = ()

    def table(self) -> str:
        """The objects as text, one line each."""
        lines = ["class            score        x        y        z   length   width  height  yaw (deg)"]
        for name, score, box in zip(
            self.detections.boxes.names, self.detections.scores, self.detections.boxes.boxes, strict=True
        ):
            x, y, z, length, width, height, yaw = (float(v) for v in box)
            degrees = (np.degrees(yaw) + 180) % 360 - 180
            lines.append(
                f"{name:16s} {score:5.2f} {x:8.2f} {y:8.2f} {z:8.2f} {length:8.2f} {width:7.2f} {height:7.2f} "
                f"{degrees:10.0f}"
            )
        return "\n".join(lines) if len(self.detections) else "no object found"


class Detector:
    """A detector from a weights file, ready for scans.

    Args:
        weights: a checkpoint directory or ``.safetensors`` file of a detector; it says itself what it holds.
        device: ``"cpu"``, ``"cuda"`` or ``None`` for cuda where there is one.

    Attributes:
        model: the detector in evaluation mode.
        channels: what it reads per point.
        ground_height: z of the road in its training data, metres; ``None`` if nothing tells.

    Raises:
        FileNotFoundError: if there is nothing at ``weights``.
        CheckpointError: if the file does not hold a detector.
    """

    def __init__(self, weights: str | Path, device: str | None = None) -> None:
        model = load_model(weights)
        if not isinstance(model, DetectionModel):
            raise CheckpointError(
                f"{weights}: holds a {type(model).__name__}, which finds no objects. Fine-tune a detector from it "
                "first (docs/training.md)."
            )
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = model.to(self.device).eval()
        metadata = read_metadata(weights)
        self.channels = _channels(metadata, int(getattr(model, "in_channels", 4)))
        self.ground_height = _ground_height(metadata)
        self.grid = model.grid

    def __call__(
        self,
        scan: str | Path | NDArray[np.floating] | PointCloud,
        *,
        channels: Sequence[str] | None = None,
        intensity_max: float | None = None,
        fill_missing: float | None = None,
        sensor_height: float | None = None,
        min_score: float = 0.0,
    ) -> Inference:
        """Find objects; the arguments are those of ``infer``."""
        frame_id, read = self._read(scan, channels, intensity_max, fill_missing)
        shift = self._shift(sensor_height)
        moved = _lifted(read.cloud, shift)
        batch = self.model.collate(training=False)([LidarFrame(frame_id, moved)])
        found = predict_frames(self.model, [batch], device=self.device)[frame_id]
        found = found.select(found.scores >= min_score)
        boxes = found.boxes.boxes.copy()
        boxes[:, 2] -= shift
        detections = Detections(Boxes3D(boxes, found.boxes.names), found.scores)
        low, high = self.grid.point_cloud_range[:3], self.grid.point_cloud_range[3:]
        seen = (low[0], low[1], low[2] - shift, high[0], high[1], high[2] - shift)
        warnings = self._height_warnings(moved, shift)
        if not len(detections):
            warnings = [*warnings, self._hint(read.cloud, seen, min_score)]
        return Inference(frame_id, detections, read.cloud, seen, read.reading, tuple(warnings))

    def _read(
        self,
        scan: str | Path | NDArray[np.floating] | PointCloud,
        channels: Sequence[str] | None,
        intensity_max: float | None,
        fill_missing: float | None,
    ) -> tuple[str, Scan]:
        if isinstance(scan, (str, Path)):
            read = read_scan(
                scan, self.channels, channels=channels, intensity_max=intensity_max, fill_missing=fill_missing
            )
            return Path(scan).name, read
        if not isinstance(scan, PointCloud):
            array = np.asarray(scan, dtype=np.float32)
            scan = PointCloud(array, tuple(channels if channels is not None else self.channels))
        return "scan", fit_channels(scan, self.channels, "scan", intensity_max=intensity_max, fill_missing=fill_missing)

    def _shift(self, sensor_height: float | None) -> float:
        """What to add to z so that the scan's ground lies where the model expects it."""
        if sensor_height is None:
            return 0.0
        if self.ground_height is None:
            raise ValueError(
                "sensor_height: the weights file does not say at which height its model was trained. Move the points "
                "yourself: z of the road as in the training data."
            )
        return self.ground_height + sensor_height

    def _height_warnings(self, moved: PointCloud, shift: float) -> list[str]:
        ground = estimate_ground_height(moved.xyz)
        if ground is None or self.ground_height is None or abs(ground - self.ground_height) <= _HEIGHT_TOLERANCE_M:
            return []
        return [
            f"median ground height {ground - shift:.1f} m; the model was trained at {self.ground_height:.1f} m: pass "
            f"--sensor-height {shift - ground:.1f}"
        ]

    def _hint(self, cloud: PointCloud, seen: tuple[float, ...], min_score: float) -> str:
        inside = int(np.count_nonzero(in_range(cloud.xyz, seen)))
        limits = ", ".join(f"{value:g}" for value in np.round(seen, 2))
        hint = f"nothing found: {inside:,} of {len(cloud):,} points lie in the model's range [{limits}]"
        if not inside:
            spans = ", ".join(
                f"{axis} {low:.1f}…{high:.1f}"
                for axis, low, high in zip("xyz", cloud.xyz.min(axis=0), cloud.xyz.max(axis=0), strict=True)
            ) if len(cloud) else "there are none"  # fmt: skip
            return f"{hint} (points span {spans}). Check units (metres), axes (x forward, z up) and sensor height."
        wanted = f" and reached a score of {min_score:g}" if min_score else ""
        return (
            f"{hint}. That is a result like any other if none of {', '.join(self.model.class_names)} is there{wanted}."
        )


def infer(
    scan: str | Path | NDArray[Any] | PointCloud | Sequence[str | Path | NDArray[Any]],
    weights: str | Path,
    *,
    sensor: str | Path | None = None,
    channels: Sequence[str] | None = None,
    intensity_max: float | None = None,
    fill_missing: float | None = None,
    sensor_height: float | None = None,
    min_score: float = 0.0,
    device: str | None = None,
) -> Inference | RadarInference:
    """Find objects in a point cloud, or objects and masks in radar cubes: the weights say which.

    For many scans make one ``Detector`` and call it for each, for radar one ``RadarNetwork``
    (adperception/engine/radar_inference.py), which has some more options.

    Args:
        scan: for a radar model, what ``RadarNetwork`` takes; else a ``.bin .npy .npz .pcd .ply .las .laz`` file, an
            array ``(N, C)`` or a ``PointCloud``: metres, x forward, y left, z up.
        weights: a checkpoint directory or ``.safetensors`` file of a detector or a radar model.
        sensor: for radar, a JSON file that describes it (docs/radar_inference.md).
        channels: for LiDAR, as the next three: what a file without named columns, or the array, holds per point;
            ``None``: what the model reads.
        intensity_max: the largest intensity that the sensor can give; ``None``: concluded from the values.
        fill_missing: value for channels that the scan lacks; ``None``: such a scan is refused.
        sensor_height: metres of the sensor above the road, to move the scan to where the model was trained; ``None``:
            taken as it is, with a warning if the road lies elsewhere.
        min_score: detections below this score are left out (the model has its own threshold besides).
        device: ``"cpu"``, ``"cuda"`` or ``None`` for cuda where there is one.

    Returns:
        The detections in the scan's own frame; none at all is a normal result, with a hint among the warnings.

    Raises:
        FileNotFoundError: if there is no such scan or weights file.
        ValueError: for a scan that cannot be read or lacks a channel, with the option that helps, or an option of the
            other sensor.
        CheckpointError: if the weights are neither a detector's nor a radar model's.
    """
    lidar_options = {
        "channels": channels,
        "intensity_max": intensity_max,
        "fill_missing": fill_missing,
        "sensor_height": sensor_height,
    }
    if holds_radar_model(weights):
        wrong = [name for name, value in lidar_options.items() if value is not None]
        if wrong or isinstance(scan, PointCloud):
            raise ValueError(f"{weights} holds a radar model: {wrong[0] if wrong else 'a PointCloud'} does not apply.")
        return RadarNetwork(weights, device)(scan, sensor=sensor, min_score=min_score)
    if sensor is not None or not isinstance(scan, (str, Path, np.ndarray, PointCloud)):
        raise ValueError(f"{weights} holds no radar model: give one scan, and no sensor.")
    return Detector(weights, device)(
        scan,
        channels=channels,
        intensity_max=intensity_max,
        fill_missing=fill_missing,
        sensor_height=sensor_height,
        min_score=min_score,
    )


def _channels(metadata: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """Names of the model's channels: those of its training data where they are recorded."""
    recorded = tuple(metadata.get("channel_names") or ())
    return recorded if len(recorded) == count else _CHANNELS[:count]


def _ground_height(metadata: Mapping[str, Any]) -> float | None:
    """z of the road in the training data: as recorded, else the anchors' lowest underside or a fact of the dataset."""
    recorded = metadata.get("ground_height")
    if recorded is not None:
        return float(recorded)
    model, dataset = metadata.get("model_config"), metadata.get("dataset")
    classes = model.get("classes", ()) if isinstance(model, Mapping) else ()
    bottoms = [float(c["bottom"]) for c in classes if isinstance(c, Mapping) and "bottom" in c]
    if bottoms:
        return min(bottoms)
    return _GROUND_OF_DATASET.get(str(dataset.get("type"))) if isinstance(dataset, Mapping) else None


def _lifted(cloud: PointCloud, shift: float) -> PointCloud:
    if not shift:
        return cloud
    points = cloud.points.copy()
    points[:, 2] += np.float32(shift)
    return PointCloud(points, cloud.channels)
