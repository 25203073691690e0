"""Turning a frame around with the mouse: points, labels and detections in open3d (a screen and the extra ``viz``)."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from adperception.datasets.formats.optional import import_extra
from adperception.structures import Boxes3D
from adperception.visualization.bev import class_colour

__all__ = ["show_frame"]

# The edges of a box between the corners of Boxes3D.corners(), and a cross on its front.
_EDGES = [
    (0, 1),
    (1, 2),
    (2, 3),
    (3, 0),
    (4, 5),
    (5, 6),
    (6, 7),
    (7, 4),
    (0, 4),
    (1, 5),
    (2, 6),
    (3, 7),
    (0, 7),
    (3, 4),
]


def show_frame(
    xyz: NDArray[np.floating],
    z_range: tuple[float, float],
    detections: Boxes3D | None = None,
    truth: Boxes3D | None = None,
    title: str = "",
) -> None:
    """Open a window with one frame and wait until it is closed.

    Args:
        xyz: ``(N, >= 3)`` positions in metres.
        z_range: heights at the ends of the colour scale.
        detections: boxes in the colour of their class, the front crossed.
        truth: labelled boxes, black.
        title: of the window.

    Raises:
        ImportError: if open3d is not installed.
    """
    o3d = import_extra("open3d", "viz", "the viewer and its windows")
    points = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(xyz[:, :3].astype(np.float64)))
    share = np.clip((xyz[:, 2] - z_range[0]) / (z_range[1] - z_range[0]), 0, 1)
    points.colors = o3d.utility.Vector3dVector(colormaps["viridis"](share)[:, :3])
    shapes = [points, o3d.geometry.TriangleMesh.create_coordinate_frame(size=2.0)]
    if truth is not None:
        shapes += _line_sets(o3d, truth, ["#000000"] * len(truth))
    if detections is not None:
        shapes += _line_sets(o3d, detections, [class_colour(name) for name in detections.names])
    o3d.visualization.draw_geometries(shapes, window_name=title)


def _line_sets(o3d: Any, boxes: Boxes3D, colours: list[str]) -> list[Any]:
    sets = []
    for corners, colour in zip(boxes.corners(), colours, strict=True):
        lines = o3d.geometry.LineSet(
            points=o3d.utility.Vector3dVector(corners.astype(np.float64)), lines=o3d.utility.Vector2iVector(_EDGES)
        )
        lines.paint_uniform_color(to_rgb(colour))
        sets.append(lines)
    return sets
