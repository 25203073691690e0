from __future__ import annotations

import math

import pytest
import torch

from adperception.losses.soft_dice import soft_dice


def twin(logits: torch.Tensor, target: torch.Tensor) -> float:
    losses = []
    for sample, truth in zip(logits.tolist(), target.tolist(), strict=True):
        overlap = size = 0.0
        for row, line in enumerate(truth):
            for column, true_class in enumerate(line):
                scores = [channel[row][column] for channel in sample]
                for index, score in enumerate(scores):
                    p = math.exp(score) / sum(math.exp(s) for s in scores)
                    y = float(index == true_class) + 1e-6
                    overlap += p * y
                    size += p * p + y * y
        losses.append(1 - 2 * overlap / (size + 1e-6))
    return sum(losses) / len(losses)


def test_twin() -> None:
    logits, target = torch.randn(3, 4, 5, 2), torch.randint(0, 4, (3, 5, 2))
    assert float(soft_dice(logits, target)) == pytest.approx(twin(logits, target), rel=1e-5)


def test_perfect_and_opposite() -> None:
    target = torch.tensor([[[0, 1], [1, 0]]])
    logits = torch.stack([-(target - 0.5), target - 0.5], dim=1) * 100
    assert float(soft_dice(logits, target)) == pytest.approx(0.0, abs=1e-5)
    assert float(soft_dice(-logits, target)) == pytest.approx(1.0, abs=1e-5)


def test_mean_over_samples_not_over_pixels() -> None:
    logits, target = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    alone = [float(soft_dice(logits[i : i + 1], target[i : i + 1])) for i in range(2)]
    assert float(soft_dice(logits, target)) == pytest.approx(sum(alone) / 2)


def test_gradcheck() -> None:
    logits = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    target = torch.randint(0, 3, (2, 2, 2))
    assert torch.autograd.gradcheck(lambda x: soft_dice(x, target), (logits,))
