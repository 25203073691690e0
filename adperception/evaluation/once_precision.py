"""ONCE's average precision on tables of boxes: the rules of the benchmark's evaluation, vectorised over all frames.

Matching goes as in KITTI's evaluation (see :mod:`adperception.evaluation.greedy_matching`), with these differences. A
pair whose headings differ by more than 90 degrees has IoU 0. For a range, ground truth and predictions whose centre
lies outside it are ignored, whatever their class. Thresholds are drawn at 50 equal steps of recall, and AP is the
mean of the precision, made monotone from the right, over the points 1..50.

The released evaluator turns boxes clockwise by their yaw when it computes overlaps, while the yaw of the data is
counter-clockwise: two nearly equal boxes still overlap nearly as they should, but AP moves by up to a point. Published
numbers were made so, hence it is the default here; ``counter_clockwise_yaw`` gives the geometrically right value.

Source: Mao et al., "One Million Scenes for Autonomous Driving: ONCE Dataset", NeurIPS datasets track 2021.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from adperception.evaluation.greedy_matching import COUNTED, IGNORED, LEFT_OUT, LabelsChoose
from adperception.evaluation.metric_report import mean_of_defined
from adperception.evaluation.overlapping_pairs import BoxTable, Floats, Integers, Mask, near_pairs, overlaps
from adperception.geometry.rotated_iou import rotated_iou_3d_pairs

__all__ = [
    "ONCE_CLASSES",
    "ONCE_RANGES",
    "ROTATIONS",
    "ClassGroup",
    "once_average_precision",
    "once_thresholds",
    "range_names",
]

ROTATIONS = ("released_evaluator", "counter_clockwise_yaw")
ONCE_RANGES = (30.0, 50.0)
"""Limits between the ranges in metres."""

_RECALL_STEPS = 50


@dataclass(frozen=True)
class ClassGroup:
    """Classes that are evaluated as one.

    Attributes:
        name: of the group, in the metrics.
        minimum_iou: a match needs a 3D IoU above it.
        members: class names; the group's own name always belongs to it.
    """

    name: str
    minimum_iou: float
    members: tuple[str, ...] = ()


ONCE_CLASSES = (
    ClassGroup("Vehicle", 0.7, ("Car", "Bus", "Truck")),
    ClassGroup("Pedestrian", 0.3),
    ClassGroup("Cyclist", 0.5),
)


def once_average_precision(
    labels: BoxTable,
    predictions: BoxTable,
    scores: Floats,
    classes: Sequence[ClassGroup] = ONCE_CLASSES,
    ranges: Sequence[float] = ONCE_RANGES,
    rotation: str = "released_evaluator",
) -> dict[str, float]:
    """ONCE's metrics by name, in percent.

    Args:
        labels: ground truth.
        predictions: of the same frames.
        scores: ``(M,)``.
        classes: the groups to evaluate.
        ranges: limits in metres between the ranges, by the 3D distance of the box centre.
        rotation: one of ``ROTATIONS``.

    Returns:
        ``<group>_<range>_AP`` for overall and each of ``range_names(ranges)``; NaN where there is no ground truth. The
        group "mean" is the mean of those that are not NaN. Also ``<group>_labels`` and ``<group>_predictions``
        (counts) and ``<group>_best_3d_iou`` (whatever the heading; NaN if either is missing).

    Raises:
        ValueError: for an unknown rotation.
    """
    if rotation not in ROTATIONS:
        raise ValueError(f'ONCE AP: rotation="{rotation}" is unknown; choose {" or ".join(ROTATIONS)}.')
    i, j = near_pairs(labels.boxes, labels.frames, predictions.boxes, predictions.frames)
    turn = np.array([1.0] * 6 + [-1.0 if rotation == "released_evaluator" else 1.0])
    iou = overlaps(rotated_iou_3d_pairs, labels.boxes[i] * turn, predictions.boxes[j] * turn)
    error = np.abs(labels.boxes[i, 6] - predictions.boxes[j, 6]) % (2 * np.pi)
    towards = np.where(np.minimum(error, 2 * np.pi - error) > np.pi / 2, 0.0, iou)

    shells = dict(zip(range_names(ranges), [(0.0, math.inf), *pairwise([0.0, *ranges, math.inf])], strict=True))
    metrics: dict[str, float] = {}
    for group in classes:
        names = (group.name, *group.members)
        of_group, found = np.isin(labels.names, names), np.isin(predictions.names, names)
        best = float(iou[of_group[i] & found[j]].max(initial=0.0))
        metrics[f"{group.name}_labels"] = float(of_group.sum())
        metrics[f"{group.name}_predictions"] = float(found.sum())
        metrics[f"{group.name}_best_3d_iou"] = best if of_group.any() and found.any() else math.nan
        for shell, limits in shells.items():
            label_roles, roles = _roles(labels, of_group, *limits), _roles(predictions, found, *limits)
            choose = LabelsChoose.of(labels.frames, (i, j, towards), group.minimum_iou, label_roles, roles, scores)
            metrics[f"{group.name}_{shell}_AP"] = _average_precision(choose)
    for shell in shells:
        metrics[f"mean_{shell}_AP"] = mean_of_defined(metrics[f"{group.name}_{shell}_AP"] for group in classes)
    return metrics


def range_names(ranges: Sequence[float]) -> list[str]:
    """``overall``, ``0-30m``, ``30-50m``, ``50m-inf`` for the limits 30 and 50."""
    limits = [0.0, *ranges]
    between = [f"{near:g}-{far:g}m" for near, far in pairwise(limits)]
    return ["overall", *between, f"{limits[-1]:g}m-inf"]


def once_thresholds(scores: Floats, ground_truth: int) -> Floats:
    """The scores of true positives at which recall passes 0, 1/50, 2/50, ... most closely, descending.

    Where there are fewer true positives than steps, a score stands for several steps.

    Args:
        scores: of the true positives, in any order.
        ground_truth: number of counted labels.
    """
    descending = -np.sort(-scores)
    count = len(descending)
    # Twice the recall in the middle between this true positive and the next.
    middle = (np.arange(1, count + 1) + np.minimum(np.arange(2, count + 2), count)) / max(ground_truth, 1)
    thresholds: list[float] = []
    position, recall = 0, 0.0
    while position < count:
        reached = middle[position:] >= 2 * recall
        reached[-1] = True  # the last one is always kept
        position += int(np.argmax(reached))
        thresholds.append(descending[position])
        recall += 1 / _RECALL_STEPS
        while middle[position] + 1e-6 > 2 * recall:
            thresholds.append(descending[position])
            recall += 1 / _RECALL_STEPS
        position += 1
    return np.array(thresholds)


def _roles(table: BoxTable, chosen: Mask, near: float, far: float) -> Integers:
    distance = table.distances()
    return np.where((near <= distance) & (distance < far), np.where(chosen, COUNTED, LEFT_OUT), IGNORED)


def _average_precision(choose: LabelsChoose) -> float:
    counted = int((choose.label_roles == COUNTED).sum())
    if not counted:
        return math.nan
    thresholds = once_thresholds(choose.true_positive_scores(), counted)
    taken = choose.taken_at(thresholds)
    true = taken[choose.hits].sum(axis=0)
    precision = true / np.maximum(true + choose.false_positives(taken, thresholds), 1)
    curve = np.zeros(_RECALL_STEPS + 1)
    points = np.maximum.accumulate(precision[::-1])[::-1][: len(curve)]
    curve[: len(points)] = points
    return 100 * float(curve[1:].mean())
