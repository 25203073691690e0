"""Oriented 3D boxes in the LiDAR frame: the one box convention of the package."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Boxes3D"]


@dataclass(frozen=True)
class Boxes3D:
    """M boxes with class names.

    Attributes:
        boxes: ``(M, 7)`` float32 ``(x, y, z, length, width, height, yaw)``: box *centre* in metres, LiDAR frame
            (x forward, y left, z up), yaw in radians counter-clockwise from +x. Length lies along the heading.
        names: M class names, e.g. ``"Car"``.
    """

    boxes: NDArray[np.float32]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.boxes.ndim != 2 or self.boxes.shape[1] != 7:
            raise ValueError(f"Boxes3D: boxes have shape {self.boxes.shape}, expected (M, 7).")
        if len(self.names) != len(self.boxes):
            raise ValueError(f"Boxes3D: {len(self.boxes)} boxes but {len(self.names)} class names.")

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def empty(cls) -> Boxes3D:
        """No boxes."""
        return cls(np.zeros((0, 7), dtype=np.float32), ())

    def select(self, index: NDArray[np.bool_] | Sequence[int] | NDArray[np.integer]) -> Boxes3D:
        """The boxes at ``index`` (a boolean mask or positions), in that order."""
        chosen = np.asarray(index)
        positions = np.arange(len(self))[chosen if chosen.size else chosen.astype(np.int64)]
        return Boxes3D(self.boxes[positions], tuple(self.names[i] for i in positions))

    def corners(self) -> NDArray[np.float32]:
        """``(M, 8, 3)`` corners in metres: the four of the bottom face counter-clockwise, then the four above them."""
        half = self.boxes[:, None, 3:6] / 2
        signs = np.array(
            [
                [1, 1, -1],
                [-1, 1, -1],
                [-1, -1, -1],
                [1, -1, -1],
                [1, 1, 1],
                [-1, 1, 1],
                [-1, -1, 1],
                [1, -1, 1],
            ],
            dtype=np.float32,
        )
        local = signs[None] * half
        cos, sin = np.cos(self.boxes[:, 6:7]), np.sin(self.boxes[:, 6:7])
        x = local[..., 0] * cos - local[..., 1] * sin
        y = local[..., 0] * sin + local[..., 1] * cos
        rotated = np.stack([x, y, local[..., 2]], axis=-1) + self.boxes[:, None, :3]
        return rotated.astype(np.float32)
