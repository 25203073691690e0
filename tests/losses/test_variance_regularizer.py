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


@pytest.mark.parametrize("counts", [[3, 1, 0, 2], [2], [40, 3, 500], [5, 5], [0, 0, 2, 1]])
def test_equals_the_hinge_of_each_sample_and_its_gradient(counts: list[int]) -> None:
    """Samples with fewer than two rows are left out; some channels lie above the wanted level, some below."""
    rows = torch.randn(sum(counts), 32) * torch.linspace(0.01, 0.12, 32) + torch.randn(32)
    rows.requires_grad_()
    samples = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    loss = variance_regularizer(rows, samples, counts)
    hinges = [variance_hinge(part) for part in torch.split(rows, counts) if len(part) >= 2]
    expected = torch.stack(hinges).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-8)
    assert float(expected.detach()) > 0
    (gradient,) = torch.autograd.grad(loss, rows)
    (wanted,) = torch.autograd.grad(expected, rows)
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6 * float(wanted.abs().max()))


@pytest.mark.parametrize("counts", [[0, 0], [1, 1, 0]])
def test_no_sample_left_is_zero_and_connected(counts: list[int]) -> None:
    rows = torch.randn(sum(counts), 8, requires_grad=True)
    loss = variance_regularizer(rows, torch.arange(sum(counts)), counts)
    loss.backward()
    assert float(loss.detach()) == 0
    assert rows.grad is not None
    assert not rows.grad.any()
