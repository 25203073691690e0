from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from adperception.evaluation.representation import (
    Moments,
    binary_iou,
    cosine_empty_probe,
    covariance_spectrum,
    effective_rank,
    k_means_foreground_probe,
    mean_cosine,
    mean_cross_cosine,
    mean_pair_cosine,
    spectrum_area,
    standard_deviation,
)


def unit_rows(count: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(count, width, generator=generator), dim=1)


def test_moments_pool_exactly_and_match_numpy():
    rows = unit_rows(50, 6) * torch.arange(1, 7)
    pooled = Moments.of(rows[:13]) + Moments.of(rows[13:])
    oracle = np.cov(rows.double().numpy(), rowvar=False)
    np.testing.assert_allclose(pooled.covariance().numpy(), oracle, rtol=1e-10)
    np.testing.assert_allclose(standard_deviation(pooled).numpy(), rows.double().numpy().std(0, ddof=1), rtol=1e-10)
    eigenvalues = np.sort(np.linalg.eigvalsh(oracle))[::-1]
    np.testing.assert_allclose(covariance_spectrum(pooled).numpy(), eigenvalues, rtol=1e-8)


@pytest.mark.parametrize(
    ("eigenvalues", "rank"),
    [([1.0, 1.0, 1.0, 1.0], 4.0), ([7.0, 0.0, 0.0], 1.0), ([3.0, 1.0], 4 / 3**0.75), ([0.0, 0.0], 1.0)],
)
def test_effective_rank_by_hand(eigenvalues, rank):
    # (3, 1): p = (3/4, 1/4), entropy = ln 4 - 3/4 ln 3.
    assert effective_rank(torch.tensor(eigenvalues, dtype=torch.float64)) == pytest.approx(rank, abs=1e-9)


def test_effective_rank_is_of_the_centred_embeddings():
    rows = torch.zeros(40, 5)
    rows[:, 0] = 100.0  # a large mean, which must not count as a dimension in use
    rows[:, 1:3] = torch.randn(40, 2)
    rank = effective_rank(covariance_spectrum(Moments.of(rows)))
    assert 1.5 < rank <= 2.0


def test_effective_rank_ignores_rounding_noise_of_equal_rows():
    rows = torch.nn.functional.normalize(torch.rand(1, 256), dim=1).repeat(500, 1)
    rows = rows * (1 + torch.randint(-1, 2, (500, 256)) * 6e-8)
    assert effective_rank(covariance_spectrum(Moments.of(rows))) == 1.0


def test_too_few_embeddings_are_undefined_not_zero():
    one = Moments.of(unit_rows(1, 4))
    assert math.isnan(effective_rank(covariance_spectrum(one)))
    assert torch.isnan(standard_deviation(one)).all()
    assert math.isnan(mean_pair_cosine(one))
    none = torch.zeros(0, 4)
    assert math.isnan(mean_cosine(none, none))
    assert math.isnan(mean_cross_cosine(Moments.of(none), one))


def test_spectrum_area_by_hand():
    assert spectrum_area(torch.tensor([1.0, 1.0])) == pytest.approx(0.75)  # (1/2 + 1) / 2
    assert spectrum_area(torch.tensor([4.0, 0.0, 0.0])) == pytest.approx(1.0)
    assert spectrum_area(torch.tensor([2.0, 1.0, 1.0])) == pytest.approx((0.5 + 0.75 + 1) / 3)


def test_pair_cosines_equal_the_loop_over_all_pairs():
    a, b = unit_rows(9, 5, seed=1), unit_rows(7, 5, seed=2)
    loop = [float(a[i] @ a[j]) for i in range(9) for j in range(9) if i != j]
    assert mean_pair_cosine(Moments.of(a)) == pytest.approx(np.mean(loop), abs=1e-6)
    cross = [float(x @ y) for x in a for y in b]
    assert mean_cross_cosine(Moments.of(a), Moments.of(b)) == pytest.approx(np.mean(cross), abs=1e-6)


def test_mean_cosine_by_hand():
    first = torch.tensor([[1.0, 0.0], [2.0, 0.0]])
    second = torch.tensor([[0.0, 5.0], [3.0, 3.0]])
    assert mean_cosine(first, second) == pytest.approx(math.sqrt(0.5) / 2)


def test_binary_iou_by_hand():
    called = torch.tensor([True, True, False, False])
    true = torch.tensor([True, False, True, False])
    assert binary_iou(called, true) == pytest.approx(1 / 3)
    assert math.isnan(binary_iou(called & ~called, called & ~called))


@pytest.mark.parametrize("foreground_share", [0.1, 0.9])
def test_k_means_probe_names_the_better_cluster_foreground(foreground_share):
    generator = torch.Generator().manual_seed(0)
    occupied = torch.rand(400, generator=generator) < foreground_share
    rows = torch.where(occupied[:, None], torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]))
    rows = rows + 0.05 * torch.randn(400, 2, generator=generator)
    rows[:4] = rows[4:].mean(0)  # near the border
    result = k_means_foreground_probe(rows, occupied, torch.Generator().manual_seed(0))
    assert result.foreground > 0.95 or foreground_share == 0.1
    assert result.foreground > 0.8
    assert result.empty > 0.8


def test_cosine_probe_by_hand():
    token = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1)
    # cosines with the token: 1, 0.6, 0.5 (not above the threshold), 0
    rows = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.5, math.sqrt(0.75)], [0.0, 1.0]])
    occupied = torch.tensor([False, True, False, True])
    result = cosine_empty_probe(rows * 0.999999, token, occupied, threshold=0.5000001)
    assert result.foreground == pytest.approx(1 / 3)  # called: rows 2, 3; true: 1, 3
    assert result.empty == pytest.approx(1 / 3)  # called: rows 0, 1; true: 0, 2
