"""LocalSGD: every worker trains alone, and from time to time all go on from their mean."""

from __future__ import annotations

from dataclasses import dataclass

from adperception.optim.collectives import Commit, Requests
from adperception.optim.strategy import Strategy
from adperception.optim.worker import Worker

__all__ = ["LocalSGD"]


@dataclass(frozen=True)
class LocalSGD(Strategy):
    """Periodic averaging (Stich, "Local SGD converges fast and communicates little", ICLR 2019).

    A round: ``x_m <- (1/M) sum_k x_k``. In words: everybody continues from the mean of all. Momentum stays local. With
    a round after every step, equal starts and SGD this is data-parallel training.

    State: none. Traffic: one all-reduce of P per round.
    """

    def round(self, worker: Worker) -> Requests:
        """Average."""
        count = yield from worker.mean()
        yield Commit()
        if not count:
            worker.report.skipped = True
            return
        worker.pull(worker.scratch_vector, 1.0)
