"""Labels as CARRADA makes them: detections of an object become pixels, pixels are grown to masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from adperception.structures.radar_grid import RadarGrid
from adperception.structures.radar_labels import RadarMasks, RadarObjects, flip_label_row

__all__ = ["AzimuthAxis", "InstanceLabel", "ViewLabel", "grow", "label_instance", "masks_of", "objects_of"]

AzimuthAxis = Literal["sin", "angle"]
Pixels = NDArray[np.int64]


@dataclass(frozen=True)
class ViewLabel:
    """An object in one view.

    Attributes:
        sparse: ``(N, 2)`` rows and columns of its detections.
        dense: ``(M, 2)`` the same, grown.
        box: ``(4,)`` first row, first column, last row, last column of ``sparse``, one more where they are equal.
    """

    sparse: Pixels
    dense: Pixels
    box: Pixels


@dataclass(frozen=True)
class InstanceLabel:
    """An object in a frame.

    Attributes:
        instance_id: number in the sequence, from 1.
        class_id: 1 pedestrian, 2 cyclist, 3 car.
        range_doppler: **row 0 near**.
        range_angle: row 0 far.
    """

    instance_id: int
    class_id: int
    range_doppler: ViewLabel
    range_angle: ViewLabel


def grow(pixels: Pixels, shape: tuple[int, int], radius: float) -> Pixels:
    """Pixels closer than ``radius`` to one of ``pixels``, sorted, inside the view."""
    reach = int(np.ceil(radius)) - 1
    offset = np.stack(np.meshgrid(*[np.arange(-reach, reach + 1)] * 2, indexing="ij"), -1).reshape(-1, 2)
    offset = offset[np.square(offset).sum(1) < radius**2]
    grown = (pixels[:, None] + offset).reshape(-1, 2)
    inside = ((grown >= 0) & (grown < np.array(shape))).all(1)
    return np.unique(grown[inside], axis=0)


def label_instance(
    instance_id: int,
    class_id: int,
    bins: tuple[Pixels, Pixels, Pixels],
    grid: RadarGrid,
    axis: AzimuthAxis = "sin",
    radius: float = 3.0,
) -> InstanceLabel:
    """Labels of an object from its detections.

    Args:
        instance_id: number in the sequence.
        class_id: its class.
        bins: range bin (0 near), azimuth column and Doppler column of each detection, ``(N,)`` each.
        grid: the cells.
        axis: ``"sin"`` puts range-angle pixels where the echo is; ``"angle"`` puts them where CARRADA does, in a column
            linear in the angle.
        radius: masks are the pixels closer than this to a detection.
    """
    range_bin, azimuth, doppler = bins
    # Rows of the two views add up to the number of rows, as CARRADA's do.
    row = np.minimum(grid.range_bins - range_bin, grid.range_bins - 1)
    if axis == "angle":
        per_column = np.pi / grid.azimuth_bins
        shift = np.round(np.deg2rad(grid.azimuth_deg(azimuth)) / per_column).astype(np.int64)
        azimuth = np.clip(grid.azimuth_bins // 2 + shift, 0, grid.azimuth_bins - 1)
    return InstanceLabel(
        instance_id,
        class_id,
        _view(range_bin, doppler, (grid.range_bins, grid.doppler_bins), radius),
        _view(row, azimuth, (grid.range_bins, grid.azimuth_bins), radius),
    )


def _view(rows: Pixels, columns: Pixels, shape: tuple[int, int], radius: float) -> ViewLabel:
    sparse = np.unique(np.stack([rows, columns], axis=1).astype(np.int64), axis=0)
    low, high = sparse.min(0), sparse.max(0)
    flat = low == high
    high = np.minimum(high + flat, np.array(shape) - 1)
    low = np.where(low == high, low - 1, low)
    return ViewLabel(sparse, grow(sparse, shape, radius), np.concatenate([low, high]))


def masks_of(instances: list[InstanceLabel], grid: RadarGrid, *, dense: bool = True) -> RadarMasks:
    """Class masks of both views; where objects overlap, the later one is drawn over the earlier."""
    masks = RadarMasks(
        np.zeros((grid.range_bins, grid.doppler_bins), dtype=np.uint8),
        np.zeros((grid.range_bins, grid.azimuth_bins), dtype=np.uint8),
    )
    for instance in instances:
        views = ((masks.range_doppler, instance.range_doppler), (masks.range_angle, instance.range_angle))
        for mask, view in views:
            pixels = view.dense if dense else view.sparse
            mask[pixels[:, 0], pixels[:, 1]] = instance.class_id
    return masks


def objects_of(instances: list[InstanceLabel], grid: RadarGrid) -> RadarObjects:
    """Centres and extents in cube coordinates, from the dense pixels and the boxes."""
    if not instances:
        return RadarObjects.empty()
    cells, sizes = [], []
    for instance in instances:
        near, far = instance.range_doppler, instance.range_angle
        turn = np.exp(2j * np.pi * near.dense[:, 1] / grid.doppler_bins).mean()
        doppler = np.angle(turn) / (2 * np.pi) * grid.doppler_bins % grid.doppler_bins
        cells.append((flip_label_row(near.dense[:, 0].mean(), grid.range_bins), far.dense[:, 1].mean(), doppler))
        rows, columns = near.box[2:] - near.box[:2] + 1
        sizes.append((rows, far.box[3] - far.box[1] + 1, columns))
    return RadarObjects(
        np.array(cells, dtype=np.float32),
        np.array(sizes, dtype=np.float32),
        np.array([instance.class_id for instance in instances], dtype=np.int64),
        np.ones(len(instances), dtype=np.float32),
    )
