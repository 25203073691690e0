"""Where a point goes when a frame is mirrored: in the cube, in every view, in the labels."""

from __future__ import annotations

import numpy as np
import pytest

from adperception.datasets.transforms import MVRSSFlip, RadarMirror
from adperception.structures import (
    RadarBatch,
    RadarFrame,
    RadarGrid,
    RadarMasks,
    RadarObjects,
    RadarViews,
    flip_label_row,
)

GRID = RadarGrid(range_bins=16, azimuth_bins=12, doppler_bins=8, range_bin_m=1.0, doppler_bin_mps=0.5)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def point_frame(range_m: float, azimuth_deg: float, velocity_mps: float, moments: int = 2) -> RadarFrame:
    """One echo, labelled CARRADA's way: range-angle labels lie one row nearer than the echo."""
    row = round(float(GRID.row(range_m)))
    column, doppler = round(float(GRID.azimuth_column(azimuth_deg))), round(float(GRID.doppler_column(velocity_mps)))
    cubes = np.full((moments, *GRID.shape), 1e-3, dtype=np.float32)
    cubes[:, row, column, doppler] = 100
    masks = RadarMasks(np.zeros((16, 8), dtype=np.uint8), np.zeros((16, 12), dtype=np.uint8))
    label_row = GRID.range_bins - 1 - row
    masks.range_doppler[label_row, doppler] = 2
    masks.range_angle[int(flip_label_row(label_row, GRID.range_bins)), column] = 2
    objects = RadarObjects(
        np.array([[flip_label_row(label_row, 16), column, doppler]], dtype=np.float32),
        np.array([[3, 2, 4]], dtype=np.float32),
        np.array([2]),
        np.ones(1, dtype=np.float32),
    )
    return RadarFrame("s/1", GRID, cubes, RadarViews.processed(cubes), masks, objects)


def assert_same(first: RadarFrame, second: RadarFrame) -> None:
    np.testing.assert_array_equal(first.cubes, second.cubes)
    for name in ("range_doppler", "range_angle", "angle_doppler"):
        # Sums of the same numbers in another order.
        np.testing.assert_allclose(getattr(first.views, name), getattr(second.views, name), rtol=1e-5)
    for name in ("range_doppler", "range_angle"):
        np.testing.assert_array_equal(getattr(first.masks, name), getattr(second.masks, name))
    for name in ("cells", "sizes", "class_ids", "scores"):
        np.testing.assert_array_equal(getattr(first.objects, name), getattr(second.objects, name))


@pytest.mark.parametrize("place", [(5.0, 20.0, 1.0), (9.0, -41.0, -2.0), (3.0, 0.0, 0.0), (14.0, 9.6, 1.5)])
def test_a_point_goes_to_its_mirror_image_in_the_cube_in_every_view_and_in_the_labels(
    place: tuple[float, float, float],
) -> None:
    range_m, azimuth, velocity = place
    frame = point_frame(*place)
    assert_same(RadarMirror(azimuth=1, doppler=0)(frame, rng()), point_frame(range_m, -azimuth, velocity))
    assert_same(RadarMirror(azimuth=0, doppler=1)(frame, rng()), point_frame(range_m, azimuth, -velocity))
    # The far border is the mirror image of the radar itself.
    assert_same(RadarMirror(0, 0, range=1)(frame, rng()), point_frame(15 - range_m, azimuth, velocity))
    assert_same(RadarMirror(1, 1, 1)(frame, rng()), point_frame(15 - range_m, -azimuth, -velocity))


def test_the_border_columns_stay() -> None:
    """Column 0 is both ends of a circular axis."""
    frame = point_frame(5, 0, GRID.velocity_mps(0).item())
    assert frame.objects.cells[0, 2] == 0
    assert_same(RadarMirror(0, 1)(frame, rng()), frame)
    left = point_frame(5, GRID.azimuth_deg(0).item(), 0)
    assert_same(RadarMirror(1, 0)(left, rng()), left)


@pytest.mark.parametrize("axis", ["azimuth", "doppler", "range"])
def test_twice_is_once_too_often(axis: str) -> None:
    r = rng(3)
    cubes = r.random((2, *GRID.shape)).astype(np.float32)
    range_angle = r.integers(0, 4, (16, 12)).astype(np.uint8)
    range_angle[:2] = 0  # the range mirror loses these two rows
    masks = RadarMasks(r.integers(0, 4, (16, 8)).astype(np.uint8), range_angle)
    objects = RadarObjects(
        (r.random((5, 3)) * (11, 12, 8) + (2, 0, 0)).astype(np.float32),
        np.ones((5, 3), dtype=np.float32),
        np.ones(5, dtype=np.int64),
        np.ones(5, dtype=np.float32),
    )
    frame = RadarFrame("s/1", GRID, cubes, RadarViews.processed(cubes), masks, objects)
    mirror = RadarMirror(**{"azimuth": 0, "doppler": 0, axis: 1.0})
    once = mirror(frame, rng())
    assert not np.array_equal(once.cubes, frame.cubes)
    back = mirror(once, rng())
    np.testing.assert_allclose(back.objects.cells, frame.objects.cells, atol=1e-5)
    assert_same(
        RadarFrame("s/1", GRID, back.cubes, back.views, back.masks, frame.objects),
        frame,
    )


def test_frames_with_less_and_unmasked_objects() -> None:
    frame = point_frame(5, 20, 1)
    bare = RadarFrame("s/1", GRID, cubes=frame.cubes, objects=frame.objects)
    out = RadarMirror(1, 1, 1)(bare, rng())
    assert out.views is None
    assert out.masks is None
    assert out.objects.cells[0, 0] == 15 - frame.objects.cells[0, 0]
    assert RadarMirror(1, 1, 1)(RadarFrame("s/1", GRID), rng()) == RadarFrame("s/1", GRID)


def test_each_axis_has_its_own_coin_and_nothing_is_written_into() -> None:
    frame = point_frame(5, 20, 1)
    before = point_frame(5, 20, 1)
    generator, seen = rng(), []
    for _ in range(400):
        cells = RadarMirror(0.5, 0.5, 0.5)(frame, generator).objects.cells[0]
        seen.append(tuple(cells != frame.objects.cells[0]))
    shares = [seen.count((a, b, c)) / 400 for a in (False, True) for b in (False, True) for c in (False, True)]
    np.testing.assert_allclose(shares, 0.125, atol=0.06)
    assert_same(frame, before)
    RadarBatch.from_frames([RadarMirror(1, 1, 1)(frame, rng()), frame])  # no negative strides left
    assert RadarMirror(0, 0)(frame, rng()) is frame


def test_mvrss_flip_reverses_rows_and_columns_of_everything() -> None:
    views = RadarViews(*(rng(i).random((2, *s)).astype(np.float32) for i, s in enumerate([(16, 8), (16, 12), (12, 8)])))
    masks = RadarMasks(np.arange(128, dtype=np.uint8).reshape(16, 8), np.arange(192, dtype=np.uint8).reshape(16, 12))
    frame = RadarFrame("s/1", GRID, views=views, masks=masks, objects=RadarObjects.empty())
    both = MVRSSFlip(1)(frame, rng())
    for name in ("range_doppler", "range_angle", "angle_doppler"):
        np.testing.assert_array_equal(getattr(both.views, name), getattr(views, name)[:, ::-1, ::-1])
    np.testing.assert_array_equal(both.masks.range_doppler, masks.range_doppler[::-1, ::-1])
    np.testing.assert_array_equal(both.masks.range_angle, masks.range_angle[::-1, ::-1])
    assert both.objects is None
    kinds, generator = set(), rng()
    for _ in range(50):
        out = MVRSSFlip()(frame, generator)
        corner = out.masks.range_doppler[0, 0]
        # One coin for all: what happened to the range-Doppler mask happened to the angle-Doppler view.
        rows, columns = corner >= 120, corner % 8 == 7
        step = (-1 if rows else 1, -1 if columns else 1)
        np.testing.assert_array_equal(out.views.angle_doppler, views.angle_doppler[:, :: step[0], :: step[1]])
        kinds.add((bool(rows), bool(columns)))
    assert len(kinds) == 4
    assert MVRSSFlip(0)(frame, rng()).objects is None  # all frames of a batch must hold the same
    RadarBatch.from_frames([both, both])


def test_senseless_use_is_refused() -> None:
    with pytest.raises(ValueError, match=r"doppler=1\.5 must lie"):
        RadarMirror(doppler=1.5)
    with pytest.raises(ValueError, match="probability=-1"):
        MVRSSFlip(-1)
    with pytest.raises(ValueError, match=r's/1: MVRSSFlip.*load=\["views"\]'):
        MVRSSFlip()(point_frame(5, 0, 0), rng())
