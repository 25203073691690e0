"""Bird's-eye-view pictures of points, boxes and hidden cells, without a screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.collections import LineCollection
from numpy.typing import NDArray

from adperception.structures import Boxes3D

__all__ = ["class_colour", "draw_bev", "draw_boxes", "draw_hidden_cells", "outline_boxes"]

# Okabe and Ito's colour-blind-safe colours.
_CLASS_COLOURS = {
    **dict.fromkeys(("Car", "Vehicle", "REGULAR_VEHICLE"), "#D55E00"),
    **dict.fromkeys(("Van", "Truck", "Bus"), "#E69F00"),
    **dict.fromkeys(("Pedestrian", "PEDESTRIAN"), "#CC79A7"),
    **dict.fromkeys(("Cyclist", "BICYCLIST"), "#009E73"),
}
_OTHER_COLOUR = "#666666"


def draw_bev(
    axes: Any,
    xyz: NDArray[np.floating],
    point_cloud_range: Sequence[float],
    boxes: Boxes3D | None = None,
    hidden: NDArray[np.bool_] | None = None,
) -> Any:
    """Draw one frame from above: x to the right, y upwards, metres, as the columns and rows of a BEV map.

    Args:
        axes: matplotlib axes.
        xyz: ``(N, >= 3)`` positions in metres, coloured by height.
        point_cloud_range: ``(x_min, y_min, z_min, x_max, y_max, z_max)``: what is shown, and the span of colours.
        boxes: outlined in the colour of their class, with a line from the centre to the front.
        hidden: ``(H, W)`` cells over the range to be shaded.

    Returns:
        The artist of the points (for a colour bar).
    """
    x0, y0, z0, x1, y1, z1 = point_cloud_range
    if hidden is not None:
        draw_hidden_cells(axes, hidden, point_cloud_range)
    order = np.argsort(xyz[:, 2])  # high points over low ones
    points = axes.scatter(
        xyz[order, 0], xyz[order, 1], c=xyz[order, 2], s=0.8, linewidths=0, cmap="viridis", vmin=z0, vmax=z1, zorder=2
    )
    if boxes is not None:
        draw_boxes(axes, boxes)
    axes.set(xlim=(x0, x1), ylim=(y0, y1), xlabel="x forward (m)", ylabel="y left (m)", aspect="equal")
    return points


def draw_boxes(axes: Any, boxes: Boxes3D) -> None:
    """Outline boxes in the colour of their class, with a legend."""
    outline_boxes(axes, boxes, [class_colour(name) for name in boxes.names])
    for name in dict.fromkeys(boxes.names):
        axes.plot([], [], color=class_colour(name), label=f"{name} ({boxes.names.count(name)})")
    if len(boxes):
        axes.legend(loc="upper right", fontsize="small")


def outline_boxes(axes: Any, boxes: Boxes3D, colours: Sequence[str], linewidth: float = 1.2, **style: Any) -> None:
    """Outline boxes as seen from above; the line inside points to the front.

    Args:
        axes: matplotlib axes.
        boxes: M boxes.
        colours: M colours.
        linewidth: in points.
        style: further options of matplotlib's ``LineCollection``.
    """
    if not len(boxes):
        return
    corners = boxes.corners()[:, :4, :2]
    outlines = np.concatenate([corners, corners[:, :1]], axis=1)
    front = (corners[:, 0] + corners[:, 3]) / 2
    headings = np.stack([boxes.boxes[:, :2], front], axis=1)
    style = {"zorder": 3, **style}
    axes.add_collection(
        LineCollection([*outlines, *headings], colors=[*colours, *colours], linewidths=linewidth, **style)
    )


def class_colour(name: str) -> str:
    """The colour that boxes of a class are drawn in."""
    return _CLASS_COLOURS.get(name, _OTHER_COLOUR)


def draw_hidden_cells(axes: Any, hidden: NDArray[np.bool_], point_cloud_range: Sequence[float]) -> None:
    """Shade the cells ``(H, W)``, H along y and W along x, that a mask hides."""
    x0, y0, _, x1, y1, _ = point_cloud_range
    shade = np.zeros((*hidden.shape, 4))
    shade[hidden] = (0.0, 0.0, 0.0, 0.12)
    axes.imshow(shade, origin="lower", extent=(x0, x1, y0, y1), interpolation="nearest", zorder=1)
