"""One place of each failure for two strategies; ``benchmarks/failure_matrix.py`` goes through many for all."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest

from failure_runs import PLACES, STEPS, WORKERS, Scenario, draw, problems, train
from faults import Outcome, WorkerPool

TIMEOUT = 1.0


@pytest.fixture(scope="module")
def pool() -> WorkerPool:
    return WorkerPool()


@pytest.mark.multi_process
@pytest.mark.parametrize("strategy", ["LSGD", "DPSGD"])
@pytest.mark.parametrize(
    ("failure", "place", "step"),
    [
        ("killed worker", "in collective", 8),
        ("killed leader", "before collective", 11),
        ("slow worker", "too late", 8),
        ("NaN worker", "gradient", 9),
        ("killed while saving", "consensus", 11),
    ],
)
def test_the_others_go_on(pool: WorkerPool, tmp_path: Path, strategy: str, failure: str, place: str, step: int) -> None:
    elected = failure == "killed leader" and strategy == "LSGD"
    victim = None if elected else {"killed leader": 0}.get(failure, 2)
    seconds = 1.6 * TIMEOUT if failure == "slow worker" else 0.001
    scenario = Scenario(strategy, failure, place, step, victim, 1, seconds, TIMEOUT, str(tmp_path))
    outcomes = pool.run(train, WORKERS, (scenario,), timeout_seconds=30.0)
    assert problems(scenario, outcomes) == []
    assert_a_difference_would_show(scenario, outcomes)


def assert_a_difference_would_show(scenario: Scenario, outcomes: list[Outcome]) -> None:
    left = next(w for w, o in enumerate(outcomes) if o.returned and not o.returned["error"] and w != scenario.victim)
    wrong = {"finite": False, "longest": 9.0, "members": (left,), "done": STEPS - 1, "sums": {}, "warnings": []}
    for key, value in wrong.items():
        changed = copy.deepcopy(outcomes)
        changed[left].returned[key] = value
        assert problems(scenario, changed) or (key == "warnings" and scenario.failure != "slow worker"), key
    changed = copy.deepcopy(outcomes)
    changed[left].exit_code = -9
    assert problems(scenario, changed)


def test_places_are_random_and_all_are_visited(tmp_path: Path) -> None:
    for failure, places in PLACES.items():
        drawn = [draw("EASGD", failure, point, 1, 3.0, tmp_path) for point in range(10)]
        assert drawn == [draw("EASGD", failure, point, 1, 3.0, tmp_path) for point in range(10)]
        assert {scenario.place for scenario in drawn} == set(places)
        assert len({scenario.step for scenario in drawn}) > 2
        assert all(3 <= scenario.step < STEPS - 3 for scenario in drawn)
        assert drawn != [draw("EASGD", failure, point, 2, 3.0, tmp_path) for point in range(10)]
    assert len({draw("DPSGD", "killed worker", point, 0, 3.0, tmp_path).victim for point in range(10)}) > 2
    assert draw("LSGD", "killed leader", 0, 0, 3.0, tmp_path).victim is None
