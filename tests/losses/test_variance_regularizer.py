from __future__ import annotations

import pytest
import torch

from adperception.losses.variance_regularizer import variance_hinge, variance_regularizer


def test_constant_embeddings_give_the_largest_value() -> None:
    """sqrt(1e-4) = 0.01 is left of the deviation, so the hinge is 1/16 - 0.01."""
    assert float(variance_hinge(torch.ones(7, 256))) == pytest.approx(0.0525)


def test_by_hand() -> None:
    rows = torch.tensor([[0.0, 0.0], [0.1, 2.0]])  # unbiased variances 0.005 and 2
    expected = (0.1 - (0.005 + 1e-4) ** 0.5 + 0.0) / 2
    assert float(variance_hinge(rows, level=0.1)) == pytest.approx(expected, rel=1e-5)


def test_mean_over_samples_with_two_cells_or_more() -> None:
    bev = torch.randn(4, 8, 3, 3) * 0.01
    cells = torch.zeros(4, 3, 3, dtype=torch.bool)
    cells[0, 0, :3] = cells[1, 1, 1] = True
    cells[3, :2, 0] = True
    hinges = [variance_hinge(bev[b].permute(1, 2, 0)[cells[b]]) for b in (0, 3)]
    torch.testing.assert_close(variance_regularizer(bev, cells), (hinges[0] + hinges[1]) / 2)


def test_no_sample_left_is_zero_and_connected() -> None:
    bev = torch.randn(2, 8, 3, 3, requires_grad=True)
    loss = variance_regularizer(bev, torch.zeros(2, 3, 3, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == 0
    assert bev.grad is not None
    assert not bev.grad.any()
