from __future__ import annotations

import math

import numpy as np
import pytest

from adperception.datasets.formats import from_mmdet3d_v1, to_mmdet3d_v1, yaw_from_quaternion
from adperception.structures import Boxes3D


def test_mmdet3d_boxes_stand_on_their_bottom() -> None:
    theirs = np.array([[10, 2, -1.7, 4, 1.8, 1.5, 0.3, 5.0, 6.0]], dtype=np.float32)  # with a velocity
    boxes = from_mmdet3d_v1(theirs, ["Car"])
    np.testing.assert_allclose(boxes.boxes, [[10, 2, -0.95, 4, 1.8, 1.5, 0.3]], rtol=1e-6)
    assert boxes.names == ("Car",)
    with pytest.raises(ValueError, match=r"shape \(7,\)"):
        from_mmdet3d_v1(theirs[0, :7], ["Car"])


def test_mmdet3d_round_trip() -> None:
    rng = np.random.default_rng(0)
    values = rng.uniform((-70, -70, -3, 0.3, 0.3, 0.3, -4), (70, 70, 3, 12, 3, 4, 4), (500, 7)).astype(np.float32)
    boxes = Boxes3D(values, ("Car",) * 500)
    again = from_mmdet3d_v1(to_mmdet3d_v1(boxes), boxes.names)
    np.testing.assert_allclose(again.boxes, boxes.boxes, atol=1e-6)
    assert len(from_mmdet3d_v1(to_mmdet3d_v1(Boxes3D.empty()), ())) == 0


@pytest.mark.parametrize("yaw", [0.0, 0.3, math.pi / 2, 3.0, -1.2, -3.1])
def test_yaw_of_a_quaternion(yaw: float) -> None:
    turn = np.array([math.cos(yaw / 2), 0, 0, math.sin(yaw / 2)])
    roll = np.array([math.cos(0.2), math.sin(0.2), 0, 0])  # about the box' own x axis: the heading stays
    w1, (x1, y1, z1), w2, (x2, y2, z2) = turn[0], turn[1:], roll[0], roll[1:]
    both = [
        w1 * w2 - x1 * x2 - y1 * y2 - z1 * z2,
        w1 * x2 + x1 * w2 + y1 * z2 - z1 * y2,
        w1 * y2 - x1 * z2 + y1 * w2 + z1 * x2,
        w1 * z2 + x1 * y2 - y1 * x2 + z1 * w2,
    ]
    np.testing.assert_allclose(yaw_from_quaternion(np.array([turn, -turn, both])), yaw, atol=1e-12)
