from __future__ import annotations

import pytest
import torch

from adperception.losses.masked_chamfer import masked_chamfer


def twin(predicted: torch.Tensor, target: torch.Tensor, valid: torch.Tensor) -> float:
    forth, back = [], []
    for p, t, v in zip(predicted.tolist(), target.tolist(), valid.tolist(), strict=True):
        true = [point for point, is_point in zip(t, v, strict=True) if is_point]
        if not true:
            continue
        forth += [min(sum((a - b) ** 2 for a, b in zip(q, r, strict=True)) for r in true) for q in p]
        back += [min(sum((a - b) ** 2 for a, b in zip(q, r, strict=True)) for q in p) for r in true]
    return sum(forth) / len(forth) + sum(back) / len(back)


def test_by_hand() -> None:
    predicted = torch.tensor([[[0.0, 0, 0], [2.0, 0, 0]]])
    target = torch.tensor([[[0.0, 1, 0], [5.0, 0, 0], [0.0, 0, 0]]])
    valid = torch.tensor([[True, True, False]])  # the last one would be a perfect match, but is padding
    # forth: 1, and 4 + 1 to the first or 9 to the second; back: 1 and 9
    assert float(masked_chamfer(predicted, target, valid)) == pytest.approx((1 + 5) / 2 + (1 + 9) / 2)


def test_equals_the_slow_twin() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted, target = torch.randn(7, 4, 3, generator=generator), torch.randn(7, 6, 3, generator=generator)
    valid = torch.rand(7, 6, generator=generator) < 0.5
    valid[3] = False
    valid[5] = True
    assert float(masked_chamfer(predicted, target, valid)) == pytest.approx(twin(predicted, target, valid), rel=1e-5)


def test_no_cell_is_zero_and_connected() -> None:
    predicted = torch.zeros(2, 4, 3, requires_grad=True)
    loss = masked_chamfer(predicted, torch.zeros(2, 5, 3), torch.zeros(2, 5, dtype=torch.bool))
    loss.backward()
    assert float(loss.detach()) == 0
    assert predicted.grad is not None


def test_gradcheck() -> None:
    generator = torch.Generator().manual_seed(1)
    predicted = torch.randn(3, 4, 3, dtype=torch.float64, generator=generator).requires_grad_()
    target = torch.randn(3, 5, 3, dtype=torch.float64, generator=generator)
    valid = torch.tensor([[True] * 5, [True, False, True, False, False], [False] * 5])
    assert torch.autograd.gradcheck(lambda p: masked_chamfer(p, target, valid), (predicted,))
