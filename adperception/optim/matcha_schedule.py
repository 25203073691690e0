"""MATCHA's graph schedule: each round a random subset of a graph's matchings."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

from adperception.optim.graph_schedules import ActiveGraph, GraphSchedule, check_weight
from adperception.optim.graphs import Graph
from adperception.optim.matcha_plan import UNITS, MATCHAPlan, matcha_rho, solve_matcha

__all__ = ["MATCHASchedule"]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class MATCHASchedule(GraphSchedule):
    """Each matching is active by itself with its own probability: MATCHA (Wang et al., 2019).

    Probabilities and weight are solved for the members (``solve_matcha``). Whether matching j is active in round k is a
    hash of (seed, k, j), the same on every worker, without any random state.

    Attributes:
        graph: the graph; ``None``: a ring over the members.
        budget: share of the matchings that a round uses on average, 0.001 to 1; with 1 it is ``FixedSchedule``.
        seed: of the draws.
        weight: alpha; ``None``: the solved one, which minimises rho. One with rho >= 1 is refused; if that is so only
            for those that are left after a loss, the solved one takes its place, with a warning.
    """

    graph: Graph | None = None
    budget: float = 0.5
    seed: int = 0
    weight: float | None = None

    def __post_init__(self) -> None:
        if not 1e-3 <= self.budget <= 1:
            raise ValueError(
                f"budget={self.budget}: the share of matchings that a round uses on average; give 0.001 to 1"
            )
        check_weight(self.weight, 1.0, "a single matching")

    @property
    def nodes(self) -> tuple[int, ...] | None:
        """Those of the graph."""
        return self.graph.nodes if self.graph is not None else None

    def union(self, members: tuple[int, ...]) -> Graph:
        """What the members have of the graph, or their ring."""
        return self.graph.restricted(members) if self.graph is not None else Graph.ring(members)

    def plan(self, members: tuple[int, ...]) -> MATCHAPlan:
        """Probabilities, solved weight and rho for some members."""
        return solve_matcha(self.kept(members), self.budget)

    def active(self, round_index: int, members: tuple[int, ...]) -> ActiveGraph:
        """The matchings that the round's draws choose."""
        probabilities = self.plan(members).probabilities
        flags = tuple(self._draw(round_index, j) < p for j, p in enumerate(probabilities))
        return ActiveGraph(self.kept(members), flags, _matcha_weight(self, members))

    def active_edges(self, members: tuple[int, ...]) -> float:
        """The sum of the matchings' sizes, each times its probability."""
        matchings = self.kept(members).matchings
        return sum(p * len(m) for p, m in zip(self.plan(members).probabilities, matchings, strict=True))

    def _draw(self, round_index: int, matching: int) -> float:
        """Uniform in [0, 1), a multiple of 1 / UNITS as the probabilities are: comparisons are exact."""
        digest = blake2b(f"{self.seed} {round_index} {matching}".encode(), digest_size=8).digest()
        return (int.from_bytes(digest, "big") * UNITS >> 64) / UNITS


@lru_cache(maxsize=256)
def _matcha_weight(schedule: MATCHASchedule, members: tuple[int, ...]) -> float:
    plan, graph = schedule.plan(members), schedule.kept(members)
    if schedule.weight is None:
        return plan.weight
    rho = matcha_rho(graph, plan.probabilities, schedule.weight)
    # Within a rotation a graph may be disconnected; then rho is 1 whatever the weight.
    if rho < 1 or not graph.is_connected:
        return schedule.weight
    message = f"weight={schedule.weight} does not bring workers {members} together (rho = {rho:.4g})"
    if schedule.nodes is not None and set(schedule.nodes) == set(members):
        raise ValueError(f"{message}; leave it out for the solved one, {plan.weight:.6g}")
    _logger.warning("%s; MATCHASchedule goes on with the solved one, %.6g", message, plan.weight)
    return plan.weight
