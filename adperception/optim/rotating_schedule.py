"""Rotation of graphs, as AL-DSGD does it (He et al., 2024): several sparse ones mix better than one of them."""

from __future__ import annotations

from dataclasses import dataclass

from adperception.optim.graph_schedules import ActiveGraph, GraphSchedule
from adperception.optim.graphs import Graph

__all__ = ["RotatingSchedule"]


@dataclass(frozen=True)
class RotatingSchedule(GraphSchedule):
    """Several schedules in turn. Only the union of their graphs has to be connected.

    Attributes:
        schedules: two or more. A random one draws for the rounds that it gets, by their number.
        pattern: whose turn it is: round k belongs to ``schedules[pattern[k % len(pattern)]]``. ``None``: for two and
            three schedules the published order, (1, 0) and (1, 0, 1, 2, 1, 0), counted over the whole run instead of
            each epoch; for more, one after the other.
    """

    schedules: tuple[GraphSchedule, ...]
    pattern: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "schedules", tuple(self.schedules))
        count = len(self.schedules)
        if count < 2:
            raise ValueError(f"a rotation needs at least two schedules, not {count}; use a single one as it is")
        if self.pattern is not None:
            object.__setattr__(self, "pattern", tuple(self.pattern))
        if set(self._turns) != set(range(count)):
            raise ValueError(f"pattern={self.pattern} has to name each of the {count} schedules, 0 to {count - 1}")
        made_for = {frozenset(schedule.nodes) for schedule in self.schedules if schedule.nodes is not None}
        if len(made_for) > 1:
            raise ValueError(
                f"rotated graphs need the same nodes, not {sorted(map(sorted, made_for))}; name all workers in each"
            )

    @property
    def nodes(self) -> tuple[int, ...] | None:
        """Those that the schedules have in common."""
        return next((schedule.nodes for schedule in self.schedules if schedule.nodes is not None), None)

    def union(self, members: tuple[int, ...]) -> Graph:
        """The union of the graphs."""
        edges = {edge for schedule in self.schedules for edge in schedule.union(members).edges}
        return Graph.from_edges(members, edges)

    def active(self, round_index: int, members: tuple[int, ...]) -> ActiveGraph:
        """The round of the schedule whose turn it is."""
        turn = self._turns[round_index % len(self._turns)]
        return self.schedules[turn].active(round_index, members)

    def active_edges(self, members: tuple[int, ...]) -> float:
        """The mean over the pattern."""
        return sum(self.schedules[turn].active_edges(members) for turn in self._turns) / len(self._turns)

    @property
    def _turns(self) -> tuple[int, ...]:
        if self.pattern is not None:
            return self.pattern
        return {2: (1, 0), 3: (1, 0, 1, 2, 1, 0)}.get(len(self.schedules), tuple(range(len(self.schedules))))
