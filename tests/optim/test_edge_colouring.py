"""Edge colourings: few matchings, every edge once, whatever the order."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from adperception.optim.edge_colouring import edge_colouring


def random_edges(seed: int) -> list[tuple[int, int]]:
    generator = random.Random(seed)
    nodes, density = generator.randint(2, 14), generator.random()
    edges = [edge for edge in combinations(range(nodes), 2) if generator.random() < density]
    generator.shuffle(edges)
    return edges


@pytest.mark.parametrize("seed", range(100))
def test_a_partition_into_at_most_largest_degree_plus_one_matchings(seed: int) -> None:
    edges = random_edges(seed)
    matchings = edge_colouring(edges)
    assert sorted(edge for matching in matchings for edge in matching) == sorted(edges)
    for matching in matchings:
        ends = [node for edge in matching for node in edge]
        assert len(ends) == len(set(ends)) > 0
    degrees = [sum(node in edge for edge in edges) for node in range(14)]
    assert max(degrees) <= len(matchings) <= max(degrees) + 1 or not edges


def test_neither_order_nor_direction_of_the_edges_matters() -> None:
    edges = random_edges(5)
    assert len(edges) > 10
    assert edge_colouring([(j, i) for i, j in reversed(edges)]) == edge_colouring(edges)


def test_the_petersen_graph_needs_four_matchings() -> None:
    """Degree 3 everywhere, and the smallest bridgeless cubic graph that three colours do not suffice for."""
    outer = [(i, (i + 1) % 5) for i in range(5)]
    inner = [(5 + i, 5 + (i + 2) % 5) for i in range(5)]
    assert len(edge_colouring(outer + inner + [(i, i + 5) for i in range(5)])) == 4


def test_no_edges_no_matchings() -> None:
    assert edge_colouring([]) == ()
