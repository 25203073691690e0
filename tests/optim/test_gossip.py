from __future__ import annotations

import math

import pytest
import torch

from adperception.optim.al_dsgd_graphs import al_dsgd_graph
from adperception.optim.aldsgd import ALDSGD
from adperception.optim.dpsgd import DPSGD
from adperception.optim.graph_schedules import CompleteSchedule, FixedSchedule, RingSchedule
from adperception.optim.graphs import Graph
from adperception.optim.local_sgd import LocalSGD
from adperception.optim.matcha import MATCHA
from adperception.optim.matcha_schedule import MATCHASchedule
from adperception.optim.strategy import Strategy

from toy_workers import ToyWorkers, near

PATH = Graph.path((0, 1, 2))
X = [[3.0], [1.0], [2.0]]
QUARTER = FixedSchedule(PATH, weight=0.25)


@pytest.mark.parametrize(
    ("order", "expected"), [("joint", [2.2, 1.65, 1.55]), ("step_then_pull", [2.25, 1.575, 1.575])]
)
def test_dpsgd(order: str, expected: list[float]) -> None:
    near(ToyWorkers(DPSGD(QUARTER, order=order), X).step(), expected)  # type: ignore[arg-type]


def test_mixing_alone() -> None:
    near(ToyWorkers(DPSGD(QUARTER), X, lr=0.0).step(), [2.5, 1.75, 1.75])
    near(ToyWorkers(DPSGD(FixedSchedule(PATH, weight=0.5)), X, lr=0.0).step(), [2.0, 2.5, 1.5])
    near(ToyWorkers(DPSGD(RingSchedule(weight=0.25)), [[3.0], [1.0]], lr=0.0).step(), [2.5, 1.5])


def test_aldsgd_paper() -> None:
    strategy = ALDSGD(
        QUARTER,
        best_weight=0.3,
        degree_weight=0.1,
        best_pull=0.1,
        degree_pull=0.1,
        leader_includes_self=False,
        order="joint",
    )
    near(ToyWorkers(strategy, X).step(), [1.7085, 1.745, 1.3125])


def test_aldsgd_code() -> None:
    near(ToyWorkers(ALDSGD(QUARTER), X).step(), [1.386, 1.143, 1.143])


def test_aldsgd_plain_rounds_between_leaders() -> None:
    workers = ToyWorkers(ALDSGD(QUARTER, leaders_every=2), X, lr=0.0)
    gossip = ToyWorkers(DPSGD(QUARTER), X, lr=0.0)
    workers.step()
    assert not torch.equal(workers.x, gossip.step())
    gossip.put(workers.x)
    near(workers.step(), gossip.step())


@pytest.mark.parametrize("order", ["joint", "step_then_pull"])
@pytest.mark.parametrize("schedule", [RingSchedule(), MATCHASchedule(al_dsgd_graph(0), 0.5, seed=3)])
def test_aldsgd_without_leaders_is_gossip(order: str, schedule: RingSchedule | MATCHASchedule) -> None:
    """Its paper, unlike that of D-PSGD, mixes what the step has made; both of its forms are D-PSGD's as released."""
    starts = torch.randn(8, 5, dtype=torch.float64).tolist()
    off = ALDSGD(schedule, 0, 0, 0, 0, order=order)  # type: ignore[arg-type]
    near(ToyWorkers(off, starts).step(6), ToyWorkers(DPSGD(schedule), starts).step(6))


@pytest.mark.parametrize("order", ["joint", "step_then_pull"])
def test_consensus_is_kept(order: str) -> None:
    for strategy in (ALDSGD(order=order), DPSGD(order=order), MATCHA(order=order)):  # type: ignore[arg-type]
        near(ToyWorkers(strategy, [[2.0, -1.0]] * 4, lr=0.0).step(5), [[2.0, -1.0]] * 4)


def test_mean_is_kept_by_gossip_and_not_by_leaders() -> None:
    starts = torch.randn(8, 3, dtype=torch.float64).tolist()
    for strategy in (DPSGD(), MATCHA(al_dsgd_graph(0)), DPSGD(FixedSchedule(al_dsgd_graph(0)))):
        workers = ToyWorkers(strategy, starts, lr=0.0)
        near(workers.step(5).mean(0), workers.starts.mean(0))
    workers = ToyWorkers(ALDSGD(), starts, lr=0.0)
    assert (workers.step().mean(0) - workers.starts.mean(0)).abs().max() > 0.01


def test_complete_graph_is_averaging() -> None:
    starts = torch.randn(5, 3, dtype=torch.float64).tolist()
    near(ToyWorkers(DPSGD(CompleteSchedule()), starts).step(3), ToyWorkers(LocalSGD(), starts).step(3))


def test_matcha_with_full_budget_is_dpsgd_with_the_best_weight() -> None:
    graph = al_dsgd_graph(0)
    starts = torch.randn(8, 3, dtype=torch.float64).tolist()
    near(
        ToyWorkers(MATCHA(graph, budget=1.0), starts).step(3),
        ToyWorkers(DPSGD(FixedSchedule(graph)), starts).step(3),
        1e-8,
    )


def test_matcha_draws_differ_from_round_to_round_and_disagreement_shrinks() -> None:
    workers = ToyWorkers(MATCHA(al_dsgd_graph(0), budget=0.5), torch.randn(8, 50).tolist(), lr=0.0)
    spreads = [float(workers.step().var(0).sum()) for _ in range(30)]
    # rho = 0.644 per round in expectation
    assert spreads[-1] < spreads[0] * 0.75**29
    edges = {MATCHASchedule(al_dsgd_graph(0), 0.5).at(k, tuple(range(8))).edges for k in range(30)}
    assert len(edges) > 3


@pytest.mark.parametrize(
    "strategy", [DPSGD(), ALDSGD(), MATCHA(budget=1.0), DPSGD(order="joint"), ALDSGD(order="joint")]
)
def test_a_worker_that_is_not_finite_restarts_from_its_neighbours(strategy: Strategy) -> None:
    workers = ToyWorkers(strategy, [[1.0], [math.nan], [3.0], [1.0]], lr=0.0)
    x = workers.step(losses=[1.0, math.nan, 2.0, 3.0])
    assert torch.isfinite(x).all()
    assert x[1] == pytest.approx(2.0)
    assert workers.syncs[0].report.unhealthy == (1,)
    assert workers.syncs[1].report.restarted


def test_disconnected_graph_and_other_workers_are_refused() -> None:
    split = Graph((0, 1, 2, 3), (((0, 1), (2, 3)),))
    with pytest.raises(ValueError, match="disconnected: no edge between workers"):
        ToyWorkers(DPSGD(FixedSchedule(split)), [[0.0]] * 4)
    with pytest.raises(ValueError, match="has a graph of workers"):
        ToyWorkers(DPSGD(QUARTER), [[0.0]] * 4)


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match=r"ALDSGD: best_weight \+ degree_weight = 1.1 must be at most 1"):
        ALDSGD(best_weight=0.6, degree_weight=0.5)
    with pytest.raises(ValueError, match="leaders_every=0"):
        ALDSGD(leaders_every=0)
    with pytest.raises(ValueError, match="budget=0"):
        MATCHA(budget=0)
