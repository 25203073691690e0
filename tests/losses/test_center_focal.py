from __future__ import annotations

import math

import pytest
import torch

from adperception.losses.center_focal import center_focal


def test_by_hand() -> None:
    logits = torch.tensor([math.log(3.0), math.log(3.0), 0.0]).view(1, 1, 1, 3)  # 3/4, 3/4, 1/2
    heatmaps = torch.tensor([1.0, 0.5, 0.0]).view(1, 1, 1, 3)
    center = 0.25**2 * math.log(0.75)
    near = 0.75**2 * 0.5**4 * math.log(0.25)
    far = 0.5**2 * math.log(0.5)
    assert float(center_focal(logits, heatmaps)) == pytest.approx(-(center + near + far))


def test_divided_by_the_centres_of_the_batch() -> None:
    logits, heatmaps = torch.randn(2, 3, 4, 4), torch.zeros(2, 3, 4, 4)
    empty = float(center_focal(logits, heatmaps))
    far = -((logits.sigmoid() ** 2) * (1 - logits.sigmoid()).log())
    assert empty == pytest.approx(float(far.sum()), rel=1e-5)
    heatmaps[0, 0, 0, 0] = heatmaps[1, 2, 3, 3] = 1.0
    peaks = [(1 - p) ** 2 * math.log(p) for p in logits.sigmoid()[[0, 1], [0, 2], [0, 3], [0, 3]].tolist()]
    rest = empty - float(far[0, 0, 0, 0] + far[1, 2, 3, 3])
    assert float(center_focal(logits, heatmaps)) == pytest.approx((rest - sum(peaks)) / 2, rel=1e-5)


def test_extreme_logits_are_finite() -> None:
    logits = torch.tensor([500.0, -500.0]).view(1, 1, 1, 2)
    assert float(center_focal(logits, torch.tensor([0.0, 1.0]).view(1, 1, 1, 2))) == pytest.approx(
        -2 * math.log(1e-4), rel=1e-3
    )


def test_gradcheck() -> None:
    logits = torch.randn(1, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    heatmaps = torch.rand(1, 2, 3, 3, dtype=torch.float64)
    heatmaps[0, 1, 1, 1] = 1.0
    assert torch.autograd.gradcheck(lambda x: center_focal(x, heatmaps), (logits,))
