from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from adperception.datasets.transforms import (
    PointShuffle,
    RandomWorldFlip,
    RandomWorldRotation,
    RandomWorldScaling,
    RangeCrop,
)
from adperception.geometry import points_in_boxes
from adperception.structures import Boxes3D, LidarFrame, PointCloud

ALL = [
    RandomWorldFlip(("x", "y"), probability=1.0),
    RandomWorldRotation(),
    RandomWorldScaling(),
    PointShuffle(),
    RangeCrop((-5, -5, -2, 5, 5, 2)),
]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def frame() -> LidarFrame:
    r = rng(7)
    points = r.uniform(-8, 8, (3000, 4)).astype(np.float32)
    boxes = np.column_stack([r.uniform(-6, 6, (8, 3)), r.uniform(1, 6, (8, 3)), r.uniform(-3, 3, 8)])
    return LidarFrame("f", PointCloud(points), Boxes3D(boxes.astype(np.float32), ("Car",) * 8))


@pytest.mark.parametrize("transform", ALL[:4], ids=lambda t: type(t).__name__)
def test_points_stay_in_their_boxes(frame: LidarFrame, transform: Callable[..., LidarFrame]) -> None:
    out = transform(frame, rng())
    before = points_in_boxes(frame.cloud.xyz, frame.boxes.boxes).sum(axis=1)
    after = points_in_boxes(out.cloud.xyz, out.boxes.boxes).sum(axis=1)
    assert before.sum() > 100
    assert np.abs(before - after).max() <= 1  # a point on a face may move across by rounding
    assert ((out.boxes.boxes[:, 6] >= -np.pi) & (out.boxes.boxes[:, 6] <= np.pi)).all()


@pytest.mark.parametrize("transform", ALL, ids=lambda t: type(t).__name__)
def test_the_frame_is_not_written_into_and_chance_comes_from_the_generator(
    frame: LidarFrame, transform: Callable[..., LidarFrame]
) -> None:
    points, boxes = frame.cloud.points.copy(), frame.boxes.boxes.copy()
    first, again = transform(frame, rng(3)), transform(frame, rng(3))
    np.testing.assert_array_equal(frame.cloud.points, points)
    np.testing.assert_array_equal(frame.boxes.boxes, boxes)
    np.testing.assert_array_equal(first.cloud.points, again.cloud.points)
    assert first.cloud.points.dtype == first.boxes.boxes.dtype == np.float32


@pytest.mark.parametrize("transform", ALL, ids=lambda t: type(t).__name__)
def test_unlabelled_and_empty_frames(transform: Callable[..., LidarFrame]) -> None:
    bare = LidarFrame("f", PointCloud(np.zeros((0, 4), dtype=np.float32)))
    assert transform(bare, rng()).boxes is None
    none = LidarFrame("f", PointCloud(np.ones((3, 4), dtype=np.float32)), Boxes3D.empty())
    assert len(transform(none, rng()).boxes) == 0


def test_flip_by_hand() -> None:
    box = np.array([[1, 2, 3, 4, 2, 1, 0.5]], dtype=np.float32)
    frame = LidarFrame("f", PointCloud(np.array([[1, 2, 3, 0.4]], dtype=np.float32)), Boxes3D(box, ("Car",)))
    x = RandomWorldFlip(("x",), probability=1)(frame, rng())
    np.testing.assert_allclose(x.cloud.points, [[1, -2, 3, 0.4]])
    np.testing.assert_allclose(x.boxes.boxes, [[1, -2, 3, 4, 2, 1, -0.5]])
    y = RandomWorldFlip(("y",), probability=1)(frame, rng())
    np.testing.assert_allclose(y.cloud.points, [[-1, 2, 3, 0.4]])
    np.testing.assert_allclose(y.boxes.boxes, [[-1, 2, 3, 4, 2, 1, np.pi - 0.5]], rtol=1e-6)
    assert RandomWorldFlip(("x", "y"), probability=0)(frame, rng()) is frame


def test_each_axis_has_its_own_coin() -> None:
    frame = LidarFrame("f", PointCloud(np.ones((1, 4), dtype=np.float32)))
    flip = RandomWorldFlip(("x", "y"))
    generator = rng()
    signs = np.array([flip(frame, generator).cloud.points[0, :2] for _ in range(400)])
    counts = [np.mean((signs[:, 0] == a) & (signs[:, 1] == b)) for a in (1, -1) for b in (1, -1)]
    np.testing.assert_allclose(counts, 0.25, atol=0.07)


def test_rotation_is_counter_clockwise_and_spans_its_range() -> None:
    box = np.array([[2, 0, 0, 4, 2, 1, 3.0]], dtype=np.float32)
    frame = LidarFrame("f", PointCloud(np.array([[1, 0, 5, 0]], dtype=np.float32)), Boxes3D(box, ("Car",)))
    out = RandomWorldRotation((0.5, 0.5))(frame, rng())
    np.testing.assert_allclose(out.cloud.points, [[np.cos(0.5), np.sin(0.5), 5, 0]], rtol=1e-6)
    np.testing.assert_allclose(
        out.boxes.boxes, [[2 * np.cos(0.5), 2 * np.sin(0.5), 0, 4, 2, 1, 3.5 - 2 * np.pi]], rtol=1e-6
    )
    turn = RandomWorldRotation()
    angles = [np.arctan2(*turn(frame, rng(i)).cloud.points[0, 1::-1]) for i in range(300)]
    assert np.pi / 4 - 0.03 < max(angles) <= np.pi / 4 + 1e-6
    assert -np.pi / 4 + 0.03 > min(angles) >= -np.pi / 4 - 1e-6


def test_scaling_spares_intensity_and_yaw() -> None:
    box = np.array([[2, 3, 1, 4, 2, 1, 3.0]], dtype=np.float32)
    frame = LidarFrame("f", PointCloud(np.array([[1, 2, 5, 0.5]], dtype=np.float32)), Boxes3D(box, ("Car",)))
    out = RandomWorldScaling((2, 2))(frame, rng())
    np.testing.assert_allclose(out.cloud.points, [[2, 4, 10, 0.5]])
    np.testing.assert_allclose(out.boxes.boxes, [[4, 6, 2, 8, 4, 2, 3.0]])
    factors = [RandomWorldScaling()(frame, rng(i)).cloud.points[0, 0] for i in range(200)]
    assert 0.95 <= min(factors) < 0.955
    assert 1.045 < max(factors) <= 1.05


def test_shuffle_permutes(frame: LidarFrame) -> None:
    out = PointShuffle()(frame, rng())
    assert not np.array_equal(out.cloud.points, frame.cloud.points)
    np.testing.assert_array_equal(np.sort(out.cloud.points, axis=0), np.sort(frame.cloud.points, axis=0))


def test_range_crop_keeps_boxes_with_a_corner_inside() -> None:
    boxes = np.array(
        [
            [11, 0, 0, 4, 2, 1, 0],  # reaches back to x = 9
            [13, 0, 0, 4, 2, 1, 0],  # begins at x = 11
            [11.3, 0, 0, 2, 2, 1, np.pi / 4],  # its corner at x = 11.3 - sqrt(2)
            [5, 0, 0, 40, 40, 1, 0],  # around the range, no corner inside
        ],
        dtype=np.float32,
    )
    points = np.array([[0, 0, 0, 1], [10, 0, 0, 2], [-0.1, 0, 0, 3], [5, 0, 2.1, 4]], dtype=np.float32)
    frame = LidarFrame("f", PointCloud(points), Boxes3D(boxes, ("a", "b", "c", "d")))
    out = RangeCrop((0, -5, -2, 10, 5, 2))(frame, rng())
    assert out.cloud.points[:, 3].tolist() == [1]
    assert out.boxes.names == ("a", "c")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RandomWorldFlip(("z",)), 'may hold "x" and "y"'),
        (lambda: RandomWorldFlip(probability=2), "probability=2"),
        (lambda: RandomWorldRotation((1, -1)), "angle_range"),
        (lambda: RandomWorldScaling((0, 1)), "scale_range"),
        (lambda: RangeCrop((0, 0, 0, 1, 1)), "point_cloud_range"),
        (lambda: RangeCrop((0, 0, 0, 1, 0, 1)), "each minimum below its maximum"),
    ],
)
def test_senseless_options_are_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
