from __future__ import annotations

import itertools

import pytest
import torch

from adperception.evaluation.k_means import k_means


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_finds_the_best_of_all_splits():
    points = torch.randn(11, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)

    def inertia(labels: torch.Tensor) -> float:
        return sum(float((points[labels == k] - points[labels == k].mean(0)).square().sum()) for k in (0, 1))

    splits = (torch.tensor((0, *rest)) for rest in itertools.product((0, 1), repeat=10) if any(rest))
    best = min(inertia(labels) for labels in splits)
    result = k_means(points, 2, generator(), starts=100)
    assert result.inertia == pytest.approx(best, rel=1e-9)
    assert inertia(result.labels) == pytest.approx(best, rel=1e-9)
    for k in (0, 1):
        torch.testing.assert_close(result.centres[k], points[result.labels == k].mean(0))


def test_is_a_function_of_the_generator_and_leaves_the_global_one_alone():
    points = torch.randn(300, 8, generator=generator())
    before = torch.get_rng_state()
    first, second = k_means(points, 3, generator()), k_means(points, 3, generator())
    assert torch.equal(first.labels, second.labels)
    assert torch.equal(torch.get_rng_state(), before)


def test_far_from_the_origin_is_as_good_as_near():
    points = torch.randn(200, 4, generator=generator())
    points[:100, 0] += 20
    near, far = k_means(points, 2, generator()), k_means(points + 1000, 2, generator())
    assert torch.equal(near.labels, far.labels)
    assert len(set(near.labels[:100].tolist())) == 1
    assert near.labels[0] != near.labels[-1]


def test_equal_points_end():
    result = k_means(torch.ones(10, 3), 2, generator())
    assert result.inertia == 0.0
    assert result.centres.isfinite().all()


def test_more_clusters_than_points_is_an_error():
    with pytest.raises(ValueError, match=r"\(1, 3\) cannot form 2 clusters"):
        k_means(torch.ones(1, 3), 2, generator())
