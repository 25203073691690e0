from __future__ import annotations

import math

import pytest
import torch

from adperception.losses.view_coherence import view_coherence


def twin(doppler: torch.Tensor, angle: torch.Tensor) -> float:
    def profile(sample: list[list[list[float]]], index: int, row: int) -> float:
        best = 0.0
        for column in range(len(sample[0][row])):
            scores = [channel[row][column] for channel in sample]
            best = max(best, math.exp(scores[index]) / sum(math.exp(s) for s in scores))
        return best

    squares = []
    for a, b in zip(doppler.tolist(), angle.tolist(), strict=True):
        rows = len(a[0])
        for index in range(len(a)):
            squares += [(profile(a, index, rows - 1 - row) - profile(b, index, row)) ** 2 for row in range(rows)]
    return sum(squares) / len(squares)


def test_twin() -> None:
    doppler, angle = torch.randn(2, 3, 5, 2), torch.randn(2, 3, 5, 4)
    assert float(view_coherence(doppler, angle)) == pytest.approx(twin(doppler, angle), rel=1e-5)


def test_same_object_in_both_orientations_costs_nothing() -> None:
    doppler, angle = torch.zeros(1, 2, 8, 3), torch.zeros(1, 2, 8, 5)
    doppler[0, 1, 2, 1] = 9.0  # row 2 from the near end
    angle[0, 1, 5, 4] = 9.0  # row 5 from the far end: the same range
    assert float(view_coherence(doppler, angle)) == pytest.approx(0.0, abs=1e-12)
    assert float(view_coherence(doppler.flip(2), angle)) > 0.01


def test_gradient_reaches_both_views() -> None:
    doppler, angle = torch.randn(1, 2, 4, 3, requires_grad=True), torch.randn(1, 2, 4, 3, requires_grad=True)
    view_coherence(doppler, angle).backward()
    for view in (doppler, angle):
        assert view.grad is not None
        assert bool(view.grad.any())
