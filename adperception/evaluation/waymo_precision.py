"""Waymo's average precision on tables of boxes: the rules of the official metric, vectorised over frames and cut-offs.

At each score cut-off 0, 0.01 ... 1 the predictions that reach it are matched with the ground truth of their frame and
type: the matching of largest total IoU among pairs that reach the type's minimum (3D IoU in steps of 1e-6). Matched
predictions are true positives, whatever the level of their partner; the rest are false positives; unmatched ground
truth of level <= L is missed at level L. For the breakdown by range, predictions and ground truth each belong to the
shell that their own centre lies in. In APH, a true positive counts 1 - |heading error| / pi in the precision.

Source: Sun et al., "Scalability in Perception for Autonomous Driving: Waymo Open Dataset", CVPR 2020, and the rules of
its metrics library.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from adperception.evaluation.greedy_matching import greedy_matches
from adperception.evaluation.metric_report import mean_of_defined
from adperception.evaluation.overlapping_pairs import BoxTable, Floats, Integers, Mask, near_pairs, overlaps
from adperception.geometry.rotated_iou import rotated_iou_3d_pairs

__all__ = [
    "WAYMO_METRICS",
    "WAYMO_OVERLAPS",
    "WAYMO_RANGES",
    "area_under_curve",
    "waymo_average_precision",
    "waymo_metric",
]

WAYMO_OVERLAPS: Mapping[str, float] = {"Vehicle": 0.7, "Pedestrian": 0.5, "Cyclist": 0.5}
"""Minimum 3D IoU of each type."""
WAYMO_RANGES: Mapping[str, tuple[float, float]] = {
    "overall": (0.0, math.inf),
    "0-30m": (0.0, 30.0),
    "30-50m": (30.0, 50.0),
    "50m-inf": (50.0, math.inf),
}
"""Shells of 3D distance: from, and below, in metres."""
WAYMO_METRICS = ("L1_AP", "L1_APH", "L2_AP", "L2_APH")

# The official cut-offs and scores are float32: 0.57 must reach 0.57.
_CUT_OFFS = (np.arange(101) * 0.01).astype(np.float32)
_RECALL_STEP = 0.05
# Of a gap between recalls: 0.75 and 0.70 are not more than a step apart.
_TOLERANCE = 1e-6
# Pairs matched at once: bounds the memory of pairs x cut-offs.
_BLOCK = 1 << 16


def waymo_average_precision(
    labels: BoxTable,
    difficulty: Integers,
    predictions: BoxTable,
    scores: Floats,
    classes: Mapping[str, float] = WAYMO_OVERLAPS,
) -> dict[str, float]:
    """Waymo's metrics by name, in percent.

    Args:
        labels: ground truth without the boxes that hold no point.
        difficulty: ``(N,)`` level of each label, 1 or 2.
        predictions: of the same frames.
        scores: ``(M,)`` in 0..1.
        classes: minimum 3D IoU of each class to evaluate.

    Returns:
        ``<class>_<range>_<L1|L2>_<AP|APH>`` for the ranges of ``WAYMO_RANGES``, "overall" unnamed; NaN where there is
        no ground truth of that level. The class "mean" is the mean of those that are not NaN. Also
        ``<class>_labels`` and ``<class>_predictions`` (counts) and ``<class>_best_3d_iou`` (NaN if either is missing).

    Raises:
        ValueError: for a level that is neither 1 nor 2.
    """
    if not np.isin(difficulty, (1, 2)).all():
        raise ValueError(f"Waymo AP: levels are 1 and 2, found {sorted(set(np.asarray(difficulty).tolist()))}.")
    metrics: dict[str, float] = {}
    for name, minimum in classes.items():
        of_class, found = labels.names == name, predictions.names == name
        matches = _Class.of(labels.select(of_class), difficulty[of_class], predictions.select(found), scores[found])
        metrics |= {f"{name}_{key}": value for key, value in matches.metrics(minimum).items()}
    for shell in WAYMO_RANGES:
        for key in (waymo_metric(shell, metric) for metric in WAYMO_METRICS):
            metrics[f"mean_{key}"] = mean_of_defined(metrics[f"{name}_{key}"] for name in classes)
    return metrics


def area_under_curve(recall: Floats, precision: Floats) -> float:
    """Area under the precision that is made monotone from the right, in Waymo's way.

    Of points with the same recall the most precise counts. Where two recalls lie more than 0.05 apart, points are put
    in every 0.05 below the higher one, with its precision; from the last of them the curve rises linearly. Recall 0
    has the precision of its neighbour.

    Args:
        recall: ``(K,)``.
        precision: ``(K,)``.
    """
    best: dict[float, float] = {0.0: 1.0}
    for r, p in zip(recall.tolist(), precision.tolist(), strict=True):
        best[r] = max(p, best.get(r, 0.0))
    points: list[tuple[float, float]] = []
    highest = 0.0
    for r in sorted(best, reverse=True):
        while points and points[-1][0] - r > _RECALL_STEP + _TOLERANCE:
            points.append((points[-1][0] - _RECALL_STEP, highest))
        highest = max(highest, best[r])
        points.append((r, highest))
    if len(points) > 1:
        points[-1] = (0.0, points[-2][1])
    return sum((right[0] - left[0]) * (right[1] + left[1]) / 2 for right, left in pairwise(points))


@dataclass(frozen=True)
class _Class:
    """Labels and predictions of one class, with the overlaps above 0 as label, prediction, 3D IoU."""

    labels: BoxTable
    difficulty: Integers
    predictions: BoxTable
    scores: Floats
    pairs: tuple[Integers, Integers, Floats]

    @classmethod
    def of(cls, labels: BoxTable, difficulty: Integers, predictions: BoxTable, scores: Floats) -> _Class:
        i, j = near_pairs(labels.boxes, labels.frames, predictions.boxes, predictions.frames)
        iou = overlaps(rotated_iou_3d_pairs, labels.boxes[i], predictions.boxes[j]).round(6)
        meet = iou > 0
        return cls(labels, difficulty, predictions, scores, (i[meet], j[meet], iou[meet]))

    def metrics(self, minimum: float) -> dict[str, float]:
        """All metrics of the class by their name without the class."""
        best = float(self.pairs[2].max(initial=0.0)) if len(self.labels) and len(self.predictions) else math.nan
        values = {
            "labels": float(len(self.labels)),
            "predictions": float(len(self.predictions)),
            "best_3d_iou": best,
        }
        for shell, (near, far) in WAYMO_RANGES.items():
            sides = (table.distances() for table in (self.labels, self.predictions))
            inside = [(near <= distance) & (distance < far) for distance in sides]
            values |= {waymo_metric(shell, metric): value for metric, value in self._shell(minimum, *inside).items()}
        return values

    def _shell(self, minimum: float, label_inside: Mask, inside: Mask) -> dict[str, float]:
        """The four metrics of the labels and predictions inside a shell."""
        i, j, iou = self.pairs
        chosen = label_inside[i] & inside[j] & (iou >= minimum)
        true, weighted, matched = self._count(i[chosen], j[chosen], iou[chosen])
        ascending = np.sort(self.scores[inside].astype(np.float32))
        predicted = len(ascending) - np.searchsorted(ascending, _CUT_OFFS, "left")
        values = {}
        for level in (1, 2):
            of_level = int((self.difficulty[label_inside] <= level).sum())
            missed = of_level - matched[:level].sum(axis=0)
            recall = true / np.maximum(true + missed, 1)
            for metric, positives in (("AP", true), ("APH", weighted)):
                precision = np.where(true > 0, positives / np.maximum(predicted, 1), 1.0)
                area = area_under_curve(recall, precision) if of_level else math.nan
                values[f"L{level}_{metric}"] = 100 * area
        return values

    def _count(self, i: Integers, j: Integers, iou: Floats) -> tuple[Integers, Floats, Integers]:
        """True positives ``(101,)``, the same weighted by heading, matched labels of levels 1 and 2 ``(2, 101)``."""
        error = np.abs(self.labels.boxes[i, 6] - self.predictions.boxes[j, 6]) % (2 * np.pi)
        weight = 1 - np.minimum(error, 2 * np.pi - error) / np.pi
        true = np.zeros(len(_CUT_OFFS), dtype=np.int64)
        weighted = np.zeros(len(_CUT_OFFS))
        matched = np.zeros((2, len(_CUT_OFFS)), dtype=np.int64)
        group = _groups(i, j, len(self.labels), len(self.predictions))
        order = np.lexsort((-iou, group))
        # Cut between groups, so that a block is matched on its own.
        starts = np.flatnonzero(np.diff(group[order], prepend=-1))
        cuts = starts[np.flatnonzero(np.diff(starts // _BLOCK)) + 1]
        for block in np.split(order, cuts):
            taken = _largest_matching(group[block], i[block], j[block], iou[block], self.scores[j[block]])
            true += taken.sum(axis=0)
            weighted += weight[block] @ taken.astype(np.float64)
            for level in (1, 2):
                matched[level - 1] += taken[self.difficulty[i[block]] == level].sum(axis=0)
        return true, weighted, matched


def _groups(i: Integers, j: Integers, labels: int, predictions: int) -> Integers:
    """``(P,)`` number of the connected group of overlapping boxes that each pair belongs to."""
    nodes = labels + predictions
    graph = coo_matrix((np.ones(len(i), dtype=np.int8), (i, labels + j)), shape=(nodes, nodes))
    _, group = connected_components(graph, directed=False)
    return np.asarray(group[i], dtype=np.int64)


def _largest_matching(group: Integers, i: Integers, j: Integers, iou: Floats, scores: Floats) -> Mask:
    """``(P, 101)`` pairs of the matching of largest total IoU among the predictions that reach each cut-off.

    Args:
        group: ``(P,)`` ascending; within a group, pairs come by descending IoU.
        i: ``(P,)`` labels.
        j: ``(P,)`` predictions.
        iou: ``(P,)``.
        scores: ``(P,)`` of the pair's prediction.
    """
    candidate = scores.astype(np.float32)[:, None] >= _CUT_OFFS
    # Where one label meets several predictions, or the other way round, the largest IoU is the best matching.
    taken = greedy_matches(group, i, j, candidate)
    _, first, sizes = np.unique(group, return_index=True, return_counts=True)
    for start, size in zip(first[sizes > 2].tolist(), sizes[sizes > 2].tolist(), strict=True):
        pairs = slice(start, start + size)
        rows, row = np.unique(i[pairs], return_inverse=True)
        columns, column = np.unique(j[pairs], return_inverse=True)
        if min(len(rows), len(columns)) == 1:
            continue
        active, cases = np.unique(candidate[pairs], axis=1, return_inverse=True)
        for case in range(active.shape[1]):
            usable = np.zeros((len(rows), len(columns)))
            usable[row[active[:, case]], column[active[:, case]]] = iou[pairs][active[:, case]]
            best = np.zeros(usable.shape, dtype=np.bool_)
            best[linear_sum_assignment(usable, maximize=True)] = True
            taken[pairs, cases.ravel() == case] = (best[row, column] & active[:, case])[:, None]
    return taken


def waymo_metric(shell: str, metric: str) -> str:
    """The name of a metric of a range, without the class: ``L2_AP`` overall, ``0-30m_L2_AP``."""
    return metric if shell == "overall" else f"{shell}_{metric}"
