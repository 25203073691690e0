"""DPPF: pulled to the mean, pushed away from it, so that the workers keep a distance."""

from __future__ import annotations

from dataclasses import dataclass

from adperception.optim.collectives import Commit, Requests
from adperception.optim.strategy import Strategy, require
from adperception.optim.worker import Worker, squared_distance

__all__ = ["DPPF"]


@dataclass(frozen=True)
class DPPF(Strategy):
    """Pull and push force (Dimlioglu, Choromanska, 2025, arXiv 2507.20424).

    A round with the mean m: ``x_m <- x_m + (m - x_m) (pull - push / |x_m - m|)``. In words: towards the mean in
    proportion to the distance, away from it by a constant length. The distance settles at push / pull. With push 0 this
    is a plain pull to the mean.

    Args:
        pull: share of the way to the mean.
        push: length of the step away from it, in parameter space.

    State: none. Traffic: one all-reduce of P per round.
    """

    pull: float = 0.1
    push: float = 0.0

    def __post_init__(self) -> None:
        require(self, "pull", self.pull, 0, 1)
        require(self, "push", self.push, 0)

    def round(self, worker: Worker) -> Requests:
        """Pull and push."""
        count = yield from worker.mean()
        yield Commit()
        if not count:
            worker.report.skipped = True
            return
        distance = squared_distance(worker.vector, worker.scratch_vector) ** 0.5
        # Exactly at the mean there is no direction to push in.
        strength = self.pull - self.push / distance if distance > 0 else self.pull
        worker.pull(worker.scratch_vector, strength)
