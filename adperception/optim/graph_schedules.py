"""Graph schedules: which edges are active in a round, the same on every worker without a message.

A schedule is a pure function of the round's number and the members. It has no state to save, and workers need nothing
but equal settings to agree. When workers are lost, the rest goes on with what is left of the graph. Where that is
disconnected, they form a ring instead, and the ``logging`` module hears of it once.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property, lru_cache

from torch import Tensor

from adperception.optim.graphs import Edge, Graph, Matching, consensus_contraction

__all__ = [
    "ActiveGraph",
    "CompleteSchedule",
    "FixedSchedule",
    "GraphSchedule",
    "RingSchedule",
    "check_weight",
]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ActiveGraph:
    """The edges of one round.

    Attributes:
        graph: the graph that the round's matchings are taken from; its nodes are the members.
        active: whether each of its matchings is used.
        weight: alpha of the mixing W = I - alpha * (Laplacian of the active edges).
    """

    graph: Graph
    active: tuple[bool, ...]
    weight: float

    @property
    def matchings(self) -> tuple[Matching, ...]:
        """Those that are used, in order."""
        return self._used.matchings

    @property
    def edges(self) -> tuple[Edge, ...]:
        """Those that are used, matching after matching."""
        return self._used.edges

    def neighbours(self, worker: int) -> tuple[int, ...]:
        """With whom a worker exchanges, in the order of the matchings; empty if with nobody."""
        return self._used.neighbours(worker)

    def degree(self, worker: int) -> int:
        """Number of neighbours now, not in the underlying graph."""
        return self._used.degree(worker)

    def own_weight(self, worker: int) -> float:
        """What a worker's own values count: 1 - weight * degree, which can be negative."""
        return 1 - self.weight * self.degree(worker)

    def mixing_matrix(self) -> Tensor:
        """(n, n) float64, rows in the order of the graph's nodes."""
        return self._used.mixing_matrix(self.weight)

    @cached_property
    def _used(self) -> Graph:
        if all(self.active):
            return self.graph
        used = (matching for matching, active in zip(self.graph.matchings, self.active, strict=True) if active)
        return Graph(self.graph.nodes, tuple(used))


class GraphSchedule(ABC):
    """Base of all schedules, which are frozen dataclasses: what is costly is kept per schedule and members.

    Subclasses say what they would do (``union``, ``active``, ``active_edges``); users ask for what is done: ``at``,
    ``expected_edges``, ``contraction``. The two differ where lost workers leave a disconnected graph.
    """

    @property
    def nodes(self) -> tuple[int, ...] | None:
        """The workers that the schedule was made for; ``None``: any."""
        return None

    @abstractmethod
    def union(self, members: tuple[int, ...]) -> Graph:
        """All edges between the members that some round may use."""

    @abstractmethod
    def active(self, round_index: int, members: tuple[int, ...]) -> ActiveGraph:
        """A round by this schedule's own rule, whether or not its graph is connected."""

    @abstractmethod
    def active_edges(self, members: tuple[int, ...]) -> float:
        """How many edges a round uses on average by this schedule's own rule."""

    def check(self, workers: tuple[int, ...]) -> None:
        """Refuse, before the first round, what cannot work with all workers present.

        Raises:
            ValueError: if the schedule was made for other workers, its graph is disconnected, or its weight too large.
        """
        if self.nodes is not None and set(self.nodes) != set(workers):
            raise ValueError(
                f"{type(self).__name__} has a graph of workers {self.nodes}, but the workers are {workers}; give a "
                "graph with exactly these nodes"
            )
        self.at(0, workers)

    def at(self, round_index: int, members: tuple[int, ...]) -> ActiveGraph:
        """The edges and the mixing weight of a round.

        Args:
            round_index: number of the round, from 0.
            members: worker ids of all that are left, in ascending order.

        Raises:
            ValueError: for a negative round, members that are not ascending or not in the graph, a disconnected graph
                that was given as such, or a weight that does not bring the workers together.
        """
        if round_index < 0:
            raise ValueError(f"round_index={round_index}: rounds are counted from 0")
        return _active(_in_charge(self, members), round_index, members)

    def expected_edges(self, members: tuple[int, ...]) -> float:
        """How many edges a round uses on average. Each carries the parameters once in both directions."""
        return _in_charge(self, members).active_edges(members)

    def mean_degree(self, members: tuple[int, ...]) -> float:
        """How often a worker sends its parameters in a round, averaged over workers and rounds."""
        return 2 * self.expected_edges(members) / len(members)

    def contraction(self, members: tuple[int, ...], rounds: int) -> float:
        """By which factor a round shrinks the workers' distance from their mean, in the long run.

        Args:
            members: as in ``at``.
            rounds: a multiple of the period, for an exact figure; a random schedule needs some hundred.
        """
        return consensus_contraction(self.at(index, members).mixing_matrix() for index in range(rounds))

    def kept(self, members: tuple[int, ...]) -> Graph:
        """``union``, built once."""
        return _kept(self, members)


@dataclass(frozen=True)
class RingSchedule(GraphSchedule):
    """A ring over the members in ascending order: two neighbours each, whatever their number.

    Attributes:
        weight: alpha, below 1/2, as lambda_n of a ring can be 4; ``None``: the best, 2 / (lambda_2 + lambda_n).
    """

    weight: float | None = None

    def __post_init__(self) -> None:
        check_weight(self.weight, 0.5, "a ring")

    def union(self, members: tuple[int, ...]) -> Graph:
        """The ring."""
        return Graph.ring(members)

    def active(self, round_index: int, members: tuple[int, ...]) -> ActiveGraph:
        """The ring, in every round."""
        return _all_active(self.kept(members), self.weight)

    def active_edges(self, members: tuple[int, ...]) -> float:
        """All of them."""
        return len(self.kept(members).edges)


@dataclass(frozen=True)
class CompleteSchedule(GraphSchedule):
    """Everyone with everyone. The best weight, 1 / number of members, makes a round the global mean.

    Attributes:
        weight: alpha, below 2 / number of members; ``None``: the best.
    """

    weight: float | None = None

    def __post_init__(self) -> None:
        check_weight(self.weight, 1.0, "the complete graph of two workers")

    def union(self, members: tuple[int, ...]) -> Graph:
        """The complete graph."""
        return Graph.complete(members)

    def active(self, round_index: int, members: tuple[int, ...]) -> ActiveGraph:
        """The complete graph, in every round."""
        check_weight(self.weight, 2 / len(members), f"the complete graph of {len(members)} workers")
        return _all_active(self.kept(members), self.weight or 1 / len(members))

    def active_edges(self, members: tuple[int, ...]) -> float:
        """All of them."""
        return len(self.kept(members).edges)


@dataclass(frozen=True)
class FixedSchedule(GraphSchedule):
    """All edges of a given graph in every round, as in D-PSGD (Lian et al., 2017).

    Attributes:
        graph: the graph; its nodes are the worker ids.
        weight: alpha, below 2 / lambda_n; ``None``: the best, 2 / (lambda_2 + lambda_n), also for what is left of the
            graph.
    """

    graph: Graph
    weight: float | None = None

    def __post_init__(self) -> None:
        if self.graph.matchings:
            check_weight(self.weight, 2 / self.graph.largest_eigenvalue, "this graph")

    @property
    def nodes(self) -> tuple[int, ...]:
        """Those of the graph."""
        return self.graph.nodes

    def union(self, members: tuple[int, ...]) -> Graph:
        """What the members have of it."""
        return self.graph.restricted(members)

    def active(self, round_index: int, members: tuple[int, ...]) -> ActiveGraph:
        """All that the members have of the graph, in every round."""
        return _all_active(self.kept(members), self.weight)

    def active_edges(self, members: tuple[int, ...]) -> float:
        """All of them."""
        return len(self.kept(members).edges)


def check_weight(weight: float | None, limit: float, of: str) -> None:
    """Refuse a mixing weight at or above the limit for some graph."""
    # Written so that NaN is refused.
    if weight is not None and not 0 < weight < limit:
        raise ValueError(
            f"weight={weight} does not bring workers together: for {of} it has to be above 0 and below {limit:.6g}; "
            "leave it out for the best one"
        )


def _all_active(graph: Graph, weight: float | None) -> ActiveGraph:
    return ActiveGraph(graph, (True,) * len(graph.matchings), graph.best_weight if weight is None else weight)


@lru_cache(maxsize=256)
def _kept(schedule: GraphSchedule, members: tuple[int, ...]) -> Graph:
    return schedule.union(members)


@lru_cache(maxsize=256)
def _active(schedule: GraphSchedule, round_index: int, members: tuple[int, ...]) -> ActiveGraph:
    return schedule.active(round_index, members)


@lru_cache(maxsize=256)
def _in_charge(schedule: GraphSchedule, members: tuple[int, ...]) -> GraphSchedule:
    """The schedule, or a ring if it was left with a disconnected graph."""
    if not members or list(members) != sorted(set(members)):
        raise ValueError(f"members={members}: give the worker ids of at least one worker in ascending order")
    graph = schedule.kept(members)
    if graph.is_connected:
        return schedule
    groups = " and ".join(map(str, graph.components))
    if schedule.nodes is None or set(schedule.nodes) == set(members):
        raise ValueError(
            f"the graph of {type(schedule).__name__} is disconnected: no edge between workers {groups}, which would "
            "never agree; add an edge between them, or rotate it with graphs that have one (RotatingSchedule)"
        )
    _logger.warning(
        "no edge is left between workers %s of %s: the %d workers go on as a ring",
        groups,
        type(schedule).__name__,
        len(members),
    )
    return RingSchedule()
