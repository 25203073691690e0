from __future__ import annotations

import pytest
import torch

from adperception.losses.bev_cosine import bev_cosine


def test_by_hand() -> None:
    prediction = torch.tensor([[3.0, 4.0], [1.0, 0.0], [2.0, 0.0]])
    target = torch.tensor([[4.0, 3.0], [0.0, 1.0], [-1.0, 0.0]])
    assert float(bev_cosine(prediction, target)) == pytest.approx((1 - 24 / 25 + 1 + 2) / 3)


def test_no_cell_is_zero_and_connected() -> None:
    prediction = torch.zeros(0, 4, requires_grad=True)
    loss = bev_cosine(prediction, torch.zeros(0, 4))
    loss.backward()
    assert float(loss.detach()) == 0
    assert prediction.grad is not None


def test_gradcheck() -> None:
    prediction = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    target = torch.randn(5, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: bev_cosine(p, target), (prediction,))
