"""KITTI's average precision as an evaluation of a run or of stored predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.formats.kitti_boxes import from_kitti_camera
from adperception.datasets.formats.kitti_label import DONT_CARE, KittiObject
from adperception.evaluation.detection_evaluation import DetectionEvaluation
from adperception.evaluation.frame_index import FrameIndex
from adperception.evaluation.kitti_precision import (
    DIFFICULTIES,
    KITTI_METRICS,
    KITTI_OVERLAPS,
    kitti_average_precision,
)
from adperception.evaluation.kitti_results import kitti_detections
from adperception.evaluation.metric_report import metric_table, remarks
from adperception.registry import EVALUATIONS
from adperception.structures import Boxes3D, Detections, KittiCalibration

__all__ = ["KittiAP", "KittiGroundTruth"]

UNKNOWN_OCCLUSION = 3
"""KITTI's value for objects that are harder than every difficulty."""


@runtime_checkable
class KittiGroundTruth(Protocol):
    """What ``KittiAP`` asks of a dataset; ``KITTI`` has it.

    Attributes:
        frame_ids: names of the frames.
        labelled: whether there are label files.
    """

    frame_ids: Sequence[str]
    labelled: bool

    def read_objects(self, index: int) -> list[KittiObject]:
        """The labels of a frame, ``DontCare`` areas included."""

    def read_calibration(self, index: int) -> KittiCalibration | None:
        """The calibration of a frame."""

    def image_size_of(self, index: int) -> tuple[int, int] | None:
        """``(height, width)`` in pixels of a frame's image."""


@EVALUATIONS.register_module()
class KittiAP(DetectionEvaluation):
    """AP of 2D boxes, bird's-eye view and 3D, and orientation similarity, in three difficulties: R11 and R40.

    Predictions are turned into KITTI objects: the 2D box is the projected 3D box clipped to the image.

    Args:
        every_epochs: how often it runs during training.
        classes: the classes to evaluate.
        point_cloud_range: not part of the benchmark, for models that see only a part of the scene: labels whose centre
            lies outside, along x and y, count neither way, and predictions there are dropped.

    Raises:
        ValueError: for a class that KITTI has no minimum overlaps for.
    """

    def __init__(
        self,
        every_epochs: int = 1,
        classes: Sequence[str] = ("Car", "Pedestrian", "Cyclist"),
        point_cloud_range: Sequence[float] | None = None,
    ) -> None:
        super().__init__(every_epochs)
        if point_cloud_range is not None and len(point_cloud_range) != 6:
            raise ValueError(f"KittiAP: point_cloud_range={list(point_cloud_range)} needs 6 numbers.")
        self.point_cloud_range = None if point_cloud_range is None else tuple(point_cloud_range)
        unknown = [name for name in classes if name not in KITTI_OVERLAPS]
        if unknown or not classes:
            raise ValueError(f"KittiAP: classes={list(classes)}; choose some of {', '.join(KITTI_OVERLAPS)}.")
        self.classes = tuple(classes)
        self.headline = tuple(f"{name}_3d_R40_moderate" for name in (*self.classes, "mean"))
        self._dataset: KittiGroundTruth
        self._index = FrameIndex("KittiAP")

    def _bind(self, dataset: Any) -> None:
        if not isinstance(dataset, KittiGroundTruth) or not dataset.labelled:
            raise ValueError(
                f"KittiAP needs the label files of a KITTI tree; {type(dataset).__name__} has none. Evaluate on "
                "KITTI's training folder (train or val), or use OnceAP, which needs boxes only."
            )
        self._index = FrameIndex("KittiAP", dataset.frame_ids)
        self._dataset = dataset

    def score(self, predictions: Mapping[str, Detections]) -> dict[str, float]:
        """KITTI's metrics over the frames of ``predictions``: see ``kitti_average_precision``.

        Raises:
            ValueError: for a frame that the dataset does not have, or that has no calibration or image size.
        """
        results = self.kitti_results(predictions)
        labels = [self._labels(self._index[frame_id]) for frame_id in results]
        return kitti_average_precision(labels, list(results.values()), self.classes)

    def _labels(self, index: int) -> list[KittiObject]:
        """The labels of a frame; those outside the range are marked as harder than every difficulty."""
        labels = self._dataset.read_objects(index)
        calibration = self._dataset.read_calibration(index)
        if self.point_cloud_range is None or calibration is None:
            return labels
        solid = [i for i, label in enumerate(labels) if label.name != DONT_CARE]
        inside = _inside(from_kitti_camera([labels[i] for i in solid], calibration), self.point_cloud_range)
        for i, keep in zip(solid, inside, strict=True):
            if not keep:
                labels[i] = dataclasses.replace(labels[i], occlusion=UNKNOWN_OCCLUSION)
        return labels

    def kitti_results(self, predictions: Mapping[str, Detections]) -> dict[str, list[KittiObject]]:
        """Predictions as KITTI objects by frame name, for ``write_kitti_results``.

        Raises:
            ValueError: as ``score``.
        """
        results = {}
        for frame_id, detections in predictions.items():
            index = self._index[frame_id]
            calibration, size = self._dataset.read_calibration(index), self._dataset.image_size_of(index)
            if calibration is None or size is None:
                missing = "calibration" if calibration is None else "image size"
                raise ValueError(
                    f"KittiAP: frame {frame_id} has no {missing}, so its boxes cannot be projected into the image. "
                    "KITTI trees have calib/, and image_2/ or image_shapes.csv; image_size=(height, width) of the "
                    "dataset replaces the latter."
                )
            if self.point_cloud_range is not None:
                detections = detections.select(_inside(detections.boxes, self.point_cloud_range))
            results[frame_id] = kitti_detections(detections, calibration, size)
        return results

    def report(self, metrics: Mapping[str, float]) -> str:
        """A table for R40 and one for R11, and remarks on classes without ground truth and suspicious zeros."""
        lines = []
        for curve in ("R40", "R11"):
            rows = [
                (f"{name} {key.replace('_', ' ')}", [metrics[f"{name}_{key}_{curve}_{d}"] for d in DIFFICULTIES])
                for name in (*self.classes, "mean")
                for key in KITTI_METRICS
            ]
            lines += [*metric_table(f"KITTI AP {curve} (%)", DIFFICULTIES, rows), ""]
        counted = [name for name in self.classes if metrics[f"{name}_labels"]]
        overlaps = ", ".join("{} {:g} / {:g}".format(name, *KITTI_OVERLAPS[name]) for name in self.classes)
        if self.point_cloud_range is not None:
            x0, y0, _, x1, y1, _ = self.point_cloud_range
            lines.append(f"Only objects with x in {x0:g}..{x1:g} m and y in {y0:g}..{y1:g} m: not the whole benchmark.")
        lines.append(f"Minimum overlaps, strict / loose: {overlaps}. Mean of {', '.join(counted) or 'no class'}.")
        lines += remarks(metrics, self.classes, [f"3d_R11_{difficulty}" for difficulty in DIFFICULTIES])
        return "\n".join(lines)


def _inside(boxes: Boxes3D, limits: tuple[float, ...]) -> NDArray[np.bool_]:
    """``(M,)`` whether the centre lies in the range along x and y."""
    x, y = boxes.boxes[:, 0], boxes.boxes[:, 1]
    return (x >= limits[0]) & (x < limits[3]) & (y >= limits[1]) & (y < limits[4])
