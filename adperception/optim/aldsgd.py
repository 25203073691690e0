"""ALDSGD: decentralised SGD in which the best and the best-connected neighbour count more."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from adperception.optim.collectives import Requests
from adperception.optim.gossip import healthy_weights, mix, pull_to_mixed
from adperception.optim.graph_schedules import ActiveGraph, GraphSchedule, RingSchedule
from adperception.optim.strategy import Order, Strategy, require, require_order
from adperception.optim.worker import Worker

__all__ = ["ALDSGD"]


@dataclass(frozen=True)
class ALDSGD(Strategy):
    """Adjacent-leader decentralised SGD (He, Wang, Choromanska, 2024, arXiv 2405.11389).

    Worker m has two adjacent leaders: N, the neighbour with the lowest training loss, and T, the one with the most
    active links. A round with W = I - alpha L (``"step_then_pull"``, the released code, y the parameters after the
    step):

        ``z_m <- (1 - best_weight - degree_weight) sum_k W_mk y_k + best_weight y_N + degree_weight y_T``
        ``x_m <- z_m + best_pull (y_N - z_m) + degree_pull (y_T - z_m)``

    and as the paper has it (``"joint"``, from the parameters x before the step, with learning rate gamma):

        ``h_m <- x_m - gamma g_m + gamma best_pull (x_N - x_m) + gamma degree_pull (x_T - x_m)``
        ``x_m <- (1 - best_weight - degree_weight) sum_k W_mk h_k + best_weight h_N + degree_weight h_T``

    In words: gossip, plus a push towards whoever does well and whoever carries much information. Consensus is kept, the
    mean of all workers is not. With all four strengths 0 this is ``DPSGD`` (or ``MATCHA``, by the schedule).

    All of it is one weighted sum of neighbours' parameters, so the traffic is that of gossip; losses travel with the
    roll call, degrees are known to all.

    Args:
        schedule: the graph of every round, with the weight alpha; the paper rotates between several.
        best_weight: w_N (c1 in the released code).
        degree_weight: w_tau (c2).
        best_pull: lambda_N (p1).
        degree_pull: lambda_tau (p2).
        leaders_every: leaders count in every so many rounds only, others are plain gossip (the code's ``iteration``: 1
            in its README, 40 by default).
        leader_includes_self: whether a worker can be its own leader, as in the code; the paper speaks of neighbours.
        order: see above.

    State: none. Traffic: P to each neighbour per round, with ``"joint"`` twice. Consensus: the mean.
    """

    schedule: GraphSchedule = field(default_factory=RingSchedule)
    best_weight: float = 0.3
    degree_weight: float = 0.1
    best_pull: float = 0.2
    degree_pull: float = 0.2
    leaders_every: int = 1
    leader_includes_self: bool = True
    order: Order = "step_then_pull"

    def __post_init__(self) -> None:
        for name in ("best_weight", "degree_weight", "best_pull", "degree_pull"):
            require(self, name, getattr(self, name), 0, 1)
        for first, second in (("best_weight", "degree_weight"), ("best_pull", "degree_pull")):
            total = getattr(self, first) + getattr(self, second)
            if total > 1:
                raise ValueError(f"ALDSGD: {first} + {second} = {total:g} must be at most 1.")
        require(self, "leaders_every", self.leaders_every, 1)
        require_order(self, self.order)

    @property
    def needs_loss(self) -> bool:
        """The best neighbour is the one with the lowest loss."""
        return self.best_weight > 0 or self.best_pull > 0

    def start(self, worker: Worker) -> None:
        """Refuse a graph that does not connect the workers."""
        self.schedule.check(worker.workers)

    def round(self, worker: Worker) -> Requests:
        """Mix with the neighbours, leaders counting more; in a joint round only the paper's pulls to them."""
        active = self.schedule.at(worker.rounds, worker.members)
        leaders = self._leaders(worker, active, worker.rounds)
        if worker.deferred:
            yield from self._pull_before_step(worker, active, leaders)
            return
        own, weights = self._mixing_weights(worker, active, leaders)
        if leaders is not None:
            own, weights = _towards(worker, leaders, own, weights, self.best_pull, self.degree_pull)
        yield from mix(worker, own, weights)
        pull_to_mixed(worker, own, weights)

    def finish(self, worker: Worker) -> Requests:
        """The second half of a joint round: mix what the step has made."""
        number = worker.rounds - 1
        active = self.schedule.at(number, worker.members)
        leaders = self._leaders(worker, active, number)
        own, weights = self._mixing_weights(worker, active, leaders)
        yield from mix(worker, own, weights)
        pull_to_mixed(worker, own, weights)

    def _leaders(self, worker: Worker, active: ActiveGraph, number: int) -> tuple[int, int] | None:
        """Best and best-connected neighbour in round ``number``; ``None`` where leaders do not count."""
        own = worker.worker_id
        fit = [n for n in active.neighbours(own) if worker.notes[n].healthy]
        if not fit or not worker.is_healthy or number % self.leaders_every:
            return None
        # Of equals the first one leads: oneself, then neighbours in the order of the matchings; without oneself, by id.
        candidates = [own, *fit] if self.leader_includes_self else sorted(fit)

        def loss(member: int) -> float:
            value = worker.notes[member].loss
            return value if math.isfinite(value) else math.inf

        return min(candidates, key=loss), max(candidates, key=active.degree)

    def _mixing_weights(
        self, worker: Worker, active: ActiveGraph, leaders: tuple[int, int] | None
    ) -> tuple[float, dict[int, float]]:
        """The weights of the mixing line: one's own, and those of the neighbours."""
        own, weights = healthy_weights(worker, active)
        if leaders is None:
            return own, weights
        return _towards(worker, leaders, own, weights, self.best_weight, self.degree_weight)

    def _pull_before_step(self, worker: Worker, active: ActiveGraph, leaders: tuple[int, int] | None) -> Requests:
        """The displacement gamma (best_pull (x_N - x) + degree_pull (x_T - x)), to be added after the step."""
        gamma = worker.learning_rate
        own, weights = 1.0, dict.fromkeys(active.neighbours(worker.worker_id), 0.0)
        if leaders is not None:
            own, weights = _towards(worker, leaders, own, weights, gamma * self.best_pull, gamma * self.degree_pull)
        yield from mix(worker, own, weights)
        if worker.is_healthy:
            pull_to_mixed(worker, own, weights)


def _towards(
    worker: Worker, leaders: tuple[int, int], own: float, weights: dict[int, float], best: float, degree: float
) -> tuple[float, dict[int, float]]:
    """The weights of ``(1 - best - degree) (what they give) + best (best leader) + degree (best-connected leader)``."""
    keep = 1 - best - degree
    changed = {worker.worker_id: own * keep, **{n: weight * keep for n, weight in weights.items()}}
    changed[leaders[0]] += best
    changed[leaders[1]] += degree
    return changed.pop(worker.worker_id), changed
