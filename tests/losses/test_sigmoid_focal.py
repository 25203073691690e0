from __future__ import annotations

import math

import pytest
import torch

from adperception.losses.sigmoid_focal import sigmoid_focal


def test_by_hand() -> None:
    logits = torch.tensor([math.log(3.0), math.log(3.0)])  # probability 3/4
    positive, negative = sigmoid_focal(logits, torch.tensor([1.0, 0.0])).tolist()
    assert positive == pytest.approx(-0.25 * 0.25**2 * math.log(0.75))
    assert negative == pytest.approx(-0.75 * 0.75**2 * math.log(0.25))


def test_extreme_logits_are_finite() -> None:
    logits = torch.tensor([200.0, -200.0], requires_grad=True)
    loss = sigmoid_focal(logits, torch.tensor([0.0, 1.0]))
    loss.sum().backward()
    assert loss.tolist() == pytest.approx([150.0, 50.0])
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


def test_gradcheck() -> None:
    logits = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 2, (5, 3)).double()
    assert torch.autograd.gradcheck(lambda x: sigmoid_focal(x, targets), (logits,))
