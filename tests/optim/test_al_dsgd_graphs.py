"""The published graphs of eight workers have their published spectra."""

from __future__ import annotations

import pytest

from adperception.optim.al_dsgd_graphs import al_dsgd_graph

# edges, lambda_2, lambda_n, alpha, rho, contraction per step, edges of the union
SETS = {
    0: (12, 0.67002, 6.32998, 0.28571, 0.65378, 0.8086, 21),
    3: (10, 0.59616, 5.40384, 0.33333, 0.64205, 0.8013, 20),
    6: (9, 0.58579, 4.73205, 0.37609, 0.60792, 0.7797, 18),
    9: (7, 0.18639, 4.34292, 0.44157, 0.84216, 0.9177, 17),
    12: (5, 0.0, 3.73205, 0.53590, 1.0, 1.0, 12),
}


@pytest.mark.parametrize("first", SETS)
def test_published_spectra(first: int) -> None:
    edges, second, largest, weight, rho, contraction, union = SETS[first]
    graphs = [al_dsgd_graph(number) for number in range(first, first + 3)]
    for graph in graphs:
        assert len(graph.edges) == edges
        assert graph.algebraic_connectivity == pytest.approx(second, abs=6e-6)
        assert graph.largest_eigenvalue == pytest.approx(largest, abs=6e-6)
        assert graph.best_weight == pytest.approx(weight, abs=6e-6)
        assert graph.rho(graph.best_weight) == pytest.approx(rho, abs=6e-6)
        assert graph.contraction(graph.best_weight) == pytest.approx(contraction, abs=6e-5)
        assert graph.is_connected == (first < 12)
    assert len({edge for graph in graphs for edge in graph.edges}) == union


def test_graph_0() -> None:
    graph = al_dsgd_graph(0)
    assert [len(matching) for matching in graph.matchings] == [4, 2, 3, 2, 1]
    assert [graph.degree(node) for node in range(8)] == [3, 5, 2, 4, 1, 2, 3, 4]
    assert graph.neighbours(1) == (5, 7, 0, 2, 3)
    # Worker 1 counts its own values negatively.
    assert graph.mixing_matrix(graph.best_weight)[1, 1].item() == pytest.approx(-3 / 7, abs=1e-12)


@pytest.mark.parametrize("first", [12])
def test_whom_the_sparsest_graphs_leave_alone(first: int) -> None:
    alone = [tuple(n for n in range(8) if al_dsgd_graph(number).degree(n) == 0) for number in range(first, first + 3)]
    assert alone == [(4, 7), (1, 2), (4, 7)]


@pytest.mark.parametrize("number", [-1, 15])
def test_other_numbers_are_refused(number: int) -> None:
    with pytest.raises(ValueError, match=f"no published graph {number}"):
        al_dsgd_graph(number)
