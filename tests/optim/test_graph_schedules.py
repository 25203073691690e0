"""Schedules without chance: what is active, what remains after losses, what is refused."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from adperception.optim.al_dsgd_graphs import al_dsgd_graph
from adperception.optim.graph_schedules import CompleteSchedule, FixedSchedule, GraphSchedule, RingSchedule
from adperception.optim.graphs import Graph
from adperception.optim.matcha_schedule import MATCHASchedule
from adperception.optim.rotating_schedule import RotatingSchedule

EIGHT = tuple(range(8))
ALL: list[GraphSchedule] = [
    RingSchedule(),
    RingSchedule(weight=1 / 3),
    CompleteSchedule(),
    FixedSchedule(al_dsgd_graph(0)),
    MATCHASchedule(),
    MATCHASchedule(al_dsgd_graph(0), budget=0.25),
    RotatingSchedule(tuple(FixedSchedule(al_dsgd_graph(number)) for number in (12, 13, 14))),
    RotatingSchedule((MATCHASchedule(al_dsgd_graph(9)), RingSchedule())),
]


def test_a_ring_by_hand() -> None:
    active = RingSchedule(weight=1 / 3).at(5, (0, 2, 5, 6))
    assert active.edges == ((0, 2), (5, 6), (0, 6), (2, 5))
    assert active.neighbours(0) == (2, 6)
    assert active.degree(5) == 2
    assert active.own_weight(0) == pytest.approx(1 / 3, abs=1e-15)
    third = 1 / 3
    expected = [[third, third, 0, third], [third, third, third, 0], [0, third, third, third], [third, 0, third, third]]
    assert torch.allclose(active.mixing_matrix(), torch.tensor(expected, dtype=torch.float64), atol=1e-15, rtol=0)


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_the_complete_schedule_is_the_global_mean(count: int) -> None:
    members = tuple(range(count))
    for schedule in (CompleteSchedule(), CompleteSchedule(weight=1 / count)):
        active = schedule.at(0, members)
        assert active.weight == 1 / count
        means = torch.full((count, count), 1 / count, dtype=torch.float64)
        assert torch.allclose(active.mixing_matrix(), means, atol=1e-15, rtol=0)
        assert schedule.contraction(members, 1) == pytest.approx(0, abs=1e-12)


def test_a_fixed_graph_is_all_active_with_its_best_weight() -> None:
    graph = al_dsgd_graph(0)
    active = FixedSchedule(graph).at(3, EIGHT)
    assert active.matchings == graph.matchings
    assert active.weight == graph.best_weight
    assert active.neighbours(1) == graph.neighbours(1)
    assert FixedSchedule(graph).contraction(EIGHT, 1) == pytest.approx(0.8086, abs=5e-5)
    assert FixedSchedule(graph).mean_degree(EIGHT) == 3
    assert FixedSchedule(graph, weight=0.1).at(3, EIGHT).weight == 0.1


@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_every_round_keeps_the_mean_and_agrees_between_neighbours(schedule: GraphSchedule) -> None:
    x = torch.arange(8, dtype=torch.float64) ** 2
    for index in range(20):
        active = schedule.at(index, EIGHT)
        assert (active.mixing_matrix() @ x).mean().item() == pytest.approx(17.5, abs=1e-12)
        for worker in EIGHT:
            assert active.degree(worker) == len(active.neighbours(worker))
            assert all(worker in active.neighbours(other) for other in active.neighbours(worker))
            assert active.own_weight(worker) == pytest.approx(active.mixing_matrix()[worker, worker].item(), abs=1e-12)


@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_every_set_of_survivors_still_comes_together(schedule: GraphSchedule) -> None:
    for members in ((0, 1, 2, 4, 5, 6, 7), (0, 2, 4), (4, 7), (1, 2, 3, 6)):
        contraction = schedule.contraction(members, 60)
        assert contraction < 0.999, members
        assert {node for index in range(60) for edge in schedule.at(index, members).edges for node in edge} == set(
            members
        )


@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_one_survivor_has_no_neighbours(schedule: GraphSchedule) -> None:
    active = schedule.at(0, (3,))
    assert (active.neighbours(3), active.edges, active.own_weight(3)) == ((), (), 1)
    assert schedule.expected_edges((3,)) == 0
    assert schedule.mean_degree((3,)) == 0


def test_two_workers_meet_in_the_middle() -> None:
    for schedule in (RingSchedule(), CompleteSchedule(), FixedSchedule(Graph.path((1, 6)))):
        matrix = schedule.at(0, (1, 6)).mixing_matrix()
        assert torch.allclose(matrix, torch.full((2, 2), 0.5, dtype=torch.float64), atol=1e-15, rtol=0)


def test_what_is_left_of_a_graph_gets_its_own_best_weight() -> None:
    graph = Graph.from_edges(range(4), [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2)])
    active = FixedSchedule(graph).at(0, (0, 1, 2))
    assert sorted(active.edges) == [(0, 1), (0, 2), (1, 2)]
    assert active.weight == pytest.approx(1 / 3, abs=1e-12)
    assert FixedSchedule(graph, weight=0.2).at(0, (0, 1, 2)).weight == 0.2


def test_a_disconnected_rest_becomes_a_ring_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    star = FixedSchedule(Graph.from_edges(range(5), [(4, 0), (4, 1), (4, 2), (4, 3)]), weight=0.123)
    with caplog.at_level(logging.WARNING):
        for index in range(3):
            assert star.at(index, (0, 1, 2, 3)) == RingSchedule().at(index, (0, 1, 2, 3))
            assert star.expected_edges((0, 1, 2, 3)) == 4
    (record,) = caplog.records
    message = (
        "no edge is left between workers (0,) and (1,) and (2,) and (3,) of FixedSchedule: the 4 workers go on as a"
    )
    assert message in record.getMessage()
    assert star.at(0, (0, 1, 4)).weight == 0.123


@pytest.mark.parametrize("kind", [FixedSchedule, MATCHASchedule])
def test_a_disconnected_graph_is_refused_with_the_fix(kind: Any) -> None:
    schedule = kind(al_dsgd_graph(12))
    calls: list[Any] = [
        lambda: schedule.at(0, EIGHT),
        lambda: schedule.check(EIGHT),
        lambda: schedule.mean_degree(EIGHT),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=r"\(4,\) and \(7,\), which would never agree; add an edge"):
            call()


def test_check_wants_a_node_for_every_worker_and_no_more() -> None:
    schedule = FixedSchedule(Graph.ring(range(4)))
    schedule.check((0, 1, 2, 3))
    RingSchedule().check((5, 9))
    for workers in ((0, 1, 2), (0, 1, 2, 3, 4)):
        with pytest.raises(ValueError, match=r"graph of workers \(0, 1, 2, 3\), but the workers are"):
            schedule.check(workers)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RingSchedule(weight=0.5), "weight=0.5 does not bring workers together: for a ring"),
        (lambda: RingSchedule(weight=-0.1), "weight=-0.1"),
        (lambda: RingSchedule(weight=float("nan")), "weight=nan"),
        (lambda: CompleteSchedule(weight=1.0), "weight=1.0"),
        (lambda: CompleteSchedule(weight=0.5).at(0, (0, 1, 2, 3)), "complete graph of 4 workers .* below 0.5"),
        (lambda: FixedSchedule(al_dsgd_graph(0), weight=0.32), "below 0.315957"),
        (lambda: RingSchedule().at(-1, (0, 1)), "round_index=-1"),
        (lambda: RingSchedule().at(0, ()), r"members=\(\)"),
        (lambda: RingSchedule().at(0, (1, 0)), "ascending"),
        (lambda: RingSchedule().at(0, (0, 0)), "ascending"),
        (lambda: FixedSchedule(Graph.path((0, 1))).at(0, (0, 1, 2)), r"workers \[2\] are not nodes"),
    ],
)
def test_refused_with_the_value(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("schedule", ALL, ids=lambda s: type(s).__name__)
def test_use_changes_neither_hash_nor_equality(schedule: GraphSchedule) -> None:
    before = hash(schedule)
    schedule.at(0, EIGHT)
    schedule.expected_edges((0, 1, 2))
    assert hash(schedule) == before
    with pytest.raises(AttributeError):
        schedule.weight = 0.1  # type: ignore[attr-defined]
