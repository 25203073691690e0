"""Waymo's average precision as an evaluation of a run or of stored predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from adperception.evaluation.detection_evaluation import DetectionEvaluation
from adperception.evaluation.frame_index import FrameIndex
from adperception.evaluation.metric_report import metric_table, remarks
from adperception.evaluation.overlapping_pairs import BoxTable
from adperception.evaluation.waymo_precision import (
    WAYMO_METRICS,
    WAYMO_OVERLAPS,
    WAYMO_RANGES,
    waymo_average_precision,
    waymo_metric,
)
from adperception.registry import EVALUATIONS
from adperception.structures import Boxes3D, Detections

__all__ = ["WaymoAP", "WaymoGroundTruth"]


@runtime_checkable
class WaymoGroundTruth(Protocol):
    """What ``WaymoAP`` asks of a dataset.

    Attributes:
        frame_ids: names of the frames.
    """

    frame_ids: Sequence[str]

    def read_ground_truth(self, index: int) -> tuple[Boxes3D, NDArray[np.integer]]:
        """The boxes of a frame that hold points, and the level of each, 1 or 2."""


@EVALUATIONS.register_module()
class WaymoAP(DetectionEvaluation):
    """AP and APH at LEVEL_1 and LEVEL_2, for each class, overall and by range, as the official metric computes them.

    Args:
        every_epochs: how often it runs during training.
        classes: minimum 3D IoU of each class to evaluate.

    Raises:
        ValueError: for no class, or an IoU that is not between 0 and 1.
    """

    def __init__(self, every_epochs: int = 1, classes: Mapping[str, float] = WAYMO_OVERLAPS) -> None:
        super().__init__(every_epochs)
        if not classes or not all(0 < iou < 1 for iou in classes.values()):
            raise ValueError(f"WaymoAP: classes={dict(classes)} must give at least one class an IoU between 0 and 1.")
        self.classes = dict(classes)
        self.headline = tuple(f"{name}_L2_{metric}" for name in (*self.classes, "mean") for metric in ("AP", "APH"))
        self._dataset: WaymoGroundTruth
        self._index = FrameIndex("WaymoAP")

    def _bind(self, dataset: Any) -> None:
        if not isinstance(dataset, WaymoGroundTruth):
            raise ValueError(
                f"WaymoAP needs ground truth with levels of difficulty, which {type(dataset).__name__} does not have. "
                "Use it with Waymo, or use OnceAP, which needs boxes only."
            )
        self._index = FrameIndex("WaymoAP", dataset.frame_ids)
        self._dataset = dataset

    def score(self, predictions: Mapping[str, Detections]) -> dict[str, float]:
        """Waymo's metrics over the frames of ``predictions``: see ``waymo_average_precision``.

        Raises:
            ValueError: for a frame that the dataset does not have.
        """
        truth = [self._dataset.read_ground_truth(self._index[frame_id]) for frame_id in predictions]
        return waymo_average_precision(
            BoxTable.of([boxes for boxes, _ in truth]),
            np.concatenate([np.zeros(0, np.int64), *(difficulty for _, difficulty in truth)]).astype(np.int64),
            BoxTable.of([detections.boxes for detections in predictions.values()]),
            np.concatenate([np.zeros(0), *(detections.scores for detections in predictions.values())]),
            self.classes,
        )

    def report(self, metrics: Mapping[str, float]) -> str:
        """A table by class and range, and remarks on classes without ground truth and suspicious zeros."""
        rows = [
            (f"{name} {shell}", [metrics[f"{name}_{waymo_metric(shell, metric)}"] for metric in WAYMO_METRICS])
            for name in (*self.classes, "mean")
            for shell in WAYMO_RANGES
        ]
        lines = metric_table("Waymo (%)", [metric.replace("_", " ") for metric in WAYMO_METRICS], rows)
        counted = [name for name in self.classes if metrics[f"{name}_labels"]]
        overlaps = ", ".join(f"{name} {iou:g}" for name, iou in self.classes.items())
        lines += ["", f"Minimum 3D IoU: {overlaps}. Mean of {', '.join(counted) or 'no class'}."]
        return "\n".join([*lines, *remarks(metrics, self.classes, ["L2_AP"])])
