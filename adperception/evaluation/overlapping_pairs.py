"""Overlaps of boxes over many frames at once."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Floats", "Integers", "Mask", "near_pairs", "overlaps", "same_frame_pairs"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]

# Pairs handled at once: some 100 MB of intermediate results.
_BLOCK = 1 << 18


def same_frame_pairs(first: Integers, second: Integers) -> tuple[Integers, Integers]:
    """All pairs (i, j) with ``first[i] == second[j]``, by i, then by j.

    Args:
        first: ``(N,)`` frame numbers.
        second: ``(M,)`` frame numbers in ascending order.
    """
    start = np.searchsorted(second, first, "left")
    counts = np.searchsorted(second, first, "right") - start
    total = int(counts.sum())
    i = np.repeat(np.arange(len(first)), counts)
    within = np.arange(total) - np.repeat(np.cumsum(counts) - counts, counts)
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
    blocks = np.searchsorted(np.cumsum(counts), np.arange(_BLOCK, int(counts.sum()) + _BLOCK, _BLOCK))
    found: list[tuple[Integers, Integers]] = []
    start = 0
    for stop in [*(blocks + 1).tolist(), len(a)]:
        stop = min(stop, len(a))
        i, j = same_frame_pairs(a_frames[start:stop], b_frames)
        i += start
        apart = np.hypot(a[i, 0] - b[j, 0], a[i, 1] - b[j, 1]) > a_radius[i] + b_radius[j]
        found.append((i[~apart], j[~apart]))
        start = stop
    return np.concatenate([i for i, _ in found]), np.concatenate([j for _, j in found])


def overlaps(function: Callable[[Tensor, Tensor], Tensor], a: Floats, b: Floats, i: Integers, j: Integers) -> Floats:
    """``function`` (pairwise boxes to overlaps) of the boxes ``a[i]`` and ``b[j]``, block by block, in float64."""
    result = np.zeros(len(i))
    for start in range(0, len(i), _BLOCK):
        block = slice(start, start + _BLOCK)
        first, second = torch.from_numpy(a[i[block]]), torch.from_numpy(b[j[block]])
        result[block] = function(first, second).numpy()
    return result
