from __future__ import annotations

import math

import pytest
import torch

from adperception.losses.sine_smooth_l1 import sine_smooth_l1


def test_by_hand() -> None:
    prediction = torch.tensor([[0.1, -0.5, 0.0, 0.0, 0.0, 0.0, math.pi / 2]])
    loss = sine_smooth_l1(prediction, torch.zeros(1, 7))[0].tolist()
    assert loss == pytest.approx([0.5 * 0.1**2 * 9, 0.5 - 1 / 18, 0, 0, 0, 0, 1 - 1 / 18])


def test_half_a_turn_costs_nothing() -> None:
    prediction = torch.zeros(1, 7)
    prediction[0, 6] = 0.3 + math.pi
    target = torch.zeros(1, 7)
    target[0, 6] = 0.3
    assert float(sine_smooth_l1(prediction, target).sum()) == pytest.approx(0, abs=1e-10)


def test_no_box_is_zero_and_connected() -> None:
    prediction = torch.zeros(0, 7, requires_grad=True)
    sine_smooth_l1(prediction, torch.zeros(0, 7)).sum().backward()
    assert prediction.grad is not None


def test_gradcheck() -> None:
    prediction = torch.randn(4, 7, dtype=torch.float64, requires_grad=True)
    target = torch.randn(4, 7, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: sine_smooth_l1(x, target), (prediction,))
