"""MATCHA's activation probabilities and mixing weight, solved with torch alone.

Wang et al., "MATCHA: Speeding up decentralized SGD via matching decomposition sampling" (2019), steps 2 and 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from adperception.optim.graphs import Graph

__all__ = ["UNITS", "MATCHAPlan", "matcha_rho", "solve_matcha"]

UNITS = 10**6
"""Probabilities are multiples of 1 / UNITS: workers on different processors, whose solutions differ in the last bits,
use the same numbers."""

_LOWEST_BUDGET = 1e-3
_TOLERANCE = 1e-6  # of lambda_2
_NEWTON_STEPS = 300


@dataclass(frozen=True)
class MATCHAPlan:
    """Which matchings are used how often, and how much is mixed.

    Attributes:
        probabilities: p_j of each matching, multiples of 1 / UNITS.
        connectivity: lambda_2 of the expected Laplacian sum_j p_j L_j.
        gap: how much larger lambda_2 could be with other probabilities at most, from a dual solution.
        weight: the mixing weight alpha.
        rho: ||E[W^T W] - J||, by which a round shrinks the expected squared distance from the mean.
    """

    probabilities: tuple[float, ...]
    connectivity: float
    gap: float
    weight: float
    rho: float


@lru_cache(maxsize=128)
def solve_matcha(graph: Graph, budget: float) -> MATCHAPlan:
    """The best probabilities for a budget, and the best mixing weight for them.

    p maximises lambda_2(sum_j p_j L_j) subject to sum_j p_j <= budget * number of matchings and 0 <= p_j <= 1; alpha
    minimises rho. Each is one convex problem. Of several optimal p it is the most central, and for ``budget=1`` all
    ones, so that every matching is used in every round and alpha is the graph's ``best_weight``.

    A disconnected graph never reaches consensus (rho = 1). It still gets a plan, for use within a rotation of graphs:
    lambda_2 is then the smallest expected eigenvalue within the components, and alpha shrinks distances within them.

    Args:
        graph: base graph.
        budget: share of the matchings that a round uses on average, 0.001 to 1.

    Raises:
        ValueError: for another budget.
        RuntimeError: if the solution cannot be proven optimal to 1e-6 of lambda_2 (and the rounding to 1 / UNITS).
    """
    if not _LOWEST_BUDGET <= budget <= 1:
        raise ValueError(f"budget={budget}: the share of matchings that a round uses on average; give 0.001 to 1")
    if not graph.matchings:
        return MATCHAPlan((), 0.0, 0.0, 0.0, _rho_without_edges(graph))
    laplacians = graph.matching_laplacians()
    basis = _within_components(graph)
    reduced = basis.T @ laplacians @ basis
    units, bound = [UNITS] * len(graph.matchings), math.inf
    if budget < 1:
        solution, bound = _most_connected(reduced, budget * len(graph.matchings))
        units = _in_units(solution.tolist(), budget * len(graph.matchings))
    probabilities = torch.tensor(units, dtype=torch.float64) / UNITS
    connectivity = torch.linalg.eigvalsh(torch.tensordot(probabilities, reduced, 1))[0].item()
    # With every matching always active there is nothing to prove: lambda_2 grows with each p_j.
    gap = max(0.0, bound - connectivity) if budget < 1 else 0.0
    # No L_j has an eigenvalue above 2.
    if not gap <= _TOLERANCE * connectivity + 2 * len(units) / UNITS:
        raise RuntimeError(
            f"MATCHA's probabilities for budget {budget} on {graph} are not solved: lambda_2 = {connectivity}, but "
            f"up to {connectivity + gap} might be possible; give another budget or graph"
        )
    weight, rho = _best_weight(probabilities, laplacians, basis)
    rho = rho if graph.is_connected else 1.0
    return MATCHAPlan(tuple(probabilities.tolist()), connectivity, gap, weight, rho)


def matcha_rho(graph: Graph, probabilities: tuple[float, ...], weight: float) -> float:
    """||E[W^T W] - J|| for W = I - weight * (sum of the active L_j), each active by itself with its probability.

    With the expected Laplacian E = sum_j p_j L_j and V = sum_j p_j (1 - p_j) L_j it is the largest eigenvalue of
    I - 2 weight E + weight^2 (E^2 + 2 V) - J, because L_j^2 = 2 L_j for a matching.
    """
    if not graph.matchings:
        return _rho_without_edges(graph)
    n = len(graph.nodes)
    mean, second = _moments(torch.tensor(probabilities, dtype=torch.float64), graph.matching_laplacians())
    identity = torch.eye(n, dtype=torch.float64)
    squared = identity - 2 * weight * mean + weight**2 * second - 1 / n
    return float(torch.linalg.eigvalsh(squared)[-1])


def _rho_without_edges(graph: Graph) -> float:
    return 0.0 if len(graph.nodes) == 1 else 1.0


def _within_components(graph: Graph) -> Tensor:
    """(n, n - components): an orthonormal basis of what the Laplacian does not map to 0."""
    eigenvectors: Tensor = torch.linalg.eigh(graph.laplacian()).eigenvectors
    return eigenvectors[:, len(graph.components) :]


def _moments(probabilities: Tensor, laplacians: Tensor) -> tuple[Tensor, Tensor]:
    """E[L] and E[L^2] of the sum of active Laplacians."""
    mean = torch.tensordot(probabilities, laplacians, 1)
    return mean, mean @ mean + 2 * torch.tensordot(probabilities * (1 - probabilities), laplacians, 1)


def _best_weight(probabilities: Tensor, laplacians: Tensor, basis: Tensor) -> tuple[float, float]:
    """The minimiser of a convex function of one variable, by bisection on the sign of a subgradient; its minimum."""
    mean, second = (basis.T @ moment @ basis for moment in _moments(probabilities, laplacians))
    identity = torch.eye(len(mean), dtype=torch.float64)

    def value_and_slope(weight: float) -> tuple[float, float]:
        values, vectors = torch.linalg.eigh(identity - 2 * weight * mean + weight**2 * second)
        top = vectors[:, -1]
        return values[-1].item(), (top @ (2 * weight * second - 2 * mean) @ top).item()

    # E[L^2] is at least E[L]^2, so beyond 2 / lambda_n(E[L]) the top eigenvector of E[L] alone gives more than 1.
    low, high = 0.0, 2 / torch.linalg.eigvalsh(mean)[-1].item()
    for _ in range(60):
        middle = (low + high) / 2
        if value_and_slope(middle)[1] < 0:
            low = middle
        else:
            high = middle
    return high, value_and_slope(high)[0]


def _most_connected(laplacians: Tensor, limit: float) -> tuple[Tensor, float]:
    """Maximise t subject to sum_j p_j L_j - t I >= 0 (semidefinite), sum_j p_j <= limit and 0 <= p_j <= 1.

    Newton's method on the logarithmic barrier (Boyd and Vandenberghe, "Convex optimization", 2004, section 11.6). The
    inverse of the slack matrix after the next step, to first order and scaled to trace 1, is a dual solution Z:
    lambda_2 is at most the largest sum_j p_j <Z, L_j> that the budget allows, a fractional knapsack.

    Args:
        laplacians: (m, d, d), without their common null space.
        limit: budget, below m.

    Returns:
        p, (m,), and the proven bound of lambda_2.
    """
    m, d = laplacians.shape[:2]
    # The variables are (p, t), the constraint matrices (L_1, ..., L_m, -I).
    directions = torch.cat([laplacians, -torch.eye(d, dtype=torch.float64)[None]])
    point = torch.full((m + 1,), 0.9 * limit / m, dtype=torch.float64)
    point[m] = 0.5 * torch.linalg.eigvalsh(torch.tensordot(point[:m], laplacians, 1))[0]
    scale = point[m].item()
    sharpness = (d + 2 * m + 1) / scale
    bound = math.inf
    for _ in range(_NEWTON_STEPS):
        p, t = point[:m], point[m]
        inverse = torch.linalg.inv(torch.tensordot(point, directions, 1))
        gradient, hessian = _barrier_derivatives(point, inverse, directions, limit)
        gradient[m] -= sharpness
        step = -torch.linalg.solve(hessian, gradient)
        decrement = -(gradient @ step).item()
        if decrement < 1e-6:
            dual = inverse - inverse @ torch.tensordot(step, directions, 1) @ inverse
            bound = min(bound, _knapsack(torch.tensordot(laplacians, dual / dual.trace(), 2), limit))
            if bound - t.item() < 1e-9 * bound:
                return p, bound
            sharpness *= 8
            continue
        # A damped Newton step stays inside and cannot go up on a self-concordant barrier.
        point = point + step / (1 + math.sqrt(decrement))
    return point[:m], bound


def _barrier_derivatives(point: Tensor, inverse: Tensor, directions: Tensor, limit: float) -> tuple[Tensor, Tensor]:
    """Gradient and Hessian of -log det(slack) - sum log p - sum log(1 - p) - log(limit - sum p)."""
    m = len(point) - 1
    p, left = point[:m], limit - point[:m].sum()
    products = inverse @ directions
    gradient = -products.diagonal(dim1=1, dim2=2).sum(1)
    hessian = products.flatten(1) @ products.transpose(1, 2).flatten(1).T
    gradient[:m] += 1 / (1 - p) - 1 / p + 1 / left
    hessian[:m, :m] += torch.diag(1 / p**2 + 1 / (1 - p) ** 2) + 1 / left**2
    return gradient, hessian


def _knapsack(gains: Tensor, limit: float) -> float:
    """The largest sum_j p_j gains_j with 0 <= p_j <= 1 and sum_j p_j <= limit."""
    best_first = gains.sort(descending=True).values
    whole = int(limit)
    return (best_first[:whole].sum() + (limit - whole) * best_first[whole]).item()


def _in_units(probabilities: list[float], limit: float) -> list[int]:
    """Rounded to multiples of 1 / UNITS; those rounded up the most give back what is above the limit."""
    exact = [min(max(p, 0.0), 1.0) * UNITS for p in probabilities]
    units = [round(value) for value in exact]
    excess = max(0, sum(units) - math.floor(limit * UNITS + 1e-3))
    most_rounded_up = sorted(range(len(units)), key=lambda j: exact[j] - units[j])
    for j in most_rounded_up[:excess]:
        units[j] -= 1
    return units
