"""KITTI's average precision on lists of objects: the rules of the benchmark's evaluation, vectorised over all frames.

Of each class and difficulty, ground truth is *counted*, *ignored* (harder than the difficulty, or of a neighbouring
class: Van for Car, Person_sitting for Pedestrian) or left out. Detections whose 2D box is lower than the difficulty's
minimum height are ignored, whatever their class. Labels choose their detection one after the other, in file order:

1. Each takes the free detection with the highest score among those that overlap enough. The scores of the true
   positives are the candidates for thresholds; about 41 of them are kept, at equal steps of recall.
2. At each threshold, each label takes the free counted detection with the largest overlap, or the first ignored one. A
   counted label with a counted detection is a true positive; counted detections that nobody took are false positives,
   in 2D unless a DontCare area covers them. Whatever an ignored object takes part in counts neither way.

Precision is made monotone from the right, and averaged over 11 or 40 of the 41 points; points that are not reached
count 0. Orientation similarity (AOS) weights true positives in 2D by (1 + cos(alpha error)) / 2.

Sources: Geiger et al., "Are we ready for autonomous driving?", CVPR 2012 (protocol, AOS); Simonelli et al.,
"Disentangling monocular 3D object detection", ICCV 2019 (40 points).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from adperception.datasets.formats.kitti_label import DONT_CARE, KittiObject
from adperception.evaluation.greedy_matching import COUNTED, IGNORED, LEFT_OUT, LabelsChoose
from adperception.evaluation.metric_report import mean_of_defined
from adperception.evaluation.overlapping_pairs import (
    Floats,
    Integers,
    near_pairs,
    overlaps,
    same_frame_pairs,
)
from adperception.geometry.rotated_iou import rotated_iou_3d_pairs, rotated_iou_bev_pairs

__all__ = ["DIFFICULTIES", "KITTI_METRICS", "KITTI_OVERLAPS", "kitti_average_precision", "kitti_thresholds"]

DIFFICULTIES = ("easy", "moderate", "hard")
KITTI_METRICS = ("bbox", "bev", "3d", "aos", "bev_loose", "3d_loose")
KITTI_OVERLAPS: Mapping[str, tuple[float, float]] = {
    "Car": (0.7, 0.5),
    "Van": (0.7, 0.5),
    "Truck": (0.7, 0.5),
    "Pedestrian": (0.5, 0.25),
    "Person_sitting": (0.5, 0.25),
    "Cyclist": (0.5, 0.25),
}
"""Strict and loose minimum overlap of each class; in 2D the strict one is always used."""

_NEIGHBOURS = {"Car": "Van", "Pedestrian": "Person_sitting"}
_MINIMUM_HEIGHT = (40.0, 25.0, 25.0)
_MAXIMUM_OCCLUSION = (0, 1, 2)
_MAXIMUM_TRUNCATION = (0.15, 0.3, 0.5)
_UNKNOWN_ALPHA = -10.0
_RECALL_STEPS = 40


def kitti_average_precision(
    labels: Sequence[Sequence[KittiObject]],
    detections: Sequence[Sequence[KittiObject]],
    classes: Sequence[str] = ("Car", "Pedestrian", "Cyclist"),
) -> dict[str, float]:
    """KITTI's metrics by name, in percent.

    Args:
        labels: the labels of each frame, ``DontCare`` areas included.
        detections: the detections of each frame, with scores.
        classes: the classes to evaluate, keys of ``KITTI_OVERLAPS``.

    Returns:
        ``<class>_<metric>_<R11|R40>_<difficulty>`` with the metrics bbox, bev, 3d, aos at the strict overlaps and
        bev_loose, 3d_loose at the loose ones. NaN where no ground truth of the class has that difficulty (and for aos
        if a detection of the class comes without alpha); the class "mean" is the mean of those that are not NaN. Also
        ``<class>_labels`` and ``<class>_predictions`` (counts) and ``<class>_best_3d_iou`` (the largest 3D IoU of any
        two; NaN if either is missing).

    Raises:
        ValueError: for unequal numbers of frames, a class without overlaps, or a detection without a score.
    """
    if len(labels) != len(detections):
        raise ValueError(f"KITTI AP: labels of {len(labels)} frames, but detections of {len(detections)}.")
    unknown = [name for name in classes if name not in KITTI_OVERLAPS]
    if unknown:
        raise ValueError(f"KITTI AP has no overlaps for {', '.join(unknown)}; it knows {', '.join(KITTI_OVERLAPS)}.")
    pairs = _Pairs.of(_Objects.of(labels), _Objects.of(detections, scored=True))
    metrics: dict[str, float] = {}
    for name in classes:
        metrics |= {f"{name}_{key}": value for key, value in _class_metrics(pairs, name)}
    for key in (f"{k}_{r}_{d}" for k in KITTI_METRICS for r in ("R11", "R40") for d in DIFFICULTIES):
        metrics[f"mean_{key}"] = mean_of_defined(metrics[f"{name}_{key}"] for name in classes)
    return metrics


def kitti_thresholds(scores: Floats, ground_truth: int) -> Floats:
    """The scores of true positives at which recall passes 0, 1/40, 2/40, ... most closely, descending.

    Args:
        scores: of the true positives, in any order.
        ground_truth: number of counted labels.
    """
    descending = -np.sort(-scores)
    here = np.arange(1, len(scores) + 1) / max(ground_truth, 1)
    after = np.arange(2, len(scores) + 2) / max(ground_truth, 1)
    chosen: list[int] = []
    position, recall = 0, 0.0
    while position < len(scores):
        close_enough = (after[position:] - recall) >= (recall - here[position:])
        close_enough[-1] = True  # the last one is always kept
        position += int(np.argmax(close_enough))
        chosen.append(position)
        position += 1
        recall += 1 / _RECALL_STEPS
    return np.asarray(descending[chosen])


@dataclass(frozen=True)
class _Objects:
    """Objects of all frames, one row each, frame by frame.

    ``boxes`` are (x, z, -y of the centre, length, width, height, -rotation_y) of the camera frame: seen so, z is the
    second axis of the ground plane, and a right-handed turn about the camera's y axis is clockwise.
    """

    frames: Integers
    names: np.ndarray
    truncation: Floats
    occlusion: Floats
    alpha: Floats
    box_2d: Floats
    boxes: Floats
    scores: Floats

    @classmethod
    def of(cls, frames: Sequence[Sequence[KittiObject]], scored: bool = False) -> _Objects:
        for number, objects in enumerate(frames) if scored else ():
            if any(o.score is None for o in objects):
                raise ValueError(
                    f"KITTI AP: frame number {number} has a detection without a score. Result files have a 16th column."
                )
        flat = [o for objects in frames for o in objects]
        numbers = np.repeat(np.arange(len(frames)), [len(objects) for objects in frames])
        rows = [
            (o.truncation, o.occlusion, o.alpha, *o.box_2d, *o.dimensions, *o.location, o.rotation_y, o.score or 0.0)
            for o in flat
        ]
        v = np.array(rows, dtype=np.float64).reshape(-1, 15)
        height, width, length, x, y, z, rotation_y = v[:, 7:14].T
        boxes = np.column_stack([x, z, height / 2 - y, length, width, height, -rotation_y])
        names = np.array([o.name for o in flat], dtype=np.str_)
        return cls(numbers, names, v[:, 0], v[:, 1], v[:, 2], v[:, 3:7], boxes, v[:, 14])

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def height_2d(self) -> Floats:
        """Of the 2D boxes, pixels."""
        return np.asarray(self.box_2d[:, 3] - self.box_2d[:, 1])


@dataclass(frozen=True)
class _Pairs:
    """Labels, detections, and all their overlaps, which are computed once.

    Attributes:
        overlapping: for bbox, bev and 3d: the pairs with an overlap above 0, as label, detection, overlap.
        covered: ``(D,)`` the largest share of each detection's 2D box that one DontCare area covers.
    """

    labels: _Objects
    detections: _Objects
    overlapping: Mapping[str, tuple[Integers, Integers, Floats]]
    covered: Floats

    @classmethod
    def of(cls, labels: _Objects, detections: _Objects) -> _Pairs:
        dont_care = labels.names == DONT_CARE
        covered = np.zeros(len(detections))
        _, j, common, _, area = _common_areas(labels, np.flatnonzero(dont_care), detections)
        np.maximum.at(covered, j, common / area)

        solid = np.flatnonzero(~dont_care)
        i, j, common, label_area, area = _common_areas(labels, solid, detections)
        found = {"bbox": (i, j, common / (label_area + area - common))}

        i, j = near_pairs(labels.boxes[solid], labels.frames[solid], detections.boxes, detections.frames)
        i = solid[i]
        for name, function in (("bev", rotated_iou_bev_pairs), ("3d", rotated_iou_3d_pairs)):
            overlap = overlaps(function, labels.boxes[i], detections.boxes[j])
            found[name] = (i[overlap > 0], j[overlap > 0], overlap[overlap > 0])
        return cls(labels, detections, found, covered)


def _common_areas(
    labels: _Objects, chosen: Integers, detections: _Objects
) -> tuple[Integers, Integers, Floats, Floats, Floats]:
    """Pairs whose 2D boxes intersect: label, detection, common area, area of the label's box and of the detection's."""
    i, j = same_frame_pairs(labels.frames[chosen], detections.frames)
    i = chosen[i]
    a, b = labels.box_2d[i], detections.box_2d[j]
    width, height = (np.minimum(a[:, k + 2], b[:, k + 2]) - np.maximum(a[:, k], b[:, k]) for k in (0, 1))
    meet = (width > 0) & (height > 0)
    first, second = ((box[meet, 2] - box[meet, 0]) * (box[meet, 3] - box[meet, 1]) for box in (a, b))
    return i[meet], j[meet], width[meet] * height[meet], first, second


def _class_metrics(pairs: _Pairs, name: str) -> Iterator[tuple[str, float]]:
    """Metrics of one class by their name without the class."""
    labels, detections = pairs.labels, pairs.detections
    of_class, found = labels.names == name, detections.names == name
    yield "labels", float(of_class.sum())
    yield "predictions", float(found.sum())
    i, j, iou = pairs.overlapping["3d"]
    best = iou[of_class[i] & found[j]].max(initial=0.0)
    yield "best_3d_iou", float(best) if of_class.any() and found.any() else math.nan

    strict, loose = KITTI_OVERLAPS[name]
    without_alpha = bool((detections.alpha[found] == _UNKNOWN_ALPHA).any())
    neighbours = labels.names == _NEIGHBOURS.get(name)
    for level, difficulty in enumerate(DIFFICULTIES):
        too_hard = (
            (labels.occlusion > _MAXIMUM_OCCLUSION[level])
            | (labels.truncation > _MAXIMUM_TRUNCATION[level])
            | (labels.height_2d <= _MINIMUM_HEIGHT[level])
        )
        label_roles = np.where(of_class & ~too_hard, COUNTED, np.where(of_class | neighbours, IGNORED, LEFT_OUT))
        low = np.abs(detections.height_2d) < _MINIMUM_HEIGHT[level]
        roles = np.where(low, IGNORED, np.where(found, COUNTED, LEFT_OUT))
        for key, metric, minimum in (
            ("bbox", "bbox", strict),
            ("bev", "bev", strict),
            ("3d", "3d", strict),
            ("bev_loose", "bev", loose),
            ("3d_loose", "3d", loose),
        ):
            precision, orientation = _curves(pairs, metric, minimum, label_roles, roles)
            curves = {key: precision}
            if key == "bbox":
                curves["aos"] = np.full_like(orientation, math.nan) if without_alpha else orientation
            for curve, values in curves.items():
                yield f"{curve}_R11_{difficulty}", 100 * float(values[::4].mean())
                yield f"{curve}_R40_{difficulty}", 100 * float(values[1:].mean())


def _curves(
    pairs: _Pairs, metric: str, minimum: float, label_roles: Integers, roles: Integers
) -> tuple[Floats, Floats]:
    """Precision and orientation similarity at the 41 recall points; NaN without counted labels."""
    counted_labels = int((label_roles == COUNTED).sum())
    if not counted_labels:
        return np.full(_RECALL_STEPS + 1, math.nan), np.full(_RECALL_STEPS + 1, math.nan)
    labels, detections = pairs.labels, pairs.detections
    choose = LabelsChoose.of(labels.frames, pairs.overlapping[metric], minimum, label_roles, roles, detections.scores)
    thresholds = kitti_thresholds(choose.true_positive_scores(), counted_labels)
    taken = choose.taken_at(thresholds)
    hits = choose.hits
    excused = pairs.covered > minimum if metric == "bbox" else None
    true_positives = taken[hits].sum(axis=0)
    total = np.maximum(true_positives + choose.false_positives(taken, thresholds, excused), 1)
    turn = labels.alpha[choose.labels[hits]] - detections.alpha[choose.detections[hits]]
    similarity = ((1 + np.cos(turn)) / 2) @ taken[hits].astype(np.float64)
    return _monotone(true_positives / total), _monotone(similarity / total)


def _monotone(values: Floats) -> Floats:
    """The 41 points of a curve, each the largest value at its recall or a higher one; 0 where it does not reach."""
    curve = np.zeros(_RECALL_STEPS + 1)
    curve[: len(values)] = np.maximum.accumulate(values[::-1])[::-1]
    return curve
