from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from adperception.evaluation.label_probes import class_accuracies, knn_probe, linear_probe, site_labels
from adperception.structures import Boxes3D, VoxelGrid

GRID = VoxelGrid.create([0.0, -3.2, -2.0, 6.4, 3.2, 2.0], [0.1, 0.1, 0.1])  # sites of 0.8 m, layers of 2.05 m


def test_sites_by_hand() -> None:
    xyz = np.array(
        [
            [0.1, -3.1, -1.9],  # site (0, 0, 0): a car's point, two of the ground
            [0.7, -2.5, -1.9],
            [0.6, -2.6, -1.9],
            [1.0, -3.1, -1.9],  # site (0, 0, 1): ground only
            [3.0, 0.1, 1.9],  # site (1, 4, 3): a tram, which is not asked for
            [5.0, 0.1, 0.0],  # site (0, 4, 6): two points of a pedestrian, one of a car
            [5.1, 0.1, 0.0],
            [5.5, 0.1, 0.0],
            [9.0, 0.0, 0.0],  # outside
        ]
    )
    boxes = Boxes3D(
        np.array(
            [
                [0.1, -3.1, -1.9, 0.2, 0.2, 0.2, 0.0],
                [3.0, 0.1, 1.9, 0.5, 0.5, 0.5, 0.0],
                [5.05, 0.1, 0.0, 0.2, 0.2, 0.2, 0.0],
                [5.5, 0.1, 0.0, 0.1, 0.1, 0.1, 0.0],
            ],
            dtype=np.float32,
        ),
        ("Car", "Tram", "Pedestrian", "Car"),
    )
    labels = site_labels(xyz, boxes, ("Car", "Pedestrian"), GRID, layers=2, stride=8)
    found = {tuple(site): int(c) for site, c in zip(labels.sites.tolist(), labels.classes, strict=True)}
    assert found == {(0, 0, 0): 0, (0, 0, 1): 2, (0, 4, 6): 1}


def test_layers_share_the_sparse_depth() -> None:
    """Voxel 20 of 41 is still in the lower of two layers (20 / 20.5)."""
    xyz = np.array([[0.0, 0.0, 0.05], [0.0, 0.0, 0.15]])
    labels = site_labels(xyz, Boxes3D.empty(), ("Car",), GRID, layers=2, stride=8)
    assert labels.sites[:, 0].tolist() == [0, 1]
    assert labels.classes.tolist() == [1, 1]


def knn_twin(bank: list[list[float]], classes: list[int], query: list[float], k: int) -> int:
    def cosine(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True)) / (math.hypot(*a) * math.hypot(*b))

    best = sorted(((cosine(row, query), c) for row, c in zip(bank, classes, strict=True)), reverse=True)[:k]
    votes = {c: sum(math.exp(s / 0.07) for s, own in best if own == c) for c in set(classes)}
    return max(votes, key=lambda c: votes[c])


def test_knn_equals_the_slow_twin() -> None:
    generator = torch.Generator().manual_seed(0)
    bank, queries = torch.rand(60, 5, generator=generator), torch.rand(40, 5, generator=generator)
    classes = torch.randint(0, 3, (60,), generator=generator)
    expected = [knn_twin(bank.tolist(), classes.tolist(), q, 20) for q in queries.tolist()]
    assert knn_probe(bank, classes, queries, 3).tolist() == expected
    assert knn_probe(bank[:4], classes[:4], queries, 3).shape == (40,)
    assert knn_probe(bank, classes, queries[:0], 3).shape == (0,)


def test_linear_probe_finds_what_is_linear_and_ignores_scale_and_counts() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(600, 6, generator=generator) * torch.tensor([1, 1, 1, 1, 1, 1000.0])
    classes = (rows[:, 0] > 1).long()  # one in six
    queries = torch.randn(500, 6, generator=generator) * torch.tensor([1, 1, 1, 1, 1, 1000.0])
    found = class_accuracies(linear_probe(rows, classes, queries, 3), (queries[:, 0] > 1).long(), ("a", "b", "c"))
    assert found["a"] > 0.9
    assert found["b"] > 0.9
    assert math.isnan(found["c"])


def test_linear_probe_is_at_the_minimum() -> None:
    """Against another solver: plain gradient descent on the same convex problem."""
    generator = torch.Generator().manual_seed(1)
    rows, classes = torch.randn(80, 3, generator=generator), torch.randint(0, 3, (80,), generator=generator)
    queries = torch.randn(200, 3, generator=generator)
    x = ((rows - rows.mean(0)) / rows.std(0, correction=0)).double()
    share = 80 / (3 * torch.bincount(classes).double())
    weight, bias = torch.zeros(3, 3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    for _ in range(4000):
        p = torch.softmax(x @ weight + bias, dim=1)
        error = (p - torch.nn.functional.one_hot(classes, 3)) * share[classes][:, None] / share[classes].sum()
        weight -= 0.5 * (x.T @ error + 2e-4 * weight)
        bias -= 0.5 * error.sum(0)
    expected = (((queries - rows.mean(0)) / rows.std(0, correction=0)).double() @ weight + bias).argmax(1)
    agree = (linear_probe(rows, classes, queries, 3) == expected).float().mean()
    assert float(agree) >= 0.99


def test_accuracies_by_hand() -> None:
    called, true = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 1, 2])
    found = class_accuracies(called, true, ("a", "b", "c", "d"))
    assert (found["a"], found["b"], found["c"]) == (1.0, 0.5, 1.0)
    assert math.isnan(found["d"])
    assert found["mean"] == pytest.approx(2.5 / 3)
