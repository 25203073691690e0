"""Scored boxes: what a detector says about one frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adperception.structures.boxes3d import Boxes3D

__all__ = ["Detections"]


@dataclass(frozen=True)
class Detections:
    """M detected objects of one frame.

    Attributes:
        boxes: the boxes with their class names, in the LiDAR frame (see ``Boxes3D``).
        scores: ``(M,)`` float32 confidences in 0..1.
    """

    boxes: Boxes3D
    scores: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.scores.shape != (len(self.boxes),):
            raise ValueError(f"Detections: {len(self.boxes)} boxes but scores of shape {self.scores.shape}.")

    def __len__(self) -> int:
        return len(self.boxes)

    @classmethod
    def empty(cls) -> Detections:
        """Nothing found."""
        return cls(Boxes3D.empty(), np.zeros(0, dtype=np.float32))

    def select(self, index: NDArray[np.bool_] | Sequence[int] | NDArray[np.integer]) -> Detections:
        """The detections at ``index`` (a boolean mask or positions), in that order."""
        chosen = np.asarray(index)
        return Detections(self.boxes.select(chosen), self.scores[chosen if chosen.size else chosen.astype(np.int64)])
