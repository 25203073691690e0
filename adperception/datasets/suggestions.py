"""Range, voxel size, caps and anchors for a dataset, measured on its frames and written as a config fragment.

What published configs have in common is kept: voxels of 0.05 m and up, at most 1,600 of them along x and y, a depth
that gives the encoder's bird's-eye-view map 256 channels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from adperception.datasets.base import LidarDataset
from adperception.geometry import Voxelizer, count_points_in_boxes, in_range
from adperception.structures import VoxelGrid

__all__ = ["ClassSuggestion", "ModelSuggestion", "suggest_model"]

_VOXELS_XY = (0.05, 0.075, 0.1, 0.15, 0.2)
_VOXELS_Z = (0.05, 0.06, 0.075, 0.1, 0.125, 0.15, 0.2, 0.25, 0.3, 0.4)
_MOST_VOXELS_XY = 1600
_LEAST_VOXELS_Z = 40  # 40 to 55 give 2 layers of 128 channels, see models/backbones/voxel_backbone_8x.py
_CELL_VOXELS = 8  # voxels per bird's-eye-view cell
_FARTHEST_M = _VOXELS_XY[-1] * _MOST_VOXELS_XY / 2
_POORLY_COVERED = 0.3
_HIGHEST_M = _VOXELS_Z[-1] * _LEAST_VOXELS_Z
_UNLABELLED_HEIGHT_M = 8.0
_MARGIN_XY_M, _MARGIN_Z_M = 1.0, 0.3
_ONE_SIDED_M = 5.0
_LEARNABLE_POINTS = 5
_FEWEST_BOXES = 3
_FEWEST_IN_RANGE = 0.25
_IOUS = ((0.6, 0.45), (0.55, 0.4), (0.5, 0.35), (0.4, 0.25), (0.3, 0.15))
_VOXEL_FRAMES = 20


@dataclass(frozen=True)
class ClassSuggestion:
    """The anchor of a class.

    Attributes:
        name: as in the labels.
        size: mean length, width, height of its boxes in metres.
        bottom: median z of their undersides in metres.
        matched_iou: the largest customary threshold that the best anchor of half of the boxes reaches.
        unmatched_iou: 0.15 below.
        boxes: number of boxes that this was measured on.
        typical_iou: median overlap of a box with its best anchor, seen from above, both axis-aligned.
    """

    name: str
    size: tuple[float, float, float]
    bottom: float
    matched_iou: float
    unmatched_iou: float
    boxes: int
    typical_iou: float

    def evaluation(self) -> dict[str, Any]:
        """The class in ``OnceAP``; the overlap that counts as found is ONCE's of vehicles, cyclists or pedestrians."""
        minimum = 0.7 if self.size[0] >= 3 else 0.5 if self.size[0] >= 1.2 else 0.3
        return {"name": self.name, "minimum_iou": minimum, "members": [self.name]}


@dataclass(frozen=True)
class ModelSuggestion:
    """What a model for a dataset may look like.

    Attributes:
        channels: channels of the points.
        grid: range and voxel size.
        max_voxels: of all frames looked at, and a tenth more.
        classes: anchors; empty for unlabelled data.
        remarks: what the figures rest on, one sentence each.
    """

    channels: tuple[str, ...]
    grid: VoxelGrid
    max_voxels: int
    classes: tuple[ClassSuggestion, ...]
    remarks: tuple[str, ...]

    def fragment(self, **datasets: Mapping[str, Any]) -> str:
        """The suggestion as Python text for a config file: SECOND and its evaluation with labels, AD-L-JEPA without.

        Args:
            datasets: sections of DATASETS that are written above it, ``train_dataset=...``.
        """
        x, y, z = self.grid.size_xyz
        lines = [f"# {remark}" for remark in self.remarks]
        for name, section in datasets.items():
            lines += [f"{name} = dict(", *(f"    {key}={_literal(value)}," for key, value in section.items()), ")"]
        lines += [
            "model = dict(",
            f'    type="{"SECOND" if self.classes else "ADLJEPA"}",',
            f"    point_cloud_range={list(self.grid.point_cloud_range)},  # metres, LiDAR frame",
            f"    voxel_size={list(self.grid.voxel_size)},  # metres: {x} x {y} x {z} voxels",
            f"    in_channels={len(self.channels)},  # {', '.join(self.channels)}",
            "    max_points_per_voxel=5,",
            f"    max_voxels_train={self.max_voxels},",
            f"    max_voxels_test={self.max_voxels},",
        ]
        if self.classes:
            lines.append("    classes=[  # anchors: length, width, height and z of the underside in metres")
            for c in self.classes:
                anchor = dict(
                    name=c.name,
                    size=list(c.size),
                    bottom=c.bottom,
                    matched_iou=c.matched_iou,
                    unmatched_iou=c.unmatched_iou,
                )
                comment = f"{c.boxes} boxes; the best anchor overlaps half of them by {c.typical_iou:.2f} or more"
                if c.typical_iou < _POORLY_COVERED:
                    cell = self.grid.voxel_size[0] * _CELL_VOXELS
                    comment += f": small for cells of {cell:g} m"
                lines += [f"        # {comment}", f"        {_dict_text(anchor)},"]
            lines.append("    ],")
        lines.append(")")
        if self.classes:
            lines += [
                "evaluations = [",
                "    dict(",
                '        type="OnceAP",',
                "        every_epochs=5,",
                '        rotation="counter_clockwise_yaw",',
                "        classes=[",
                *(f"            {_dict_text(c.evaluation())}," for c in self.classes),
                "        ],",
                "    ),",
                "]",
            ]
        return "\n".join(lines) + "\n"


@dataclass(frozen=True)
class _Sample:
    """What was gathered from some frames: every so many points, and the boxes with their names and points."""

    frames: tuple[int, ...]
    channels: tuple[str, ...]
    xyz: NDArray[np.float32]
    boxes: NDArray[np.float32]
    names: NDArray[np.str_]
    counts: NDArray[np.int64]


def suggest_model(dataset: LidarDataset, max_frames: int = 100, max_range: float = 76.8) -> ModelSuggestion:
    """Look at frames (evenly spread, no transforms) and suggest a range, voxels and anchors.

    Where there are labels, the range takes in the boxes that hold 5 points or more: what a model can learn. Without
    labels it takes in 98 % of the points.

    Args:
        dataset: with the channels and labels that the model is to see; ``classes``, if set, are the classes to suggest
            anchors for.
        max_frames: number of frames to read.
        max_range: farthest limit of the range along x and y in metres. Beyond some 75 m, where published models end,
            voxels must be so large that small objects are lost.

    Raises:
        ValueError: if ``max_range`` is not between 1 and 160 m, few points fit into a range, no frame has a point,
            or a frame cannot be read.
    """
    if not 1 <= max_range <= _FARTHEST_M:
        raise ValueError(f"suggest_model: max_range={max_range:g} must be 1 to {_FARTHEST_M:g} metres.")
    sample = _gather(dataset, max_frames)
    learnable = sample.counts >= min(_LEARNABLE_POINTS, int(sample.counts.max(initial=0)))
    learnable &= sample.counts > 0
    grid = _choose_grid(sample.xyz, sample.boxes[learnable], max_range)
    inside = learnable & in_range(sample.boxes, grid.point_cloud_range)
    wanted = dataset.classes or sorted(
        set(sample.names.tolist()), key=lambda n: (-np.count_nonzero(sample.names == n), n)
    )
    classes, left_out = [], []
    for name in wanted:
        mine = sample.boxes[inside & (sample.names == name)]
        if len(mine) >= _FEWEST_BOXES:
            classes.append(_choose_anchor(name, mine, grid))
        else:
            left_out.append(f"{name} ({len(mine)})")
    points = np.count_nonzero(in_range(sample.xyz, grid.point_cloud_range)) / len(sample.xyz)
    if points < _FEWEST_IN_RANGE and not len(sample.boxes):
        low, high = np.quantile(sample.xyz, (0.01, 0.99), axis=0)
        spans = ", ".join(f"{axis} {a:.1f} to {b:.1f}" for axis, a, b in zip("xyz", low, high, strict=True))
        raise ValueError(
            f"suggest_model: only {points:.0%} of the points fit into a range of {max_range:g} m (98 % of them span "
            f"{spans}). Declare the channels that the files really have ({', '.join(sample.channels)}?), in metres."
        )
    remarks = [
        f"Suggested from {len(sample.frames)} of {len(dataset)} frames; {points:.0%} of the points lie in range."
    ]
    if len(sample.boxes):
        remarks.append(
            f"{np.count_nonzero(learnable)} of {len(sample.boxes)} boxes hold {_LEARNABLE_POINTS} points or more; "
            f"{np.count_nonzero(inside)} of these lie in range."
        )
    if left_out:
        remarks.append(f"Fewer than {_FEWEST_BOXES} such boxes, so no anchor: {', '.join(left_out)}.")
    return ModelSuggestion(
        sample.channels, grid, _count_voxels(dataset, sample.frames, grid), tuple(classes), tuple(remarks)
    )


def _gather(dataset: LidarDataset, max_frames: int) -> _Sample:
    frames = tuple(np.unique(np.linspace(0, len(dataset) - 1, min(max_frames, len(dataset))).astype(int)).tolist())
    channels: tuple[str, ...] = ()
    xyz, boxes, counts = [], [np.zeros((0, 7), dtype=np.float32)], [np.zeros(0, dtype=np.int64)]
    names: list[str] = []
    for index in frames:
        frame = dataset.read(index)
        channels = frame.cloud.channels
        xyz.append(frame.cloud.xyz[:: max(1, len(frame.cloud) // 5000)])
        if frame.boxes:
            boxes.append(frame.boxes.boxes)
            names += frame.boxes.names
            counts.append(count_points_in_boxes(frame.cloud.xyz, frame.boxes.boxes))
    points = np.concatenate(xyz)
    if not len(points):
        raise ValueError(f"suggest_model: the {len(frames)} frames that were read hold no point.")
    return _Sample(frames, channels, points, np.concatenate(boxes), np.array(names, dtype=str), np.concatenate(counts))


def _choose_grid(xyz: NDArray[np.float32], boxes: NDArray[np.float32], max_range: float) -> VoxelGrid:
    """A range around the boxes, or without any around most points, in voxels that the encoder takes."""
    if len(boxes):
        reach = np.hypot(boxes[:, 3], boxes[:, 4]) / 2
        spans = [_span(boxes[:, axis] - reach, boxes[:, axis] + reach, 0.005, _MARGIN_XY_M) for axis in range(2)]
        low, high = _span(boxes[:, 2] - boxes[:, 5] / 2, boxes[:, 2] + boxes[:, 5] / 2, 0.005, _MARGIN_Z_M)
    else:
        spans = [_span(xyz[:, axis], xyz[:, axis], 0.01, 0.0) for axis in range(2)]
        low, high = _span(xyz[:, 2], xyz[:, 2], 0.01, _MARGIN_Z_M)
        high = min(high, low + _UNLABELLED_HEIGHT_M)
    ranges = [_one_or_both_sides(*span, max_range) for span in spans]
    widest = max(high - low for low, high in ranges)
    size = next((v for v in _VOXELS_XY if widest / v <= _MOST_VOXELS_XY), _VOXELS_XY[-1])
    cell = size * _CELL_VOXELS
    (x0, x1), (y0, y1) = ((math.floor(a / cell + 1e-6) * cell, math.ceil(b / cell - 1e-6) * cell) for a, b in ranges)
    # The coarsest layers that still are enough of them.
    height = min(max(high - low, 0.1), _HIGHEST_M)
    size_z = next((v for v in reversed(_VOXELS_Z) if height / v >= _LEAST_VOXELS_Z), _VOXELS_Z[0])
    layers = max(_LEAST_VOXELS_Z, math.ceil(height / size_z - 1e-6))
    bottom = math.floor(low * 10 + 1e-6) / 10
    limits = (x0, y0, bottom, x1, y1, bottom + layers * size_z)
    return VoxelGrid.create([round(v, 4) for v in limits], (size, size, size_z))


def _span(low: NDArray[np.floating], high: NDArray[np.floating], cut: float, margin: float) -> tuple[float, float]:
    return float(np.quantile(low, cut)) - margin, float(np.quantile(high, 1 - cut)) + margin


def _one_or_both_sides(low: float, high: float, farthest: float) -> tuple[float, float]:
    """From the sensor on for data of one side (KITTI's x), else as far to both: few frames see the same on both."""
    reach = min(max(-low, high), farthest)
    if low > -_ONE_SIDED_M and high > _ONE_SIDED_M:
        return 0.0, reach
    if high < _ONE_SIDED_M and low < -_ONE_SIDED_M:
        return -reach, 0.0
    return -reach, reach


def _choose_anchor(name: str, boxes: NDArray[np.float32], grid: VoxelGrid) -> ClassSuggestion:
    length, width, height = (round(float(v), 2) for v in boxes[:, 3:6].astype(np.float64).mean(axis=0))
    typical = float(np.median(_best_overlap(boxes.astype(np.float64), (length, width), grid)))
    matched, unmatched = next((pair for pair in _IOUS if typical >= pair[0]), _IOUS[-1])
    bottom = round(float(np.median(boxes[:, 2] - boxes[:, 5] / 2)), 2)
    return ClassSuggestion(name, (length, width, height), bottom, matched, unmatched, len(boxes), typical)


def _best_overlap(boxes: NDArray[np.float64], size: tuple[float, float], grid: VoxelGrid) -> NDArray[np.float64]:
    """``(M,)`` IoU of boxes with the best of the anchors around them, as anchor heads assign them.

    Boxes are turned to the nearest axis; anchors of both headings stand at the centres of H x W places that are spread
    from the lower to the upper limit of the range.
    """
    from_axis = np.abs((boxes[:, 6] + np.pi / 2) % np.pi - np.pi / 2)  # 0: along x, pi/2: along y
    turned = from_axis > np.pi / 4
    sides = np.where(turned[:, None], boxes[:, [4, 3]], boxes[:, 3:5])
    best = np.zeros(len(boxes))
    for anchor in (size, size[::-1]):
        overlap = np.ones(len(boxes))
        for axis in range(2):
            low, high = grid.point_cloud_range[axis], grid.point_cloud_range[axis + 3]
            places = max(grid.size_xyz[axis] // _CELL_VOXELS - 1, 1)
            step = (high - low) / places
            offset = np.abs(boxes[:, axis] - low - np.clip(np.round((boxes[:, axis] - low) / step), 0, places) * step)
            shared = np.minimum(np.minimum(sides[:, axis], anchor[axis]), (sides[:, axis] + anchor[axis]) / 2 - offset)
            overlap *= np.maximum(shared, 0)
        best = np.maximum(best, overlap / (sides.prod(axis=1) + anchor[0] * anchor[1] - overlap))
    return best


def _count_voxels(dataset: LidarDataset, frames: tuple[int, ...], grid: VoxelGrid) -> int:
    """The most voxels of a frame, a tenth more for augmentation, up to a whole thousand."""
    locate = Voxelizer(grid, None, None).locate
    most = 0
    for index in frames[:: max(1, math.ceil(len(frames) / _VOXEL_FRAMES))]:
        cells, inside = locate(torch.from_numpy(np.ascontiguousarray(dataset.read(index).cloud.points)))
        most = max(most, len(torch.unique(cells[inside])))
    return max(1000, math.ceil(most * 1.1 / 1000) * 1000)


def _dict_text(values: Mapping[str, Any]) -> str:
    return f"dict({', '.join(f'{key}={_literal(value)}' for key, value in values.items())})"


def _literal(value: Any) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(_literal(v) for v in value)}]"
    return repr(value)
