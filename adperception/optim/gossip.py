"""Mixing with neighbours in a graph: what D-PSGD, MATCHA and AL-DSGD share."""

from __future__ import annotations

from collections.abc import Mapping

from adperception.optim.collectives import Commit, Mix, Requests
from adperception.optim.graph_schedules import ActiveGraph
from adperception.optim.worker import Worker

__all__ = ["healthy_weights", "mix", "pull_to_mixed"]


def healthy_weights(worker: Worker, active: ActiveGraph) -> tuple[float, dict[int, float]]:
    """This worker's row of W = I - alpha L of the active graph: its own weight, and its neighbours'.

    The weight of a neighbour whose parameters are not finite falls to oneself. A worker whose own parameters are not
    finite takes the mean of its fit neighbours.
    """
    neighbours = active.neighbours(worker.worker_id)
    fit = [neighbour for neighbour in neighbours if worker.notes[neighbour].healthy]
    if worker.is_healthy:
        weights = {n: active.weight if n in fit else 0.0 for n in neighbours}
        return 1.0 - sum(weights.values()), weights
    return 0.0, {n: 1.0 / len(fit) if n in fit else 0.0 for n in neighbours}


def mix(worker: Worker, own: float, weights: Mapping[int, float]) -> Requests:
    """Put the weighted sum of one's own and the neighbours' parameters into the scratch vector, and commit."""
    yield Mix(worker.vector, worker.scratch_vector, own, tuple(weights), tuple(weights.values()))
    yield Commit()


def pull_to_mixed(worker: Worker, own: float, weights: Mapping[int, float]) -> None:
    """Take over what was mixed. Without a fit neighbour a worker stays as it is."""
    if any(weights.values()):
        worker.pull(worker.scratch_vector, 1.0)
    elif own == 0.0:
        worker.report.skipped = True
