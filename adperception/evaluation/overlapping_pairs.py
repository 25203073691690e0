"""Boxes of many frames in one table, and their overlaps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from adperception.structures import Boxes3D

__all__ = ["BoxTable", "Floats", "Integers", "Mask", "near_pairs", "overlaps", "same_frame_pairs"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]

# Pairs looked at once: some 100 MB of intermediate results.
_BLOCK = 1 << 20


@dataclass(frozen=True)
class BoxTable:
    """Boxes of many frames, one row each.

    Attributes:
        frames: ``(N,)`` frame numbers, ascending.
        names: ``(N,)`` class names.
        boxes: ``(N, 7)`` x, y, z, length, width, height, yaw (metres, radians, box centre).
    """

    frames: Integers
    names: NDArray[np.str_]
    boxes: Floats

    def __post_init__(self) -> None:
        if self.boxes.shape != (len(self), 7) or self.names.shape != (len(self),):
            raise ValueError(
                f"BoxTable: {len(self)} frame numbers, names of shape {self.names.shape} and boxes of shape "
                f"{self.boxes.shape} do not belong together; boxes have the shape (N, 7)."
            )
        if (np.diff(self.frames) < 0).any():
            raise ValueError("BoxTable: frame numbers must ascend. Sort the rows by frame.")

    def __len__(self) -> int:
        return len(self.frames)

    @classmethod
    def of(cls, frames: Sequence[Boxes3D]) -> BoxTable:
        """The boxes of frames 0, 1, 2 ..."""
        numbers = np.repeat(np.arange(len(frames)), [len(boxes) for boxes in frames])
        names = np.array([name for boxes in frames for name in boxes.names], dtype=np.str_)
        rows = [np.zeros((0, 7)), *(boxes.boxes.astype(np.float64) for boxes in frames)]
        return cls(numbers, names, np.concatenate(rows))

    def select(self, chosen: Mask | Integers) -> BoxTable:
        """The chosen rows, in their order."""
        return BoxTable(self.frames[chosen], self.names[chosen], self.boxes[chosen])

    def distances(self) -> Floats:
        """``(N,)`` of the box centres from the origin, in 3D, metres."""
        return np.asarray(np.linalg.norm(self.boxes[:, :3], axis=1))


def same_frame_pairs(first: Integers, second: Integers) -> tuple[Integers, Integers]:
    """All pairs (i, j) with ``first[i] == second[j]``, by i, then by j.

    Args:
        first: ``(N,)`` frame numbers.
        second: ``(M,)`` frame numbers in ascending order.
    """
    start = np.searchsorted(second, first, "left")
    counts = np.searchsorted(second, first, "right") - start
    i = np.repeat(np.arange(len(first)), counts)
    within = np.arange(len(i)) - np.repeat(np.cumsum(counts) - counts, counts)
    return i, within + np.repeat(start, counts)


def near_pairs(a: Floats, a_frames: Integers, b: Floats, b_frames: Integers) -> tuple[Integers, Integers]:
    """The pairs of the same frame whose circumscribed circles, seen from above, touch: no other pair can overlap.

    Args:
        a: ``(N, 7)`` boxes.
        a_frames: ``(N,)`` frame numbers.
        b: ``(M, 7)`` boxes.
        b_frames: ``(M,)`` frame numbers in ascending order.

    Returns:
        ``(P,)`` positions in a, ascending, and in b, ascending for each box of a.
    """
    a_radius, b_radius = (np.hypot(boxes[:, 3], boxes[:, 4]) / 2 for boxes in (a, b))
    counts = np.searchsorted(b_frames, a_frames, "right") - np.searchsorted(b_frames, a_frames, "left")
    # Blocks of rows of a with about _BLOCK pairs each.
    block = np.cumsum(counts) // _BLOCK
    found: list[tuple[Integers, Integers]] = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for rows in np.split(np.arange(len(a)), np.flatnonzero(np.diff(block)) + 1):
        i, j = same_frame_pairs(a_frames[rows], b_frames)
        i = rows[i]
        near = np.hypot(a[i, 0] - b[j, 0], a[i, 1] - b[j, 1]) <= a_radius[i] + b_radius[j]
        found.append((i[near], j[near]))
    return np.concatenate([i for i, _ in found]), np.concatenate([j for _, j in found])


def overlaps(function: Callable[[Tensor, Tensor], Tensor], a: Floats, b: Floats) -> Floats:
    """``function`` (a pairwise overlap of ``adperception.geometry.rotated_iou``) of boxes and their partners."""
    return np.asarray(function(torch.from_numpy(np.ascontiguousarray(a)), torch.from_numpy(np.ascontiguousarray(b))))
