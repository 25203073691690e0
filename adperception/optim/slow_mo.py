"""SlowMo: local SGD whose averages move with a slow momentum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from adperception.optim.collectives import Commit, Requests
from adperception.optim.flat_params import chunks
from adperception.optim.strategy import Strategy, require
from adperception.optim.worker import Worker

__all__ = ["SlowMo"]


@dataclass(frozen=True)
class SlowMo(Strategy):
    """Slow momentum (Wang, Tantia, Ballas, Rabbat, "SlowMo", ICLR 2020).

    A round with the mean m, the parameters z after the round before, and the local learning rate gamma:

        ``u <- momentum u + (z - m) / gamma``
        ``x, z <- z - slow_lr gamma u``

    In words: how far the mean moved since the last round counts as a gradient of a slow optimizer with momentum. With
    momentum 0 and slow_lr 1 this is local SGD.

    Args:
        momentum: slow momentum; the authors' library advises 0 below 4 workers' machines, 0.2 at 4, 0.5 at 8.
        slow_lr: factor on the slow step.

    State: z and u (2 P), replicated. Traffic: one all-reduce of P per round.
    """

    momentum: float = 0.5
    slow_lr: float = 1.0

    replicated: ClassVar[tuple[str, ...]] = ("previous", "slow_momentum")

    def __post_init__(self) -> None:
        require(self, "momentum", self.momentum, 0, 1)
        require(self, "slow_lr", self.slow_lr, 0, low_open=True)

    def start(self, worker: Worker) -> None:
        """From the common parameters, at rest."""
        worker.state["previous"] = worker.vector.clone()
        worker.state["slow_momentum"] = torch.zeros_like(worker.vector)

    def fill_resized(self, name: str, worker: Worker) -> torch.Tensor:
        """New parameters are at rest."""
        return torch.zeros_like(worker.vector) if name == "slow_momentum" else worker.vector.clone()

    def round(self, worker: Worker) -> Requests:
        """Average, then step with the slow momentum."""
        count = yield from worker.mean()
        yield Commit()
        if not count:
            worker.report.skipped = True
            return
        gamma = worker.learning_rate
        for mean, z, u in chunks(worker.scratch_vector, worker.state["previous"], worker.state["slow_momentum"]):
            if gamma > 0:  # a schedule may end at exactly 0, where nothing has moved
                u.mul_(self.momentum).add_(z - mean, alpha=1 / gamma)
                z.sub_(u, alpha=self.slow_lr * gamma)
        worker.pull(worker.state["previous"], 1.0)
