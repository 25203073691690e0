"""MATCHA: workers average with a random part of their neighbours, drawn so that information still spreads fast."""

from __future__ import annotations

from dataclasses import dataclass

from adperception.optim.collectives import Requests
from adperception.optim.dpsgd import DPSGD
from adperception.optim.graphs import Graph
from adperception.optim.matcha_schedule import MATCHASchedule
from adperception.optim.strategy import Order, Strategy, require_order
from adperception.optim.worker import Worker

__all__ = ["MATCHA"]


@dataclass(frozen=True)
class MATCHA(Strategy):
    """Matching decomposition sampling (Wang, Sahu, Yang, Joshi, Kar, 2019, arXiv 1905.09435).

    ``DPSGD`` with the graphs of ``MATCHASchedule``: matching j of the graph is active in a round with probability
    p_j, and

        ``x_m <- sum_k W_mk (x_k - eta g_k)``,  W = I - alpha sum_j B_j L_j,  B_j ~ Bernoulli(p_j)

    where p maximises the connectivity of the expected graph within the budget and alpha minimises ``|E[W^T W] - J|``.
    In words: everybody mixes with some neighbours, and links that matter for spreading information are used more
    often. With budget 1 this is D-PSGD with the best constant weight.

    Args:
        graph: who may talk to whom; ``None``: a ring over the workers.
        budget: share of the matchings that a round uses on average.
        seed: of the draws, which are the same on all workers.
        weight: alpha; ``None``: the best.
        order: as ``DPSGD``.

    State: none; the draws are a function of seed and round. Traffic: on average ``budget`` of that of the whole graph.
    Consensus: the mean.
    """

    graph: Graph | None = None
    budget: float = 0.5
    seed: int = 0
    weight: float | None = None
    order: Order = "step_then_pull"

    def __post_init__(self) -> None:
        require_order(self, self.order)
        self.gossip  # noqa: B018  its options are checked now

    @property
    def gossip(self) -> DPSGD:
        """The same rule with the schedule written out."""
        return DPSGD(MATCHASchedule(self.graph, self.budget, self.seed, self.weight), self.order)

    def start(self, worker: Worker) -> None:
        """Refuse a graph that does not connect the workers."""
        self.gossip.start(worker)

    def round(self, worker: Worker) -> Requests:
        """Mix with the neighbours of the round."""
        yield from self.gossip.round(worker)
