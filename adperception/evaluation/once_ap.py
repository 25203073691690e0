"""ONCE's average precision as an evaluation of a run or of stored predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np

from adperception.evaluation.detection_evaluation import DetectionEvaluation
from adperception.evaluation.frame_index import FrameIndex
from adperception.evaluation.metric_report import metric_table, remarks
from adperception.evaluation.once_precision import (
    ONCE_CLASSES,
    ONCE_RANGES,
    ROTATIONS,
    ClassGroup,
    once_average_precision,
    range_names,
)
from adperception.evaluation.overlapping_pairs import BoxTable
from adperception.registry import EVALUATIONS
from adperception.structures import Boxes3D, Detections

__all__ = ["LabelledFrames", "OnceAP"]

_ROTATION_NOTES = {
    "released_evaluator": "overlaps as in the released evaluator, which turns boxes clockwise by their yaw: comparable "
    "with published numbers",
    "counter_clockwise_yaw": "overlaps with the true, counter-clockwise yaw: not comparable with published numbers",
}


@runtime_checkable
class LabelledFrames(Protocol):
    """What ``OnceAP`` asks of a dataset: frames with boxes.

    Attributes:
        frame_ids: names of the frames.
    """

    frame_ids: Sequence[str]

    def read_boxes(self, index: int) -> Boxes3D | None:
        """The boxes of a frame; ``None`` if it has no labels."""


@EVALUATIONS.register_module()
class OnceAP(DetectionEvaluation):
    """AP by range with ONCE's orientation rule; with other classes and ranges for any dataset that has boxes.

    Args:
        every_epochs: how often it runs during training.
        classes: groups of classes, each ``dict(name=..., minimum_iou=..., members=[...])``; by default ONCE's.
        ranges: limits in metres between the ranges.
        rotation: ``"released_evaluator"`` (comparable with published numbers) or ``"counter_clockwise_yaw"`` (the
            geometrically right overlaps), see :mod:`adperception.evaluation.once_precision`.

    Raises:
        ValueError: for an option outside its range.
    """

    def __init__(
        self,
        every_epochs: int = 1,
        classes: Sequence[Mapping[str, Any] | ClassGroup] = ONCE_CLASSES,
        ranges: Sequence[float] = ONCE_RANGES,
        rotation: str = "released_evaluator",
    ) -> None:
        super().__init__(every_epochs)
        if rotation not in ROTATIONS:
            raise ValueError(f'OnceAP: rotation="{rotation}" is unknown; choose {" or ".join(ROTATIONS)}.')
        if list(ranges) != sorted(set(ranges)) or not all(limit > 0 for limit in ranges):
            raise ValueError(f"OnceAP: ranges={list(ranges)} must be ascending distances in metres, such as [30, 50].")
        if not classes:
            raise ValueError("OnceAP: classes=[] leaves nothing to evaluate.")
        self.classes = tuple(c if isinstance(c, ClassGroup) else _class_group(c) for c in classes)
        self.ranges = tuple(float(limit) for limit in ranges)
        self.rotation = rotation
        self.headline = tuple(f"{name}_overall_AP" for name in (*(group.name for group in self.classes), "mean"))
        self._dataset: LabelledFrames
        self._index = FrameIndex("OnceAP")

    def _bind(self, dataset: Any) -> None:
        if not isinstance(dataset, LabelledFrames):
            raise ValueError(
                f"OnceAP needs a dataset with read_boxes(index) and frame_ids; {type(dataset).__name__} is none."
            )
        self._dataset, self._index = dataset, FrameIndex("OnceAP", dataset.frame_ids)
        self._boxes(dataset.frame_ids[0])

    def score(self, predictions: Mapping[str, Detections]) -> dict[str, float]:
        """ONCE's metrics over the frames of ``predictions``: see ``once_average_precision``.

        Raises:
            ValueError: for a frame that the dataset does not have, or that has no labels.
        """
        return once_average_precision(
            BoxTable.of([self._boxes(frame_id) for frame_id in predictions]),
            BoxTable.of([detections.boxes for detections in predictions.values()]),
            np.concatenate([np.zeros(0), *(detections.scores for detections in predictions.values())]),
            self.classes,
            self.ranges,
            self.rotation,
        )

    def report(self, metrics: Mapping[str, float]) -> str:
        """A table by class and range, the rotation that was used, and remarks on missing classes and zeros."""
        names = [group.name for group in self.classes]
        shells = range_names(self.ranges)
        rows = [(name, [metrics[f"{name}_{shell}_AP"] for shell in shells]) for name in (*names, "mean")]
        counted = [name for name in names if metrics[f"{name}_labels"]]
        overlaps = ", ".join(f"{group.name} {group.minimum_iou:g}" for group in self.classes)
        lines = [
            *metric_table("ONCE AP (%)", shells, rows),
            "",
            f"Minimum 3D IoU: {overlaps}. Mean of {', '.join(counted) or 'no class'}.",
            f'rotation="{self.rotation}": {_ROTATION_NOTES[self.rotation]}.',
        ]
        return "\n".join([*lines, *remarks(metrics, names, ["overall_AP"])])

    def _boxes(self, frame_id: str) -> Boxes3D:
        boxes = self._dataset.read_boxes(self._index[frame_id])
        if boxes is None:
            raise ValueError(
                f"OnceAP: frame {frame_id} of {type(self._dataset).__name__} has no labels. Evaluate on a labelled "
                "split, or take OnceAP out of evaluations=."
            )
        return boxes


def _class_group(section: Mapping[str, Any]) -> ClassGroup:
    try:
        group = ClassGroup(section["name"], float(section["minimum_iou"]), tuple(section.get("members", ())))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"OnceAP: classes holds {dict(section)}; write dict(name=..., minimum_iou=..., members=[...])."
        ) from error
    unknown = set(section) - {"name", "minimum_iou", "members"}
    if unknown or not 0 < group.minimum_iou < 1:
        problem = f"unknown key {sorted(unknown)[0]}" if unknown else "minimum_iou must lie between 0 and 1"
        raise ValueError(f"OnceAP: classes holds {dict(section)}: {problem}.")
    return group
