from __future__ import annotations

import math

import pytest
import torch

from adperception.losses.weighted_cross_entropy import (
    CARRADA_CLASS_WEIGHTS,
    inverse_frequency_weights,
    weighted_cross_entropy,
)


def twin(logits: torch.Tensor, target: torch.Tensor, weights: list[float]) -> float:
    total = size = 0.0
    for scores, classes in zip(logits.movedim(1, -1).reshape(-1, 3).tolist(), target.reshape(-1).tolist(), strict=True):
        probability = math.exp(scores[classes]) / sum(math.exp(s) for s in scores)
        total -= weights[classes] * math.log(probability)
        size += weights[classes]
    return total / size


def test_twin() -> None:
    logits, target = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    weights = [0.01, 0.6, 0.39]
    loss = weighted_cross_entropy(logits, target, torch.tensor(weights, dtype=torch.float64))
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(twin(logits, target, weights), rel=1e-5)


def test_published_weights_sum_to_one() -> None:
    assert [sum(w) for w in CARRADA_CLASS_WEIGHTS.values()] == pytest.approx([1.0, 1.0])


def test_inverse_frequency_by_hand() -> None:
    assert inverse_frequency_weights([1000, 10, 20]) == pytest.approx([2 / 302, 200 / 302, 100 / 302])


def test_absent_class_weighs_as_the_rarest() -> None:
    assert inverse_frequency_weights([100, 0, 10]) == pytest.approx([1 / 21, 10 / 21, 10 / 21])


@pytest.mark.parametrize("counts", [[0, 0, 0], [5, -1, 2]])
def test_impossible_counts_are_refused(counts: list[float]) -> None:
    with pytest.raises(ValueError, match="pixel counts"):
        inverse_frequency_weights(counts)
