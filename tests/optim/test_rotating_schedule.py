"""Rotations against the published contractions, and the released baseline, which does not reach consensus."""

from __future__ import annotations

from typing import Any

import pytest

from adperception.optim.al_dsgd_graphs import al_dsgd_graph
from adperception.optim.graph_schedules import FixedSchedule, RingSchedule
from adperception.optim.graphs import Graph, consensus_contraction
from adperception.optim.matcha_schedule import MATCHASchedule
from adperception.optim.rotating_schedule import RotatingSchedule

EIGHT = tuple(range(8))


def fixed(*numbers: int) -> tuple[FixedSchedule, ...]:
    return tuple(FixedSchedule(al_dsgd_graph(number)) for number in numbers)


@pytest.mark.parametrize(
    ("first", "two", "three"),
    [(0, 0.7135, 0.6167), (3, 0.7433, 0.6854), (6, 0.6753, 0.6428), (9, 0.7640, 0.7042), (12, 0.8886, 0.7642)],
)
def test_published_contractions(first: int, two: float, three: float) -> None:
    assert RotatingSchedule(fixed(first, first + 1)).contraction(EIGHT, 2) == pytest.approx(two, abs=6e-5)
    assert RotatingSchedule(fixed(first, first + 1, first + 2)).contraction(EIGHT, 6) == pytest.approx(three, abs=6e-5)


def test_two_of_the_sparsest_graphs_are_not_always_enough() -> None:
    RotatingSchedule(fixed(12, 13)).check(EIGHT)
    with pytest.raises(ValueError, match=r"\(0, 1, 2, 3, 5, 6\) and \(4,\) and \(7,\), which would never agree"):
        RotatingSchedule(fixed(12, 14)).check(EIGHT)


def test_published_order() -> None:
    graphs = [al_dsgd_graph(number) for number in range(3)]
    two, three = RotatingSchedule(fixed(0, 1)), RotatingSchedule(fixed(0, 1, 2))
    assert [graphs.index(two.at(k, EIGHT).graph) for k in range(4)] == [1, 0, 1, 0]
    # Even: second; odd multiple of three: third; else first. 196, 65 and 130 of an epoch's 391 batches.
    order = [graphs.index(three.at(k, EIGHT).graph) for k in range(391)]
    assert order[:10] == [1, 0, 1, 2, 1, 0, 1, 0, 1, 2]
    assert [order.count(i) for i in (1, 2, 0)] == [196, 65, 130]


def test_own_pattern_and_more_than_three() -> None:
    four = RotatingSchedule(fixed(0, 1, 2, 3))
    assert [four.at(k, EIGHT).graph for k in range(5)] == [al_dsgd_graph(k) for k in (0, 1, 2, 3, 0)]
    pattern: Any = [0, 0, 1]
    own = RotatingSchedule(fixed(0, 9), pattern)
    assert [len(own.at(k, EIGHT).edges) for k in range(6)] == [12, 12, 7] * 2
    assert own.expected_edges(EIGHT) == pytest.approx(31 / 3)
    assert own.mean_degree(EIGHT) == pytest.approx(31 / 12)
    hash(own)


def legacy_baseline(*graphs: Graph) -> float:
    """The released D-PSGD baseline: second and first matching of each graph in turn, its other matchings never."""
    pieces = [
        FixedSchedule(Graph(graph.nodes, (graph.matchings[j],)), graph.best_weight) for graph in graphs for j in (1, 0)
    ]
    # Two graphs: each has its own count, the second graph goes first.
    pattern = (0, 1) if len(graphs) == 1 else (2, 0, 3, 1)
    schedule = RotatingSchedule(tuple(pieces), pattern)
    rounds = (schedule.active(k, graphs[0].nodes) for k in range(len(pattern)))
    return consensus_contraction(active.mixing_matrix() for active in rounds)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ((0,), 1.0),
        ((0, 1), 0.8091),
        ((3, 4), 0.9031),
        ((6, 7), 0.9346),
        ((9, 10), 1.0),
        ((12, 13), 1.0),
    ],
)
def test_the_released_baseline(numbers: tuple[int, ...], expected: float) -> None:
    assert legacy_baseline(*(al_dsgd_graph(number) for number in numbers)) == pytest.approx(expected, abs=6e-5)


def test_the_released_baseline_on_a_ring() -> None:
    assert legacy_baseline(Graph.ring(range(8))) == pytest.approx(0.7805, abs=5e-5)


def test_two_matchings_of_graph_0_are_refused() -> None:
    first, second = (FixedSchedule(Graph(EIGHT, (matching,))) for matching in al_dsgd_graph(0).matchings[:2])
    with pytest.raises(ValueError, match="graph of RotatingSchedule is disconnected"):
        RotatingSchedule((first, second)).at(0, EIGHT)


def test_only_a_disconnected_union_becomes_a_ring() -> None:
    path, cross = FixedSchedule(Graph.path(range(4))), FixedSchedule(Graph((0, 1, 2, 3), (((0, 2), (1, 3)),)))
    rotating = RotatingSchedule((path, cross))
    # Without 1, the path is in pieces, its union with (0, 2) is not.
    assert [rotating.at(k, (0, 2, 3)).edges for k in range(2)] == [((0, 2),), ((2, 3),)]
    # Without 2, worker 0 still has 1, and 1 has 3.
    assert [rotating.at(k, (0, 1, 3)).edges for k in range(2)] == [((1, 3),), ((0, 1),)]
    assert rotating.at(0, (0, 3)) == RingSchedule().at(0, (0, 3))


def test_sparsest_set_with_matcha_in_turn() -> None:
    """Each graph leaves workers alone; MATCHA has to solve it all the same."""
    rotating = RotatingSchedule(tuple(MATCHASchedule(al_dsgd_graph(number)) for number in (12, 13, 14)))
    rotating.check(EIGHT)
    assert rotating.contraction(EIGHT, 300) < 0.95
    assert rotating.mean_degree(EIGHT) < 1.25


@pytest.mark.parametrize(
    ("schedules", "pattern", "message"),
    [
        (fixed(0), None, "at least two schedules, not 1"),
        (fixed(0, 1), (0,), r"pattern=\(0,\) has to name each of the 2"),
        (fixed(0, 1), (0, 1, 2), r"pattern=\(0, 1, 2\)"),
        ((FixedSchedule(Graph.path((0, 1))), FixedSchedule(Graph.path((0, 2)))), None, "same nodes"),
    ],
)
def test_refused_with_the_value(schedules: Any, pattern: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RotatingSchedule(schedules, pattern)
