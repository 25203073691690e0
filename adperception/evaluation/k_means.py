"""K-means with k-means++ starts (Arthur and Vassilvitskii, SODA 2007), deterministic for a given generator."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["KMeans", "k_means"]


@dataclass(frozen=True)
class KMeans:
    """A clustering of N points.

    Attributes:
        labels: ``(N,)`` int64 in 0..K-1.
        centres: ``(K, C)`` cluster means.
        inertia: sum over points of the squared distance to their centre.
    """

    labels: Tensor
    centres: Tensor
    inertia: float


def k_means(
    points: Tensor,
    clusters: int,
    generator: torch.Generator,
    *,
    starts: int = 10,
    max_iterations: int = 300,
    tolerance: float = 1e-4,
) -> KMeans:
    """The best of several runs of Lloyd's algorithm, by inertia.

    Args:
        points: ``(N, C)`` floating point, on any device.
        clusters: K, at most N.
        generator: CPU generator of all random draws.
        starts: number of runs, each from its own k-means++ start.
        max_iterations: limit of one run.
        tolerance: a run ends when the centres move by less than this share of the mean variance per dimension
            (summed squares), or when no label changes.

    Raises:
        ValueError: for fewer points than clusters.
    """
    if points.ndim != 2 or points.shape[0] < clusters:
        raise ValueError(f"k_means: points of shape {tuple(points.shape)} cannot form {clusters} clusters.")
    mean = points.mean(dim=0)
    # Squared distances are computed from inner products; centred data keep their rounding small.
    centred = points - mean
    limit = tolerance * float(centred.square().mean())
    runs = (_lloyd(centred, _plus_plus(centred, clusters, generator), max_iterations, limit) for _ in range(starts))
    best = min(runs, key=lambda run: run.inertia)
    return KMeans(best.labels, best.centres + mean, best.inertia)


def _plus_plus(points: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """K starting centres: the first uniform, each next with probability proportional to its squared distance."""
    count = points.shape[0]
    chosen = [int(torch.randint(count, (1,), generator=generator))]
    distance = (points - points[chosen[0]]).square().sum(dim=1)
    while len(chosen) < clusters:
        cumulative = distance.double().cumsum(0).cpu()
        draw = torch.rand((), generator=generator, dtype=torch.float64) * cumulative[-1]
        # right=True never lands on a point of zero weight, unless all are equal.
        index = min(int(torch.searchsorted(cumulative, draw, right=True)), count - 1)
        chosen.append(index)
        distance = torch.minimum(distance, (points - points[index]).square().sum(dim=1))
    return points[chosen]


def _lloyd(points: Tensor, centres: Tensor, max_iterations: int, limit: float) -> KMeans:
    labels = _nearest(points, centres)
    for _ in range(max_iterations):
        members = torch.nn.functional.one_hot(labels, centres.shape[0]).to(points.dtype)
        counts = members.sum(dim=0).unsqueeze(1)
        # A cluster without members keeps its centre.
        moved = torch.where(counts > 0, members.T @ points / counts.clamp(min=1), centres)
        shift = float((moved - centres).square().sum())
        centres = moved
        previous, labels = labels, _nearest(points, centres)
        if shift <= limit or torch.equal(previous, labels):
            break
    inertia = float((points - centres[labels]).square().sum(dtype=torch.float64))
    return KMeans(labels, centres, inertia)


def _nearest(points: Tensor, centres: Tensor) -> Tensor:
    """Index of the nearest centre; ``|x|^2`` is the same for all and left out."""
    return (centres.square().sum(dim=1) - 2 * points @ centres.T).argmin(dim=1)
