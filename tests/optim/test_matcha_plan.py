"""MATCHA's probabilities and weight against published-graph values, closed forms and exhaustive expectations."""

from __future__ import annotations

import random
from itertools import product

import pytest
import torch

from adperception.optim.al_dsgd_graphs import al_dsgd_graph
from adperception.optim.graphs import Graph
from adperception.optim.matcha_plan import UNITS, matcha_rho, solve_matcha

# Solved with a semidefinite-programming library: budget, p, lambda_2, alpha, rho.
GRAPH_0 = [
    (0.10, (0.19675, 0, 0.15162, 0.15163, 0), 0.11224, 0.56207, 0.93679),
    (0.25, (0.49185, 0, 0.37907, 0.37908, 0), 0.28060, 0.55399, 0.81611),
    (0.50, (0.98373, 0, 0.75814, 0.75813, 0), 0.56120, 0.39643, 0.64398),
    (0.75, (1, 0.09845, 1, 1, 0.65155), 0.66473, 0.33295, 0.60793),
    (1.00, (1, 1, 1, 1, 1), 0.67002, 0.28571, 0.65378),
]


def random_graph(seed: int, count: int) -> Graph:
    generator = random.Random(seed)
    edges = {(i, i + 1) for i in range(count - 1)}
    edges |= {(i, j) for j in range(count) for i in range(j) if generator.random() < 0.25}
    return Graph.from_edges(range(count), edges)


@pytest.mark.parametrize(("budget", "p", "connectivity", "weight", "rho"), GRAPH_0)
def test_graph_0(budget: float, p: tuple[float, ...], connectivity: float, weight: float, rho: float) -> None:
    plan = solve_matcha(al_dsgd_graph(0), budget)
    assert plan.probabilities == pytest.approx(p, abs=1e-4)
    assert plan.connectivity == pytest.approx(connectivity, abs=6e-6)
    assert plan.weight == pytest.approx(weight, abs=6e-5)
    assert plan.rho == pytest.approx(rho, abs=1e-5)
    assert plan.gap <= 1e-6


def test_path_of_three_by_hand() -> None:
    plan = solve_matcha(Graph.path(range(3)), 0.5)
    assert plan.probabilities == (0.5, 0.5)
    assert plan.weight == pytest.approx(2 / 3, abs=1e-10)
    assert plan.rho == pytest.approx(2 / 3, abs=1e-12)
    whole = solve_matcha(Graph.path(range(3)), 1.0)
    assert whole.weight == pytest.approx(1 / 2, abs=1e-12)
    assert whole.rho == pytest.approx(1 / 4, abs=1e-12)


def test_ring_of_eight() -> None:
    half = solve_matcha(Graph.ring(range(8)), 0.5)
    assert half.probabilities == (0.5, 0.5)
    assert half.weight == pytest.approx(0.60737, abs=6e-6)
    assert half.rho == pytest.approx(0.78391, abs=6e-6)


@pytest.mark.parametrize("count", [4, 7, 16])
def test_a_complete_graph_uses_all_matchings_equally(count: int) -> None:
    """By symmetry and concavity; lambda_2 = budget * n."""
    plan = solve_matcha(Graph.complete(range(count)), 0.25)
    assert plan.probabilities == pytest.approx((0.25,) * (count - 1 + count % 2), abs=1e-4)
    assert plan.connectivity == pytest.approx(0.25 * count, abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_full_budget_is_the_constant_weight(seed: int) -> None:
    graph = random_graph(seed, 10)
    plan = solve_matcha(graph, 1.0)
    assert set(plan.probabilities) == {1.0}
    assert plan.weight == pytest.approx(graph.best_weight, abs=1e-12)
    assert plan.rho == pytest.approx(graph.rho(graph.best_weight), abs=1e-12)


@pytest.mark.parametrize("budget", [0.001, 0.05, 0.37, 0.5, 0.9, 0.999])
def test_within_the_limits_and_better_than_random_probabilities(budget: float) -> None:
    graph = random_graph(7, 12)
    plan = solve_matcha(graph, budget)
    p = torch.tensor(plan.probabilities, dtype=torch.float64)
    limit = budget * len(p)
    assert p.min() >= 0
    assert p.max() <= 1
    assert p.sum().item() <= limit + 1e-12
    assert all(value == round(value * UNITS) / UNITS for value in plan.probabilities)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        near = p + 0.1 * budget * torch.randn(len(p), dtype=torch.float64, generator=generator)
        far = torch.rand(len(p), dtype=torch.float64, generator=generator)
        for other in (near.clamp(0, 1), far):
            feasible = other * min(1.0, limit / other.sum().item())
            laplacian = torch.tensordot(feasible, graph.matching_laplacians(), 1)
            assert torch.linalg.eigvalsh(laplacian)[1].item() <= plan.connectivity + plan.gap + 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_rho_is_the_expectation_over_all_draws(seed: int) -> None:
    graph = random_graph(seed, 6)
    plan = solve_matcha(graph, 0.4)
    expected = torch.zeros(6, 6, dtype=torch.float64)
    for flags in product((0, 1), repeat=len(graph.matchings)):
        probability = 1.0
        for flag, p in zip(flags, plan.probabilities, strict=True):
            probability *= p if flag else 1 - p
        active = torch.tensor(flags, dtype=torch.float64)
        w = torch.eye(6, dtype=torch.float64) - plan.weight * torch.tensordot(active, graph.matching_laplacians(), 1)
        expected += probability * w.T @ w
    rho = torch.linalg.matrix_norm(expected - 1 / 6, 2).item()
    assert plan.rho == pytest.approx(rho, abs=1e-10)
    assert matcha_rho(graph, plan.probabilities, plan.weight) == pytest.approx(rho, abs=1e-10)
    for factor in (0.95, 0.999, 1.001, 1.05):
        assert matcha_rho(graph, plan.probabilities, factor * plan.weight) >= plan.rho - 1e-12


def test_a_disconnected_graph_gets_a_plan_for_its_components() -> None:
    plan = solve_matcha(Graph((0, 1, 2, 3), (((0, 1), (2, 3)),)), 0.5)
    assert plan.probabilities == (0.5,)
    # Within a pair: E[W^T W] is 1 - 2 a + 2 a^2 on the difference.
    assert plan.weight == pytest.approx(0.5, abs=1e-10)
    assert plan.rho == 1


def test_graphs_without_edges() -> None:
    assert solve_matcha(Graph((3,), ()), 0.5).rho == 0
    assert solve_matcha(Graph((3, 4), ()), 0.5).rho == 1


@pytest.mark.parametrize("budget", [0.0, -0.5, 1.01, float("nan")])
def test_impossible_budgets_are_refused(budget: float) -> None:
    with pytest.raises(ValueError, match=f"budget={budget}"):
        solve_matcha(Graph.path(range(3)), budget)


def test_what_is_not_proven_optimal_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("adperception.optim.matcha_plan._NEWTON_STEPS", 5)
    with pytest.raises(RuntimeError, match=r"budget 0.51 .* are not solved"):
        solve_matcha(al_dsgd_graph(0), 0.51)
