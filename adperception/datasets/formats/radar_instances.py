"""Objects of a radar frame from what is labelled in its two views: boxes, pixels, or both.

Range-Doppler labels have row 0 near, range-angle labels row 0 far; the two rows of one object sum to the number of
rows (``flip_label_row``). Boxes are ``(row_min, column_min, row_max, column_max)``, last row and column included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import linear_sum_assignment

from adperception.structures import RadarMasks, RadarObjects, flip_label_row

__all__ = [
    "RadarInstance",
    "ViewLabel",
    "circular_extent",
    "circular_mean",
    "instances_from_masks",
    "pair_boxes",
    "radar_objects",
    "split_pixels",
]

GROWTH = 2
"""A dense label reaches two pixels beyond the points that its box encloses."""

_Pixels = NDArray[np.int64]


@dataclass(frozen=True)
class ViewLabel:
    """What is labelled of one object in one view.

    Attributes:
        sparse: ``(P, 2)`` rows and columns of its detections; may be empty.
        dense: ``(Q, 2)`` rows and columns of its pixels; may be empty.
        box: ``(4,)`` row_min, column_min, row_max, column_max of the detections.
    """

    sparse: _Pixels
    dense: _Pixels
    box: _Pixels


@dataclass(frozen=True)
class RadarInstance:
    """An object of a frame as it is labelled.

    Attributes:
        instance_id: the same in all frames of a sequence.
        class_id: 1 and up.
        range_doppler: its label with row 0 near.
        range_angle: its label with row 0 far.
    """

    instance_id: str
    class_id: int
    range_doppler: ViewLabel
    range_angle: ViewLabel


def radar_objects(instances: Sequence[RadarInstance], shape: tuple[int, int, int]) -> RadarObjects:
    """The objects in cube coordinates.

    A centre is the mean range-Doppler row (turned to the cube's rows), the mean azimuth column of the range-angle
    pixels and the circular mean Doppler column of the range-Doppler pixels; without pixels that of the box. Sizes are
    the rows and columns of the boxes; what wraps around the Doppler axis counts the shorter way.

    Args:
        instances: labels of a frame.
        shape: (range, azimuth, Doppler) of the cube.
    """
    cells = np.zeros((len(instances), 3), dtype=np.float32)
    sizes = np.zeros((len(instances), 3), dtype=np.float32)
    for i, instance in enumerate(instances):
        doppler, angle = instance.range_doppler, instance.range_angle
        doppler_pixels, angle_pixels = _pixels_or_centre(doppler), _pixels_or_centre(angle)
        cells[i, 0] = flip_label_row(doppler_pixels[:, 0].mean(), shape[0])
        cells[i, 1] = angle_pixels[:, 1].mean()
        cells[i, 2] = circular_mean(doppler_pixels[:, 1], shape[2])
        rows, dopplers = doppler.box[2:] - doppler.box[:2] + 1
        if len(doppler.dense):
            dopplers = min(dopplers, circular_extent(doppler.dense[:, 1], shape[2]))
        sizes[i] = rows, angle.box[3] - angle.box[1] + 1, dopplers
    classes = np.array([i.class_id for i in instances], dtype=np.int64)
    return RadarObjects(cells, sizes, classes, np.ones(len(instances), dtype=np.float32))


def instances_from_masks(
    masks: RadarMasks,
    range_doppler_boxes: ArrayLike,
    range_angle_boxes: ArrayLike,
    range_doppler_classes: ArrayLike,
    range_angle_classes: ArrayLike | None = None,
) -> list[RadarInstance]:
    """The objects of a frame of which only masks and boxes are known, in the order of the range-Doppler boxes.

    Pixels go to the nearest box of their class (``split_pixels``); the boxes of the two views are paired by class and
    rows (``pair_boxes``). An object without pixels has its box; pixels of a class without a box belong to nobody.

    Args:
        masks: of the frame.
        range_doppler_boxes: ``(N, 4)``.
        range_angle_boxes: ``(N, 4)``.
        range_doppler_classes: ``(N,)`` class ids of the range-Doppler boxes.
        range_angle_classes: ``(N,)`` class ids of the range-angle boxes; ``None``: as the others.

    Raises:
        ValueError: if the views have different numbers of boxes of a class.
    """
    doppler_boxes = np.asarray(range_doppler_boxes, dtype=np.int64).reshape(-1, 4)
    angle_boxes = np.asarray(range_angle_boxes, dtype=np.int64).reshape(-1, 4)
    classes = np.asarray(range_doppler_classes, dtype=np.int64)
    others = classes if range_angle_classes is None else np.asarray(range_angle_classes, dtype=np.int64)
    partner = pair_boxes(doppler_boxes, classes, angle_boxes, others, len(masks.range_angle))
    doppler_pixels = split_pixels(masks.range_doppler, doppler_boxes, classes)
    angle_pixels = split_pixels(masks.range_angle, angle_boxes, others)
    none = np.zeros((0, 2), dtype=np.int64)
    return [
        RadarInstance(
            str(i),
            int(classes[i]),
            ViewLabel(none, doppler_pixels[i], doppler_boxes[i]),
            ViewLabel(none, angle_pixels[j], angle_boxes[j]),
        )
        for i, j in enumerate(partner)
    ]


def split_pixels(mask: NDArray[np.uint8], boxes: ArrayLike, classes: ArrayLike) -> list[_Pixels]:
    """The pixels of each box: every foreground pixel goes to the nearest box of its class.

    Boxes are grown by 2, as dense labels are; a pixel in several grown boxes goes to the one with the nearer centre.

    Args:
        mask: ``(rows, columns)`` classes, 0 background.
        boxes: ``(N, 4)``.
        classes: ``(N,)`` class ids of the boxes.

    Returns:
        N arrays ``(P_i, 2)`` of rows and columns.
    """
    boxes = np.asarray(boxes, dtype=np.int64).reshape(-1, 4)
    classes = np.asarray(classes, dtype=np.int64)
    split: list[_Pixels] = [np.zeros((0, 2), dtype=np.int64) for _ in boxes]
    for class_id in np.unique(classes):
        mine = np.flatnonzero(classes == class_id)
        pixels = np.argwhere(mask == class_id)
        low, high = boxes[mine, :2] - GROWTH, boxes[mine, 2:] + GROWTH
        outside = np.maximum(np.maximum(low - pixels[:, None], pixels[:, None] - high), 0)
        to_box = np.square(outside).sum(-1).astype(np.float64)
        to_centre = np.square(pixels[:, None] - (low + high) / 2).sum(-1)
        # Distances to boxes are whole numbers; the centre only decides between equal ones.
        owner = (to_box + to_centre / (1 + to_centre.max(initial=0))).argmin(1) if len(pixels) else to_box[:, 0]
        for k, i in enumerate(mine):
            split[i] = pixels[owner == k]
    return split


def pair_boxes(
    range_doppler_boxes: NDArray[np.int64],
    range_doppler_classes: NDArray[np.int64],
    range_angle_boxes: NDArray[np.int64],
    range_angle_classes: NDArray[np.int64],
    range_bins: int,
) -> NDArray[np.int64]:
    """Which range-angle box belongs to each range-Doppler box: same class, rows that sum to ``range_bins``.

    Boxes with the same rows are paired in their order, as CARRADA's files list them.

    Raises:
        ValueError: if the views have different numbers of boxes of a class.
    """
    if sorted(range_doppler_classes.tolist()) != sorted(range_angle_classes.tolist()):
        raise ValueError(
            f"boxes of the classes {range_doppler_classes.tolist()} in range-Doppler and "
            f"{range_angle_classes.tolist()} in range-angle do not belong to the same objects."
        )
    rows = range_bins - range_angle_boxes[:, [2, 0]]
    cost = np.abs(range_doppler_boxes[:, None, [0, 2]] - rows[None]).sum(-1).astype(np.float64)
    order = np.arange(len(cost))
    # Among equal rows the order decides; squares, so that crossing pairs cost more than parallel ones.
    cost += 0.5 * np.square(order[:, None] - order) / max(1, len(cost)) ** 3
    cost[range_doppler_classes[:, None] != range_angle_classes] = 1e9
    partner: NDArray[np.int64] = linear_sum_assignment(cost)[1].astype(np.int64)
    return partner


def circular_mean(columns: ArrayLike, period: int) -> float:
    """Mean of columns on an axis that wraps around, in ``[0, period)``: the mean within their shortest arc."""
    values = np.sort(np.asarray(columns, dtype=np.float64))
    first = _arc_start(values, period)
    return float(np.mod(np.mod(values - values[first], period).mean() + values[first], period))


def circular_extent(columns: ArrayLike, period: int) -> float:
    """Number of columns of the shortest arc that holds all of them."""
    values = np.sort(np.asarray(columns, dtype=np.float64))
    return 1 + float(np.mod(values - values[_arc_start(values, period)], period).max())


def _arc_start(values: NDArray[np.float64], period: int) -> int:
    """The position after the largest gap between sorted values on a circle."""
    gaps = np.mod(values - np.roll(values, 1), period)
    gaps[0] = values[0] + period - values[-1]
    return int(gaps.argmax())


def _pixels_or_centre(label: ViewLabel) -> NDArray[np.float64]:
    if len(label.dense):
        return label.dense.astype(np.float64)
    return (label.box[None, :2] + label.box[None, 2:]) / 2
