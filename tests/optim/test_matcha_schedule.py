"""MATCHA's draws: the right frequencies, independent of each other, the same everywhere."""

from __future__ import annotations

import logging
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from adperception.optim.al_dsgd_graphs import al_dsgd_graph
from adperception.optim.graph_schedules import FixedSchedule, RingSchedule
from adperception.optim.graphs import Graph
from adperception.optim.matcha_plan import solve_matcha
from adperception.optim.matcha_schedule import MATCHASchedule

EIGHT = tuple(range(8))
DRAWS = 10_000


def flags(schedule: MATCHASchedule, rounds: range, members: tuple[int, ...] = EIGHT) -> torch.Tensor:
    return torch.tensor([schedule.active(index, members).active for index in rounds], dtype=torch.float64)


@pytest.mark.parametrize("budget", [0.1, 0.5, 0.75])
def test_frequencies_and_independence(budget: float) -> None:
    schedule = MATCHASchedule(al_dsgd_graph(0), budget)
    p = torch.tensor(schedule.plan(EIGHT).probabilities, dtype=torch.float64)
    drawn = flags(schedule, range(DRAWS))
    five_deviations = 5 * (p * (1 - p) / DRAWS).sqrt()
    assert ((drawn.mean(0) - p).abs() <= five_deviations).all()
    scaled = (drawn - p) / (p * (1 - p)).sqrt().clamp(min=0.1)
    between_matchings = scaled.T @ scaled / DRAWS
    between_rounds = scaled[1:].T @ scaled[:-1] / DRAWS
    off_diagonal = between_matchings - torch.diag(between_matchings.diag())
    assert off_diagonal.abs().max().item() < 5 / math.sqrt(DRAWS)
    assert between_rounds.abs().max().item() < 5 / math.sqrt(DRAWS)


def test_disagreement_shrinks_by_rho_on_average() -> None:
    schedule = MATCHASchedule(al_dsgd_graph(0))
    rounds = (schedule.active(index, EIGHT).mixing_matrix() for index in range(2000))
    second_moment = torch.stack([w.T @ w for w in rounds]).mean(0)
    rho = torch.linalg.matrix_norm(second_moment - 1 / 8, 2).item()
    assert rho == pytest.approx(0.64398, abs=0.02)
    # The typical round is a little better than the root mean square.
    assert 0.7 < schedule.contraction(EIGHT, 400) < math.sqrt(0.64398)


def test_published_traffic_of_graph_0() -> None:
    schedule = MATCHASchedule(al_dsgd_graph(0))
    assert schedule.expected_edges(EIGHT) == pytest.approx(7.7256, abs=1e-4)
    assert schedule.mean_degree(EIGHT) == pytest.approx(1.9314, abs=1e-4)
    counted = sum(len(schedule.at(index, EIGHT).edges) for index in range(2000)) / 2000
    assert counted == pytest.approx(7.7256, abs=0.2)


def test_full_budget_is_the_fixed_schedule() -> None:
    whole, fixed = MATCHASchedule(al_dsgd_graph(0), budget=1.0), FixedSchedule(al_dsgd_graph(0))
    for index in range(5):
        assert whole.at(index, EIGHT).edges == fixed.at(index, EIGHT).edges
        assert whole.at(index, EIGHT).weight == pytest.approx(fixed.at(index, EIGHT).weight, abs=1e-12)


def test_active_degree_counts_active_matchings_only() -> None:
    graph = al_dsgd_graph(0)
    schedule = MATCHASchedule(graph, 0.25)
    seen = set()
    for index in range(50):
        active = schedule.at(index, EIGHT)
        expected = tuple(
            i + j - 1
            for matching, used in zip(graph.matchings, active.active, strict=True)
            for i, j in matching
            if used and 1 in (i, j)
        )
        assert active.neighbours(1) == expected
        assert active.degree(1) == len(expected)
        seen.add(len(expected))
    assert len(seen) > 1


def test_an_idle_round_changes_nothing() -> None:
    schedule = MATCHASchedule(Graph.path((2, 5)), budget=0.3)
    idle = next(active for active in (schedule.at(k, (2, 5)) for k in range(50)) if not any(active.active))
    assert idle.edges == ()
    assert idle.neighbours(2) == ()
    assert idle.degree(5) == 0
    assert torch.equal(idle.mixing_matrix(), torch.eye(2, dtype=torch.float64))


def test_draws_depend_on_seed_and_round_alone() -> None:
    schedule = MATCHASchedule(al_dsgd_graph(0))
    drawn = flags(schedule, range(64))
    assert torch.equal(flags(MATCHASchedule(al_dsgd_graph(0)), range(32, 64)), drawn[32:])
    assert not torch.equal(flags(MATCHASchedule(al_dsgd_graph(0), seed=1), range(64)), drawn)


def test_another_process_draws_the_same(repository: Path) -> None:
    code = (
        "from adperception.optim.al_dsgd_graphs import al_dsgd_graph\n"
        "from adperception.optim.matcha_schedule import MATCHASchedule\n"
        "schedule = MATCHASchedule(al_dsgd_graph(0), 0.25, seed=7)\n"
        "flags = [flag for k in range(100) for flag in schedule.at(k, tuple(range(8))).active]\n"
        "print(sum(flag << i for i, flag in enumerate(flags)))"
    )
    # Other hashes of strings, and another order in which things were done before.
    environment = os.environ | {"PYTHONHASHSEED": "123", "PYTHONPATH": str(repository)}
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    drawn = flags(MATCHASchedule(al_dsgd_graph(0), 0.25, seed=7), range(100)).flatten().tolist()
    assert int(there.stdout) == sum(int(flag) << i for i, flag in enumerate(drawn))


def test_draws_are_pinned() -> None:
    """A change would break the resumption of runs: say so in the changelog."""
    drawn = flags(MATCHASchedule(budget=0.5), range(8)).int().tolist()
    assert drawn == [[1, 0], [1, 1], [0, 1], [1, 1], [0, 0], [1, 0], [0, 0], [0, 0]]


def test_after_a_loss_the_rest_is_solved_anew() -> None:
    schedule = MATCHASchedule(al_dsgd_graph(0))
    left = (0, 1, 2, 3, 5, 6, 7)
    plan = solve_matcha(al_dsgd_graph(0).without([4]), 0.5)
    assert schedule.plan(left) == plan
    assert schedule.at(0, left).weight == plan.weight
    assert len(schedule.at(0, left).active) == len(plan.probabilities)


def test_a_disconnected_rest_becomes_a_ring() -> None:
    # Worker 4 has one neighbour, 0.
    left = (1, 2, 3, 4, 5, 6, 7)
    schedule = MATCHASchedule(al_dsgd_graph(0))
    assert [schedule.at(k, left) for k in range(3)] == [RingSchedule().at(k, left) for k in range(3)]
    assert schedule.mean_degree(left) == 2


def test_without_a_graph_it_is_a_ring_of_the_members() -> None:
    schedule = MATCHASchedule()
    assert schedule.plan(EIGHT).rho == pytest.approx(0.78391, abs=1e-5)
    assert schedule.at(0, (1, 4, 6)).graph == Graph.ring((1, 4, 6))


def test_own_weight() -> None:
    schedule = MATCHASchedule(al_dsgd_graph(0), weight=0.3)
    assert schedule.at(0, EIGHT).weight == 0.3
    for weight in (0.0, 1.0, -0.1):
        with pytest.raises(ValueError, match=f"weight={weight}"):
            MATCHASchedule(weight=weight)
    with pytest.raises(
        ValueError, match=r"weight=0.9 does not bring workers .* leave it out for the solved one, 0.39643"
    ):
        MATCHASchedule(al_dsgd_graph(0), weight=0.9).check(EIGHT)


def test_a_weight_too_large_for_what_is_left_is_replaced(caplog: pytest.LogCaptureFixture) -> None:
    # Two triangles with a common side, and a tail at a corner that keeps lambda_2 low.
    graph = Graph.from_edges(range(6), [(0, 1), (1, 2), (2, 3), (3, 0), (0, 2), (2, 4), (4, 5)])
    schedule = MATCHASchedule(graph, budget=0.5, weight=0.575)
    schedule.check((0, 1, 2, 3, 4, 5))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            active = schedule.at(0, (0, 1, 2, 3))
    assert active.weight == schedule.plan((0, 1, 2, 3)).weight
    (record,) = caplog.records
    assert "goes on with the solved one" in record.getMessage()


@pytest.mark.parametrize("budget", [0.0, 1.5, -1.0])
def test_impossible_budgets_are_refused(budget: float) -> None:
    with pytest.raises(ValueError, match=f"budget={budget}"):
        MATCHASchedule(budget=budget)
