"""Rotated IoU against shapely's polygon clipping, and against cases with known answers."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
import torch
from numpy.typing import NDArray
from torch import Tensor

from adperception.geometry.rotated_iou import (
    bev_intersection_pairs,
    rotated_iou_3d,
    rotated_iou_3d_pairs,
    rotated_iou_bev,
    rotated_iou_bev_pairs,
)

Array = NDArray[np.float64]
HALF_TURNS = np.array([0.0, np.pi / 2, np.pi, -np.pi / 2])
KINDS = 30


def random_pairs(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """``n`` pairs of every kind of neighbourhood, in turn; sizes from 0.3 m to 12 m, up to 80 m from the origin."""

    def draw() -> Array:
        size = np.exp(rng.uniform(np.log(0.3), np.log(12.0), (n, 3)))
        return np.column_stack([rng.uniform(-80, 80, (n, 2)), rng.uniform(-2, 2, n), size, rng.uniform(-7, 7, n)])

    a, b = draw(), draw()
    offset = rng.uniform(-1, 1, (n, 2)) * (a[:, 3:5] + b[:, 3:5]) / 2
    b[:, :2] = a[:, :2] + offset
    kind = np.arange(n) % KINDS  # 0 and 13 to 29: turned at will and near each other
    tiny = rng.choice([-1, 1], n) * 10.0 ** rng.uniform(-12, -2, n)
    quarter = HALF_TURNS[rng.integers(0, 4, n)]

    def along(i: NDArray[np.bool_], ahead: Array, aside: Array) -> Array:
        """Positions ``ahead`` and ``aside`` of a, in a's own directions."""
        cos, sin = np.cos(a[i, 6]), np.sin(a[i, 6])
        return a[i, :2] + np.column_stack([ahead[i] * cos - aside[i] * sin, ahead[i] * sin + aside[i] * cos])

    zero = np.zeros(n)
    b[kind == 1] = a[kind == 1]  # identical
    b[kind == 2] = a[kind == 2]  # the same rectangle, named otherwise
    b[kind == 2, 6] += np.pi
    b[kind == 3] = a[kind == 3]  # nearly parallel
    b[kind == 3, 6] += tiny[kind == 3]
    b[kind == 4] = a[kind == 4]  # shifted by next to nothing
    b[kind == 4, :2] += tiny[kind == 4, None]
    i = kind == 5  # both axis-aligned
    a[i, 6], b[i, 6] = quarter[i], HALF_TURNS[rng.integers(0, 4, i.sum())]
    i = kind == 6  # end to end: one edge in common
    b[i, 3:] = a[i, 3:]
    b[i, :2] = along(i, a[:, 3], zero)
    i = kind == 7  # aligned, touching with a part of an edge
    b[i, 6] = a[i, 6] + quarter[i] * 2
    b[i, :2] = along(i, (a[:, 3] + b[:, 3]) / 2, offset[:, 1])
    i = kind == 8  # contained, edges flush or inside
    b[i, 3:5] = a[i, 3:5] * rng.choice([0.25, 0.5, 1.0], (int(i.sum()), 2))
    b[i, 6] = a[i, 6]
    b[i, :2] = along(i, (a[:, 3] - b[:, 3]) / 2, zero)
    b[kind == 9, 3] = 0  # a line
    i = kind == 10  # nothing at all on one or both sides
    b[i, 3:5] = 0
    a[i, 4] *= rng.integers(0, 2, i.sum())
    i = kind == 11  # corner on corner, other direction
    b[i, :2] = along(i, (a[:, 3] + b[:, 3]) / 2, (a[:, 4] + b[:, 4]) / 2)
    b[i, 6] = a[i, 6]
    b[kind == 12, :2] += rng.uniform(5, 60, (int((kind == 12).sum()), 2))  # far apart
    b[:, 2] = a[:, 2] + rng.uniform(-1, 1, n) * (a[:, 5] + b[:, 5]) / 2 * rng.integers(0, 2, n)
    return a, b


def polygons(boxes: Array, centre: Array) -> Array:
    """Shapely polygons of boxes in coordinates relative to ``centre``."""
    local = np.array([[0.5, -0.5], [0.5, 0.5], [-0.5, 0.5], [-0.5, -0.5]]) * boxes[:, None, 3:5]
    cos, sin = np.cos(boxes[:, 6, None]), np.sin(boxes[:, 6, None])
    x = local[..., 0] * cos - local[..., 1] * sin + (boxes[:, 0] - centre[:, 0])[:, None]
    y = local[..., 0] * sin + local[..., 1] * cos + (boxes[:, 1] - centre[:, 1])[:, None]
    return np.asarray(shapely.polygons(np.stack([x, y], axis=-1)))


def clipped(a: Array, b: Array) -> tuple[Array, Array]:
    """BEV and 3D IoU by polygon clipping.

    The grid matters: in full floating point GEOS misjudges about one in a thousand pairs whose edges coincide up to
    rounding, and calls equal rectangles disjoint. Snapped to 1e-10 m it is robust.
    """
    shared = shapely.area(shapely.intersection(polygons(a, a), polygons(b, a), grid_size=1e-10))
    shared[(a[:, 3:5].prod(1) == 0) | (b[:, 3:5].prod(1) == 0)] = 0
    top = np.minimum(a[:, 2] + a[:, 5] / 2, b[:, 2] + b[:, 5] / 2)
    bottom = np.maximum(a[:, 2] - a[:, 5] / 2, b[:, 2] - b[:, 5] / 2)
    volume = shared * (top - bottom).clip(min=0)
    results = []
    for common, sizes in ((shared, (3, 4)), (volume, (3, 4, 5))):
        union = a[:, sizes].prod(1) + b[:, sizes].prod(1) - common
        results.append(np.divide(common, union, out=np.zeros_like(common), where=common > 0))
    return results[0], results[1]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-5)])
def test_100_000_pairs_equal_polygon_clipping(dtype: torch.dtype, tolerance: float) -> None:
    first, second = (torch.from_numpy(boxes).to(dtype) for boxes in random_pairs(100_000, np.random.default_rng(0)))
    bev, volume = clipped(first.double().numpy(), second.double().numpy())
    assert ((bev > 0.01) & (bev < 0.99)).sum() > 35_000  # the comparison is not about zeros
    for a, b in ((first, second), (second, first)):
        np.testing.assert_allclose(rotated_iou_bev_pairs(a, b).numpy(), bev, rtol=0, atol=tolerance)
        np.testing.assert_allclose(rotated_iou_3d_pairs(a, b).numpy(), volume, rtol=0, atol=tolerance)


def box(*values: float, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.tensor([values], dtype=dtype)


def test_an_octagon() -> None:
    a = box(0, 0, 0, 2, 2, 1, 0)
    area = float(bev_intersection_pairs(a, box(0, 0, 0, 2, 2, 1, np.pi / 4)))
    assert area == pytest.approx(8 * (np.sqrt(2) - 1), abs=1e-12)


def test_height_counts_in_3d_only() -> None:
    a, b = box(0, 0, 0, 4, 2, 2, 0.3), box(0, 0, 1, 4, 2, 2, 0.3)
    assert float(rotated_iou_bev(a, b)) == pytest.approx(1)
    assert float(rotated_iou_3d(a, b)) == pytest.approx(1 / 3)
    assert float(rotated_iou_3d(a, box(0, 0, 2, 4, 2, 2, 0.3))) == 0  # one on top of the other


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_zero_and_negative_sizes_have_iou_0(dtype: torch.dtype) -> None:
    boxes = torch.cat([box(1, 2, 3, *size, 0.4, dtype=dtype) for size in ((0, 0, 0), (4, 0, 1), (-4, 2, 1), (4, 2, 0))])
    assert not rotated_iou_bev(boxes[:3], boxes).any()
    assert not rotated_iou_3d(boxes, boxes).any()


@pytest.mark.parametrize("distance", [0.0, 1e4, 1e7])
def test_large_coordinates_do_not_hurt(distance: float) -> None:
    a, b = box(0, 0, 0, 4, 2, 2, 0.3), box(0.5, 0.25, 0.5, 4, 2, 2, 1.0)
    moved = [torch.cat([t[:, :3] + distance, t[:, 3:]], dim=1) for t in (a, b)]
    assert float(rotated_iou_3d(*moved)) == pytest.approx(float(rotated_iou_3d(a, b)), abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_matrix_equals_pairs(placement: torch.device, dtype: torch.dtype) -> None:
    a, b = (torch.from_numpy(x[::12]).to(placement, dtype) for x in random_pairs(1200, np.random.default_rng(1)))
    for matrix, pairs in ((rotated_iou_bev, rotated_iou_bev_pairs), (rotated_iou_3d, rotated_iou_3d_pairs)):
        expected = pairs(a.repeat_interleave(len(b), 0), b.repeat(len(a), 1)).view(len(a), len(b))
        actual = matrix(a, b)
        assert actual.dtype == dtype
        assert (actual > 0).sum() > 50
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)


def test_many_boxes_go_through_in_blocks() -> None:
    rng = np.random.default_rng(2)
    a = torch.from_numpy(random_pairs(3000, rng)[0])
    diagonal = rotated_iou_bev(a, a).diagonal()
    torch.testing.assert_close(diagonal, (a[:, 3:5].prod(1) > 0).double())


def test_no_boxes() -> None:
    none, one = torch.zeros(0, 7), box(0, 0, 0, 1, 1, 1, 0, dtype=torch.float32)
    assert rotated_iou_bev(none, one).shape == (0, 1)
    assert rotated_iou_3d(one, none).shape == (1, 0)
    assert rotated_iou_bev_pairs(none, none).shape == (0,)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (torch.zeros(2, 6), torch.zeros(2, 7), r"shape \(2, 6\), expected \(N, 7\)"),
        (torch.zeros(2, 7).double(), torch.zeros(2, 7), "torch.float64 and torch.float32"),
        (torch.zeros(2, 7).long(), torch.zeros(2, 7).long(), "torch.int64"),
        (torch.zeros(2, 7), torch.zeros(3, 7), "2 boxes cannot be paired with 3"),
    ],
)
def test_wrong_boxes_are_refused(a: Tensor, b: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rotated_iou_bev_pairs(a, b)
