"""Anchors: the boxes that an anchor head compares the world with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from adperception.config import nearest
from adperception.located_dict import location_of
from adperception.structures import VoxelGrid

__all__ = ["ROTATIONS", "AnchorClass", "make_anchors", "parse_anchor_classes"]

ROTATIONS = (0.0, 1.57)
"""Headings of the anchors at every place, radians."""


@dataclass(frozen=True)
class AnchorClass:
    """A class and its anchor.

    Attributes:
        name: as in the labels, ``"Car"``.
        size: length, width, height in metres.
        bottom: z of the underside in metres, LiDAR frame.
        matched_iou: anchors that overlap an object by at least this much (seen from above, both axis-aligned) are
            trained to find it.
        unmatched_iou: anchors that overlap every object by less are trained to find nothing; in between they are
            left alone.
    """

    name: str
    size: tuple[float, float, float]
    bottom: float
    matched_iou: float
    unmatched_iou: float


def parse_anchor_classes(model: str, classes: Sequence[Mapping[str, Any]]) -> tuple[AnchorClass, ...]:
    """The option ``classes`` of a model: one section per class with the attributes of ``AnchorClass``.

    Args:
        model: name of the model, for messages.
        classes: the sections.

    Raises:
        ValueError: for a missing, unknown or impossible value, naming it and its place.
    """
    if not classes:
        raise ValueError(f"{model}: classes is empty; name at least one class with its anchor.")
    parsed = [_parse_class(f"{model}: classes[{number}]", options) for number, options in enumerate(classes)]
    names = [c.name for c in parsed]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f'{model}: classes names "{name}" twice.')
    return tuple(parsed)


def _parse_class(where: str, options: Mapping[str, Any]) -> AnchorClass:
    known = [field.name for field in fields(AnchorClass)]
    for key in options:
        if key not in known:
            raise ValueError(f'{location_of(options, key)}{where}: "{key}" is not an option.{nearest(key, known)}')
    for key in known:
        if key not in options:
            raise ValueError(f'{where} needs the option "{key}". Options: {", ".join(known)}.')
    size = tuple(float(v) for v in options["size"])
    if len(size) != 3 or min(size) <= 0:
        raise ValueError(
            f"{location_of(options, 'size')}{where}: size={list(size)} must be length, width and height in metres."
        )
    matched, unmatched = float(options["matched_iou"]), float(options["unmatched_iou"])
    if not 0 < unmatched <= matched <= 1:
        raise ValueError(
            f"{location_of(options, 'matched_iou')}{where}: 0 < unmatched_iou <= matched_iou <= 1 does not hold for "
            f"unmatched_iou={unmatched:g} and matched_iou={matched:g}."
        )
    length, width, height = size
    return AnchorClass(str(options["name"]), (length, width, height), float(options["bottom"]), matched, unmatched)


def make_anchors(classes: Sequence[AnchorClass], grid: VoxelGrid, bev_shape: tuple[int, int]) -> Tensor:
    """``(H, W, K, 2, 7)`` float32 anchor boxes of K classes at two headings.

    The first and the last anchor of a row stand on the borders of the range, not in the middle of their cells, so the
    spacing is a little larger than a cell: that is what published weights were trained with.
    """
    height, width = bev_shape
    if min(bev_shape) < 2:
        raise ValueError(f"anchors need a map of at least 2 x 2 cells, not {height} x {width}. Widen the range.")
    x_min, y_min, _, x_max, y_max, _ = grid.point_cloud_range
    x = x_min + torch.arange(width, dtype=torch.float64) * ((x_max - x_min) / (width - 1))
    y = y_min + torch.arange(height, dtype=torch.float64) * ((y_max - y_min) / (height - 1))
    anchors = torch.empty(height, width, len(classes), len(ROTATIONS), 7, dtype=torch.float32)
    anchors[..., 0] = x[None, :, None, None]
    anchors[..., 1] = y[:, None, None, None]
    for number, c in enumerate(classes):
        anchors[:, :, number, :, 2] = c.bottom + c.size[2] / 2
        anchors[:, :, number, :, 3:6] = torch.tensor(c.size)
    anchors[..., 6] = torch.tensor(ROTATIONS)
    return anchors
