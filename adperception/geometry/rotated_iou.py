"""Intersection over union of rotated boxes, in bird's-eye view and in 3D: exact, vectorised, on any device.

A box is moved into the frame of the other one, which becomes the axis-aligned rectangle [-p, p] x [-q, q]. By Green's
theorem the part of a polygon inside it has the area of the line integral of -clamp(y, -q, q) dx along the polygon, as
far as x lies in [-p, p]. Along an edge the integrand is piecewise linear with at most two kinks, so trapezoids
integrate it exactly. Nothing has to be sorted and no case is special: coinciding, parallel or touching edges and boxes
without area change the result no more than rounding does, which is what polygon clipping by vertices cannot promise.

Shape legend: A, B boxes, N pairs of boxes; a box is (x, y, z, length, width, height, yaw): centre, metres, radians.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

__all__ = [
    "bev_intersection_pairs",
    "rotated_iou_3d",
    "rotated_iou_3d_pairs",
    "rotated_iou_bev",
    "rotated_iou_bev_pairs",
    "touching_pairs",
]

PairFunction = Callable[[Tensor, Tensor], Tensor]


def rotated_iou_bev(a: Tensor, b: Tensor) -> Tensor:
    """IoU of rectangles seen from above, each of ``a`` with each of ``b``. Computes no gradients.

    Args:
        a: ``(A, 7)`` boxes, float32 or float64. A length or width that is not positive means no area.
        b: ``(B, 7)`` boxes of the same type.

    Returns:
        ``(A, B)`` values in 0..1; 0 where a box has no area.

    Raises:
        ValueError: if shapes or types do not fit.
    """
    return _all_pairs(a, b, rotated_iou_bev_pairs)


def rotated_iou_3d(a: Tensor, b: Tensor) -> Tensor:
    """IoU of volumes, each of ``a`` with each of ``b``; arguments and result as for ``rotated_iou_bev``."""
    return _all_pairs(a, b, rotated_iou_3d_pairs)


@torch.no_grad()
def rotated_iou_bev_pairs(a: Tensor, b: Tensor) -> Tensor:
    """``(N,)`` bird's-eye-view IoU of ``(N, 7)`` boxes with their partners ``(N, 7)``."""
    _check(a, b, pairs=True)
    overlap = bev_intersection_pairs(a, b)
    area_a, area_b = (_sides(boxes).prod(1) for boxes in (a, b))
    return _ratio(overlap, area_a, area_b)


@torch.no_grad()
def rotated_iou_3d_pairs(a: Tensor, b: Tensor) -> Tensor:
    """``(N,)`` 3D IoU of ``(N, 7)`` boxes with their partners ``(N, 7)``; both stand upright."""
    _check(a, b, pairs=True)
    height_a, height_b = (boxes[:, 5].clamp(min=0) for boxes in (a, b))
    # Top and bottom relative to a's centre: absolute heights would round differently far from the origin.
    rise = b[:, 2] - a[:, 2]
    top = torch.minimum(height_a / 2, rise + height_b / 2)
    bottom = torch.maximum(-height_a / 2, rise - height_b / 2)
    overlap = bev_intersection_pairs(a, b) * (top - bottom).clamp(min=0)
    volume_a = _sides(a).prod(1) * height_a
    volume_b = _sides(b).prod(1) * height_b
    return _ratio(overlap, volume_a, volume_b)


@torch.no_grad()
def bev_intersection_pairs(a: Tensor, b: Tensor) -> Tensor:
    """``(N,)`` areas, in square metres, that ``(N, 7)`` boxes share with their partners ``(N, 7)`` seen from above."""
    _check(a, b, pairs=True)
    if len(a) <= _chunk(a.device):
        return _intersection(a, b)
    chunks = zip(*(torch.split(boxes, _chunk(a.device)) for boxes in (a, b)), strict=True)
    return torch.cat([_intersection(first, second) for first, second in chunks])


@torch.no_grad()
def touching_pairs(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Pairs whose circumscribed circles meet, seen from above: all others have no overlap.

    Args:
        a: ``(A, 7)`` boxes.
        b: ``(B, 7)`` boxes.

    Returns:
        Rows of ``a`` and rows of ``b``, ``(N,)`` int64 each, in row-major order.
    """
    reach_a, reach_b = (torch.linalg.vector_norm(_sides(boxes), dim=1) / 2 for boxes in (a, b))
    near = torch.hypot(a[:, None, 0] - b[None, :, 0], a[:, None, 1] - b[None, :, 1]) <= reach_a[:, None] + reach_b
    rows, columns = near.nonzero(as_tuple=True)
    return rows, columns


def _intersection(a: Tensor, b: Tensor) -> Tensor:
    """Shared areas of pairs; tensors inside are ``(4, N)``, the corners or edges of ``a`` first."""
    cos, sin = torch.cos(b[:, 6]), torch.sin(b[:, 6])
    dx, dy = (a[:, :2] - b[:, :2]).unbind(1)
    centre_x, centre_y = dx * cos + dy * sin, dy * cos - dx * sin
    turn = a[:, 6] - b[:, 6]
    cos, sin = torch.cos(turn), torch.sin(turn)
    sides_a, sides_b = _sides(a), _sides(b)
    half_length, half_width = (sides_a / 2).unbind(1)
    p, q = (sides_b / 2).unbind(1)

    # Half the sides of a as vectors u (length) and v (width); its corners counter-clockwise are c+u-v, c+u+v, c-u+v,
    # c-u-v, and the edges that start there 2v, -2u, -2v, 2u.
    ux, uy, vx, vy = half_length * cos, half_length * sin, -half_width * sin, half_width * cos
    x = centre_x + torch.stack([ux - vx, ux + vx, vx - ux, -ux - vx])
    y = centre_y + torch.stack([uy - vy, uy + vy, vy - uy, -uy - vy])
    edge_x, edge_y = 2 * torch.stack([vx, -ux, -vx, ux]), 2 * torch.stack([vy, -uy, -vy, uy])

    # Edge points are (x, y) + t * edge for t in 0..1: where it enters and leaves the strip |x| <= p, and in between,
    # where it crosses y = -q and y = q. A vanishing divisor makes t arbitrary but finite after clamping; its edge does
    # not move along that axis, so any t is right.
    tiny = torch.finfo(a.dtype).tiny
    run, rise = torch.where(edge_x == 0, tiny, edge_x), torch.where(edge_y == 0, tiny, edge_y)
    left, right = ((-p - x) / run).clamp(0, 1), ((p - x) / run).clamp(0, 1)
    enter, leave = torch.minimum(left, right), torch.maximum(left, right)
    below, above = (-q - y) / rise, (q - y) / rise
    first = torch.minimum(torch.maximum(torch.minimum(below, above), enter), leave)
    second = torch.minimum(torch.maximum(torch.maximum(below, above), enter), leave)
    heights = [torch.minimum(torch.maximum(y + t * edge_y, -q), q) for t in (enter, first, second, leave)]
    twice = (first - enter) * (heights[0] + heights[1])
    twice += (second - first) * (heights[1] + heights[2])
    twice += (leave - second) * (heights[2] + heights[3])
    area = (twice * edge_x).sum(0) / -2
    return torch.minimum(area.clamp(min=0), torch.minimum(sides_a.prod(1), sides_b.prod(1)))


def _sides(boxes: Tensor) -> Tensor:
    """``(N, 2)`` length and width, 0 instead of negative ones."""
    return boxes[:, 3:5].clamp(min=0)


def _ratio(overlap: Tensor, size_a: Tensor, size_b: Tensor) -> Tensor:
    """IoU from what is shared and both sizes; 0 where nothing is shared."""
    union = size_a + size_b - overlap
    return torch.where(overlap > 0, overlap / union, torch.zeros_like(overlap))


def _chunk(device: torch.device) -> int:
    """Pairs worked on at once: on CPUs as many as stay in cache, on GPUs as many as keep memory below some 1 GiB."""
    return 1 << 13 if device.type == "cpu" else 1 << 20


def _all_pairs(a: Tensor, b: Tensor, function: PairFunction) -> Tensor:
    """The pair function on all pairs that can have a value above 0, the rest 0."""
    _check(a, b)
    result = a.new_zeros(len(a), len(b))
    for start, rows in _row_blocks(a, len(b)):
        i, j = touching_pairs(rows, b)
        result[start + i, j] = function(rows[i], b[j])
    return result


def _row_blocks(a: Tensor, columns: int) -> Iterator[tuple[int, Tensor]]:
    """Rows of ``a`` in blocks that make matrices of at most 4 million cells, with the number of the first row."""
    rows = max(1, (1 << 22) // max(columns, 1))
    for start in range(0, len(a), rows):
        yield start, a[start : start + rows]


def _check(a: Tensor, b: Tensor, *, pairs: bool = False) -> None:
    for boxes in (a, b):
        if boxes.ndim != 2 or boxes.shape[1] != 7:
            raise ValueError(f"rotated IoU: boxes have shape {tuple(boxes.shape)}, expected (N, 7).")
        if boxes.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"rotated IoU: boxes are {boxes.dtype}, expected torch.float32 or torch.float64.")
    if a.dtype != b.dtype:
        raise ValueError(f"rotated IoU: boxes are {a.dtype} and {b.dtype}; give both the same type.")
    if pairs and len(a) != len(b):
        raise ValueError(f"rotated IoU: {len(a)} boxes cannot be paired with {len(b)}.")
