"""What a head finds in one frame, and how overlapping finds are thinned out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from adperception.geometry.nms import rotated_nms
from adperception.structures import Boxes3D, Detections

__all__ = ["ScoredBoxes", "Suppression"]


class ScoredBoxes(NamedTuple):
    """N boxes of one frame.

    Attributes:
        boxes: ``(N, 7)`` x, y, z, length, width, height, yaw (metres, radians, LiDAR frame).
        scores: ``(N,)`` in 0..1.
        labels: ``(N,)`` int64 positions in the model's ``class_names``.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor

    def select(self, index: Tensor) -> ScoredBoxes:
        """The boxes at ``index`` (a boolean mask or positions), in that order."""
        return ScoredBoxes(self.boxes[index], self.scores[index], self.labels[index])

    def to_detections(self, class_names: Sequence[str]) -> Detections:
        """The same on the CPU, with class names."""
        names = tuple(class_names[label] for label in self.labels.tolist())
        return Detections(Boxes3D(self.boxes.float().cpu().numpy(), names), self.scores.float().cpu().numpy())


@dataclass(frozen=True)
class Suppression:
    """Keeps the best of boxes that overlap, whatever their class.

    Attributes:
        score_threshold: boxes with a lower score are dropped.
        nms_iou: of two boxes that overlap by more than this, seen from above, the one with the lower score is dropped.
        nms_pre_max: only so many boxes, the best, are compared.
        nms_post_max: at most so many are kept.

    Raises:
        ValueError: for a value that is impossible.
    """

    score_threshold: float
    nms_iou: float
    nms_pre_max: int
    nms_post_max: int

    def __post_init__(self) -> None:
        for name in ("score_threshold", "nms_iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"Suppression: {name}={getattr(self, name)} must lie between 0 and 1.")
        for name in ("nms_pre_max", "nms_post_max"):
            if getattr(self, name) < 1:
                raise ValueError(f"Suppression: {name}={getattr(self, name)} must be at least 1.")

    def __call__(self, found: ScoredBoxes) -> ScoredBoxes:
        """What is left of ``found``, best first.

        Boxes that are not finite are dropped: while a network learns, or while its batch-norm statistics lag behind, a
        predicted logarithm of a size can be too large for its exponential.
        """
        found = found.select((found.scores >= self.score_threshold) & found.boxes.isfinite().all(dim=-1))
        kept = rotated_nms(
            found.boxes, found.scores, self.nms_iou, pre_max=self.nms_pre_max, post_max=self.nms_post_max
        )
        return found.select(kept)
