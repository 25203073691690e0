from __future__ import annotations

import numpy as np
import pytest
import torch

from adperception.losses.corner_distance import box_corners, corner_distance
from adperception.structures import Boxes3D

BOX = torch.tensor([[10.0, -3.0, -1.0, 4.0, 2.0, 1.5, 0.6]])


def test_corners_are_those_of_boxes3d() -> None:
    boxes = torch.randn(20, 7)
    expected = Boxes3D(boxes.numpy(), ("Car",) * 20).corners()
    np.testing.assert_allclose(box_corners(boxes).numpy(), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "loss"),
    [
        ([0, 0, 0, 0, 0, 0, 0], 0.0),
        ([0, 0, 0, 0, 0, 0, np.pi], 0.0),  # half a turn
        ([0.4, 0, 0, 0, 0, 0, 0], 0.5 * 0.4**2),  # every corner 0.4 m off
        ([0, 0, 3.0, 0, 0, 0, np.pi], 3.0 - 0.5),
        ([0, 0, 0, 0, 0, 1.0, 0], 0.5 * 0.5**2),
    ],
)
def test_known_distances(change: list[float], loss: float) -> None:
    assert float(corner_distance(BOX + torch.tensor([change]), BOX)) == pytest.approx(loss, abs=1e-5)


def test_no_box() -> None:
    assert corner_distance(BOX[:0], BOX[:0]).shape == (0,)
