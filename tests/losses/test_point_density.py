from __future__ import annotations

import pytest
import torch

from adperception.losses.point_density import point_density


def test_by_hand() -> None:
    predicted, target = torch.tensor([0.0, 0.5, 3.0]), torch.tensor([0.2, 0.0, 0.0])
    assert float(point_density(predicted, target)) == pytest.approx((0.5 * 0.04 + 0.5 * 0.25 + 2.5) / 3)


def test_no_cell_is_zero_and_connected() -> None:
    predicted = torch.zeros(0, requires_grad=True)
    loss = point_density(predicted, torch.zeros(0))
    loss.backward()
    assert float(loss.detach()) == 0
    assert predicted.grad is not None
