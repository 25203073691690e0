"""MATCHA: workers average with a random part of their neighbours, drawn so that information still spreads fast."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from adperception.optim.dpsgd import DPSGD
from adperception.optim.graph_schedules import MATCHASchedule
from adperception.optim.graphs import Graph

__all__ = ["MATCHA"]


@dataclass(frozen=True)
class MATCHA(DPSGD):
    """Matching decomposition sampling (Wang, Sahu, Yang, Joshi, Kar, 2019, arXiv 1905.09435).

    ``DPSGD`` with ``MATCHASchedule``: the graph is cut into matchings; in every round matching j is active with
    probability p_j, where p maximises the connectivity of the expected graph at a given budget, and alpha minimises
    ``|E[W^T W] - J|``. In words: links that matter for spreading information are used more often than others. With
    budget 1 this is D-PSGD with the best constant weight.

    Args:
        graph: who may talk to whom; ``None``: a ring, or the 8-node graph of the paper with 8 workers.
        budget: mean share of matchings that are active.
        seed: of the draws, which are the same on all workers.
        order: as ``DPSGD``.

    State: none; the draws are a function of seed and round. Traffic: on average ``budget`` of D-PSGD's.
    """

    schedule: MATCHASchedule = None  # type: ignore[assignment]  # made of the options below
    graph: Graph | None = None
    budget: float = 0.5
    seed: int = 0
