"""Which found object centres are right, and the average precision that follows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from adperception.structures import RadarObjects

__all__ = ["all_point_average_precision", "circular_difference", "match_centers"]


def circular_difference(first: NDArray[np.floating], second: NDArray[np.floating], period: int) -> NDArray[np.float64]:
    """``first - second`` on an axis that wraps around, in ``[-period / 2, period / 2)``."""
    half = period / 2
    difference: NDArray[np.float64] = np.mod(np.subtract(first, second, dtype=np.float64) + half, period) - half
    return difference


def match_centers(
    found: RadarObjects, truth: RadarObjects, range_cells: float, doppler_cells: float, doppler_bins: int
) -> NDArray[np.int64]:
    """``(N,)`` the true object that each found one matches, -1 for a false alarm.

    A found centre matches a true one of its class that is at most ``range_cells`` rows and ``doppler_cells`` columns
    (circular) away; the azimuth does not matter. The highest score chooses first and takes the nearest true object, in
    units of the tolerances, that is still free.
    """
    matches = np.full(len(found), -1, dtype=np.int64)
    rows = np.abs(np.subtract.outer(found.cells[:, 0], truth.cells[:, 0]).astype(np.float64)) / range_cells
    columns = circular_difference(found.cells[:, None, 2], truth.cells[None, :, 2], doppler_bins)
    columns = np.abs(columns) / doppler_cells
    possible = (rows <= 1) & (columns <= 1) & (found.class_ids[:, None] == truth.class_ids[None, :])
    distance = np.where(possible, rows**2 + columns**2, np.inf)
    for index in np.argsort(-found.scores, kind="stable"):
        if len(truth) and np.isfinite(distance[index].min()):
            matches[index] = distance[index].argmin()
            distance[:, matches[index]] = np.inf
    return matches


def all_point_average_precision(scores: NDArray[np.floating], hits: NDArray[np.bool_], labels: int) -> float:
    """Area under the precision-recall curve, each precision raised to the best one at this recall or a higher one.

    Detections of equal score enter the curve together, so their order does not matter.

    Args:
        scores: ``(N,)`` of the detections of all frames.
        hits: ``(N,)`` whether they match a true object.
        labels: number of true objects.

    Returns:
        0 to 1; NaN if there is no true object.
    """
    if not labels:
        return float("nan")
    if not len(scores):
        return 0.0
    order = np.argsort(-scores, kind="stable")
    last_of_score = np.append(np.diff(scores[order]) != 0, True)
    true_positives = np.cumsum(hits[order])[last_of_score]
    precision = true_positives / (np.flatnonzero(last_of_score) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    steps = np.diff(true_positives, prepend=0) / labels
    return float(np.sum(steps * precision))
