"""DPSGD: workers average with their neighbours in a graph."""

from __future__ import annotations

from dataclasses import dataclass, field

from adperception.optim.collectives import Requests
from adperception.optim.gossip import healthy_weights, mix, pull_to_mixed
from adperception.optim.graph_schedules import GraphSchedule, RingSchedule
from adperception.optim.strategy import Order, Strategy, require_order
from adperception.optim.worker import Worker

__all__ = ["DPSGD"]


@dataclass(frozen=True)
class DPSGD(Strategy):
    """Decentralised parallel SGD (Lian et al., NIPS 2017, arXiv 1705.09056).

    A round with the mixing matrix W = I - alpha L, where L is the Laplacian of the graph of the round:

        ``x_m <- sum_k W_mk (x_k - eta g_k)``    (``"step_then_pull"``, as the codes of MATCHA and AL-DSGD do it)
        ``x_m <- sum_k W_mk x_k - eta g_m``      (``"joint"``, the paper)

    In words: everybody takes over some of each neighbour's parameters. The mean of all workers stays what it was, and
    the disagreement shrinks by the graph's contraction.

    Args:
        schedule: the graph of every round, with the weight alpha.
        order: see above.

    State: none. Traffic: P to each neighbour per round. Consensus: the mean.
    """

    schedule: GraphSchedule = field(default_factory=RingSchedule)
    order: Order = "step_then_pull"

    def __post_init__(self) -> None:
        require_order(self, self.order)

    def start(self, worker: Worker) -> None:
        """Refuse a graph that does not connect the workers."""
        self.schedule.check(worker.workers)

    def round(self, worker: Worker) -> Requests:
        """Mix with the neighbours."""
        own, weights = healthy_weights(worker, self.schedule.at(worker.rounds, worker.members))
        yield from mix(worker, own, weights)
        pull_to_mixed(worker, own, weights)
