"""Graphs against hand-computed Laplacians and closed-form spectra."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from adperception.optim.graphs import Graph, consensus_contraction


def test_a_path_by_hand() -> None:
    graph = Graph.path((4, 2, 9))
    assert graph.matchings == (((2, 4),), ((2, 9),))
    assert graph.edges == ((2, 4), (2, 9))
    assert graph.neighbours(2) == (4, 9)
    assert [graph.degree(node) for node in graph.nodes] == [1, 2, 1]
    expected = torch.tensor([[1.0, -1, 0], [-1, 2, -1], [0, -1, 1]], dtype=torch.float64)
    assert torch.equal(graph.laplacian(), expected)
    assert graph.laplacian(torch.float32).dtype == torch.float32
    assert torch.equal(graph.matching_laplacians().sum(0), expected)
    # Eigenvalues 0, 1, 3.
    assert graph.algebraic_connectivity == pytest.approx(1, abs=1e-12)
    assert graph.largest_eigenvalue == pytest.approx(3, abs=1e-12)
    assert graph.best_weight == pytest.approx(0.5, abs=1e-12)
    assert graph.contraction(0.5) == pytest.approx(0.5, abs=1e-12)
    assert graph.rho(0.5) == pytest.approx(0.25, abs=1e-12)


def test_mixing_on_a_path_by_hand() -> None:
    x = torch.tensor([3.0, 1, 2], dtype=torch.float64)
    graph = Graph.path(range(3))
    assert (graph.mixing_matrix(0.25) @ x).tolist() == [2.5, 1.75, 1.75]
    assert (graph.mixing_matrix(0.5) @ x).tolist() == [2.0, 2.5, 1.5]


@pytest.mark.parametrize("count", range(3, 12))
def test_spectrum_of_rings(count: int) -> None:
    """2 - 2 cos(2 pi k / n)."""
    graph = Graph.ring(range(count))
    assert len(graph.matchings) == 2 + count % 2
    assert len(graph.edges) == count
    assert all(graph.degree(node) == 2 for node in graph.nodes)
    assert graph.algebraic_connectivity == pytest.approx(2 - 2 * math.cos(2 * math.pi / count), abs=1e-12)
    assert graph.largest_eigenvalue == pytest.approx(2 - 2 * math.cos(2 * math.pi * (count // 2) / count), abs=1e-12)


@pytest.mark.parametrize("count", range(2, 12))
def test_complete_graphs_average_in_one_mixing(count: int) -> None:
    graph = Graph.complete(range(10, 10 + count))
    assert len(graph.matchings) == count - 1 + count % 2
    assert len(graph.edges) == count * (count - 1) // 2
    assert graph.best_weight == pytest.approx(1 / count, abs=1e-12)
    means = torch.full((count, count), 1 / count, dtype=torch.float64)
    assert torch.allclose(graph.mixing_matrix(graph.best_weight), means, atol=1e-12, rtol=0)


def test_ring_of_eight() -> None:
    graph = Graph.ring(range(8))
    assert graph.matchings == (((0, 1), (2, 3), (4, 5), (6, 7)), ((0, 7), (1, 2), (3, 4), (5, 6)))
    assert graph.best_weight == pytest.approx(0.43613, abs=1e-5)
    assert graph.rho(graph.best_weight) == pytest.approx(0.55431, abs=1e-5)
    assert graph.contraction(graph.best_weight) == pytest.approx(0.7445, abs=5e-5)


@pytest.mark.parametrize("constructor", [Graph.ring, Graph.complete, Graph.path])
def test_graphs_of_one_and_two(constructor: Any) -> None:
    alone, pair = constructor((5,)), constructor((3, 7))
    assert alone == Graph((5,), ())
    assert alone.is_connected
    assert alone.neighbours(5) == ()
    assert (alone.algebraic_connectivity, alone.largest_eigenvalue, alone.best_weight) == (0, 0, 0)
    assert alone.contraction(0.0) == 0
    assert pair == Graph((3, 7), (((3, 7),),))
    assert pair.best_weight == pytest.approx(0.5, abs=1e-15)


@pytest.mark.parametrize("seed", range(5))
def test_mixing_keeps_the_mean_and_contracts_as_said(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    edges = {(i, i + 1) for i in range(8)} | {(i, j) for j in range(9) for i in range(j - 1) if (i * j + seed) % 4 == 0}
    graph = Graph.from_edges(range(9), edges)
    x = torch.randn(9, 3, dtype=torch.float64, generator=generator)
    weight = graph.best_weight
    mixed = graph.mixing_matrix(weight) @ x
    assert torch.allclose(mixed.mean(0), x.mean(0), atol=1e-12, rtol=0)
    assert (mixed - x.mean(0)).norm() <= graph.contraction(weight) * (x - x.mean(0)).norm() + 1e-12
    assert graph.contraction(weight) < min(graph.contraction(weight * 0.99), graph.contraction(weight * 1.01))
    norm = torch.linalg.matrix_norm(graph.mixing_matrix(weight) - 1 / 9, 2).item()
    assert graph.contraction(weight) == pytest.approx(norm, abs=1e-12)


def test_components() -> None:
    graph = Graph((6, 5, 1, 0), (((6, 0),), ((0, 5),)))
    assert graph.components == ((0, 5, 6), (1,))
    assert not graph.is_connected
    assert graph.algebraic_connectivity == 0
    assert graph.contraction(graph.best_weight) == 1


def test_restriction_keeps_the_order_and_drops_empty_matchings() -> None:
    graph = Graph((3, 1, 2, 0), (((3, 1), (2, 0)), ((1, 2),), ((3, 0),)))
    assert graph.without([3]) == Graph((1, 2, 0), (((0, 2),), ((1, 2),)))
    assert graph.restricted([0, 3]) == Graph((3, 0), (((0, 3),),))
    assert graph.restricted([1]) == Graph((1,), ())
    with pytest.raises(ValueError, match=r"workers \[7\] are not nodes"):
        graph.restricted([1, 7])


def test_equal_graphs_are_equal_and_hashable() -> None:
    lists: Any = [[[1, 0]], [[1, 2]]]
    graph = Graph((0, 1, 2), lists)
    graph.components, graph.best_weight  # noqa: B018  what is cached must not change the hash
    assert graph == Graph.path(range(3))
    assert hash(graph) == hash(Graph.path(range(3)))


def test_from_edges_is_the_same_graph() -> None:
    graph = Graph.from_edges((2, 0, 1), [(1, 0), (0, 2)])
    assert graph.nodes == (2, 0, 1)
    assert sorted(graph.edges) == [(0, 1), (0, 2)]
    assert len(graph.matchings) == 2


@pytest.mark.parametrize(
    ("nodes", "matchings", "message"),
    [
        ((), (), "at least one node"),
        ((0, 1, 0), (), "name a worker twice"),
        ((0, 1), (((1, 1),),), r"edge \(1, 1\) of matching 0 connects a node with itself"),
        ((0, 1), (((0, 1),), ((1, 0),)), r"edge \(0, 1\) of matching 1 is in matching 0 already"),
        ((0, 1), (((0, 1), (1, 0)),), "is in matching 0 already"),
        ((0, 1), (((0, 2),),), "not among the nodes"),
        ((0, 1, 2), (((0, 1), (1, 2)),), "meets a node that the matching has already"),
        ((0, 1), (((0, 1),), ()), "matching 1 is empty"),
    ],
)
def test_what_is_no_graph_is_refused(nodes: Any, matchings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Graph(nodes, matchings)


@pytest.mark.parametrize("edges", [[(1, 1)], [(0, 1), (1, 0)], [(0, 5)]])
def test_from_edges_refuses_the_same(edges: list[tuple[int, int]]) -> None:
    with pytest.raises(ValueError, match="edge"):
        Graph.from_edges((0, 1), edges)


def test_an_unknown_node_has_no_neighbours() -> None:
    with pytest.raises(ValueError, match="4 is not a node"):
        Graph.path((0, 1)).neighbours(4)


def test_consensus_contraction() -> None:
    path = Graph.path(range(3))
    assert consensus_contraction([path.mixing_matrix(0.5)]) == pytest.approx(0.5, abs=1e-12)
    assert consensus_contraction([path.mixing_matrix(0.5)] * 4000) == pytest.approx(
        0.5, abs=1e-12
    )  # 0.5^4000 underflows
    assert consensus_contraction([Graph.complete(range(4)).mixing_matrix(0.25)]) == 0
    assert consensus_contraction([torch.eye(3, dtype=torch.float64)]) == pytest.approx(1, abs=1e-12)
    with pytest.raises(ValueError, match="at least one round"):
        consensus_contraction([])


def test_a_half_weight_on_both_matchings_of_a_square_averages_in_two_rounds() -> None:
    matchings = Graph.ring(range(4)).matchings
    matrices = [Graph(tuple(range(4)), (matching,)).mixing_matrix(0.5) for matching in matchings]
    assert consensus_contraction(matrices[:1]) == pytest.approx(1, abs=1e-12)
    assert consensus_contraction(matrices) == 0


def test_the_alternation_of_a_ring_of_eight() -> None:
    """Published per-step contractions: 0.7805 with the full ring's weight, 0.4147 with 0.586."""
    ring = Graph.ring(range(8))
    for weight, expected in ((ring.best_weight, 0.7805), (0.586, 0.4147)):
        matrices = [Graph(ring.nodes, (matching,)).mixing_matrix(weight) for matching in ring.matchings]
        assert consensus_contraction(matrices) == pytest.approx(expected, abs=1e-3)
