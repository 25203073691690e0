"""Detections and labels of a frame, seen from above."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import patheffects
from matplotlib.lines import Line2D
from numpy.typing import NDArray

from adperception.structures import Boxes3D, Detections
from adperception.visualization.bev import class_colour, draw_bev, outline_boxes
from adperception.visualization.style import new_figure, save

__all__ = ["detections_picture"]

_TRUTH_COLOUR = "#000000"
_MAX_INCHES = 11.0
_LEAST_M, _MARGIN_M = 20.0, 1.0


def detections_picture(
    path: str | Path,
    xyz: NDArray[np.floating],
    point_cloud_range: Sequence[float],
    detections: Detections,
    truth: Boxes3D | None = None,
    title: str = "",
) -> Path:
    """Write a picture of what was found, with scores, over what is there.

    Args:
        path: the PNG to write.
        xyz: ``(N, >= 3)`` positions in metres.
        point_cloud_range: ``(x_min, y_min, z_min, x_max, y_max, z_max)``: the most that is shown (its part that holds
            points or boxes), and the span of colours.
        detections: outlined in the colour of their class, score beside them.
        truth: labelled boxes, black and dashed; ``None`` for an unlabelled frame.
        title: above the picture.
    """
    boxes = [detections.boxes] if truth is None else [detections.boxes, truth]
    x0, x1, y0, y1 = _window(xyz, boxes, point_cloud_range)
    longest = max(x1 - x0, y1 - y0)
    width, height = (_MAX_INCHES * span / longest for span in (x1 - x0, y1 - y0))
    figure = new_figure(max(width, 5.0) + 1.0, max(height, 4.0) + 0.8)
    axes = figure.subplots()
    inside = (xyz[:, 0] >= x0) & (xyz[:, 0] < x1) & (xyz[:, 1] >= y0) & (xyz[:, 1] < y1)
    z0, z1 = point_cloud_range[2], point_cloud_range[5]
    points = draw_bev(axes, xyz[inside], (x0, y0, z0, x1, y1, z1))
    handles = []
    if truth is not None:
        outline_boxes(axes, truth, [_TRUTH_COLOUR] * len(truth), linewidth=1.0, linestyle=(0, (3, 2)), zorder=4)
        handles.append(Line2D([], [], color=_TRUTH_COLOUR, linestyle="--", label=f"labelled ({len(truth)})"))
    names = detections.boxes.names
    outline_boxes(axes, detections.boxes, [class_colour(name) for name in names], linewidth=1.6, zorder=3)
    handles += [
        Line2D([], [], color=class_colour(name), label=f"{name} ({names.count(name)})") for name in dict.fromkeys(names)
    ]
    tops = detections.boxes.corners()[:, :4, 1].max(axis=1) if len(detections) else ()
    for box, top, score in zip(detections.boxes.boxes, tops, detections.scores, strict=True):
        if x0 <= box[0] < x1 and y0 <= box[1] < y1:
            label = axes.text(
                box[0], top + 0.1, f"{score:.2f}", fontsize=6.5, ha="center", va="bottom", zorder=5, clip_on=True
            )
            label.set_path_effects([patheffects.withStroke(linewidth=1.5, foreground="white")])
    if handles:
        axes.legend(handles=handles, loc="upper right", fontsize="small")
    axes.set_title(title, fontsize="medium")
    figure.colorbar(points, ax=axes, label="z (m)", shrink=0.7)
    return save(figure, path)


def _window(
    xyz: NDArray[np.floating], boxes: Sequence[Boxes3D], point_cloud_range: Sequence[float]
) -> tuple[float, float, float, float]:
    """x from, x to, y from, y to: what of the range is worth showing, at least 20 m each way."""
    content = np.concatenate([xyz[:, :2], *(b.corners()[:, :4, :2].reshape(-1, 2) for b in boxes)])
    limits = []
    for axis in (0, 1):
        low, high = float(point_cloud_range[axis]), float(point_cloud_range[axis + 3])
        other_low, other_high = float(point_cloud_range[1 - axis]), float(point_cloud_range[4 - axis])
        inside = (content[:, 1 - axis] >= other_low) & (content[:, 1 - axis] < other_high)
        values = content[inside & (content[:, axis] >= low) & (content[:, axis] < high), axis]
        if len(values):
            first, last = float(values.min()) - _MARGIN_M, float(values.max()) + _MARGIN_M
            spare = max(0.0, _LEAST_M - (last - first)) / 2
            low, high = max(low, first - spare), min(high, last + spare)
        limits += [low, high]
    return limits[0], limits[1], limits[2], limits[3]
