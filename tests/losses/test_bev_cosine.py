from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from adperception.losses.bev_cosine import bev_cosine, bev_cosine_to_vector


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


def test_one_target_for_all_equals_a_target_for_each_and_its_gradient() -> None:
    prediction = torch.randn(50, 16, requires_grad=True)
    vector = F.normalize(torch.randn(16), dim=0)
    loss, expected = bev_cosine_to_vector(prediction, vector), bev_cosine(prediction, vector.expand(50, 16))
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, prediction)
    (wanted,) = torch.autograd.grad(expected, prediction)
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-8)


def test_one_target_for_all_keeps_rows_in_their_precision() -> None:
    prediction = torch.randn(50, 16).bfloat16()
    prediction[3] = 0  # no direction: distance 1, no gradient
    prediction.requires_grad_()
    vector = F.normalize(torch.randn(16), dim=0)
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        loss = bev_cosine_to_vector(prediction, vector)
    assert [t.dtype for t in saved if t.shape == prediction.shape] == [torch.bfloat16]
    assert loss.dtype == torch.float32
    exact = prediction.detach().float().requires_grad_()
    (wanted,) = torch.autograd.grad(bev_cosine_to_vector(exact, vector), exact)
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert torch.equal(gradient, wanted.bfloat16())
    assert not gradient[3].any()


def test_one_target_for_all_without_a_cell_is_zero_and_connected() -> None:
    prediction = torch.zeros(0, 4, dtype=torch.bfloat16, requires_grad=True)
    loss = bev_cosine_to_vector(prediction, torch.tensor([1.0, 0.0, 0.0, 0.0]))
    loss.backward()
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == 0
    assert prediction.grad is not None
