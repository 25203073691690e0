"""DiLoCo: many local steps, then an outer Nesterov step along the workers' mean displacement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from adperception.optim.collectives import Commit, Requests
from adperception.optim.flat_params import chunks
from adperception.optim.strategy import Strategy, require
from adperception.optim.worker import Worker

__all__ = ["DiLoCo"]


@dataclass(frozen=True)
class DiLoCo(Strategy):
    """Distributed low-communication training (Douillard et al., 2023, arXiv 2311.08105).

    A round with the mean m and the parameters theta after the round before:

        ``delta = theta - m;   b <- momentum b + delta;   x, theta <- theta - outer_lr (delta + momentum b)``

    In words: the mean displacement of the workers is the gradient of an outer SGD with Nesterov momentum. With outer_lr
    1 and momentum 0 this is local SGD.

    Args:
        outer_lr: 0.7 in the paper.
        momentum: 0.9 in the paper.

    State: theta and b (2 P), replicated. Traffic: one all-reduce of P per round, which the paper has every 500 steps.
    """

    outer_lr: float = 0.7
    momentum: float = 0.9

    replicated: ClassVar[tuple[str, ...]] = ("previous", "outer_momentum")

    def __post_init__(self) -> None:
        require(self, "outer_lr", self.outer_lr, 0, low_open=True)
        require(self, "momentum", self.momentum, 0, 1)

    def start(self, worker: Worker) -> None:
        """From the common parameters, at rest."""
        worker.state["previous"] = worker.vector.clone()
        worker.state["outer_momentum"] = torch.zeros_like(worker.vector)

    def fill_resized(self, name: str, worker: Worker) -> torch.Tensor:
        """New parameters are at rest."""
        return torch.zeros_like(worker.vector) if name == "outer_momentum" else worker.vector.clone()

    def round(self, worker: Worker) -> Requests:
        """One outer step."""
        count = yield from worker.mean()
        yield Commit()
        if not count:
            worker.report.skipped = True
            return
        for mean, theta, b in chunks(worker.scratch_vector, worker.state["previous"], worker.state["outer_momentum"]):
            delta = theta - mean
            b.mul_(self.momentum).add_(delta)
            theta.sub_(delta.add_(b, alpha=self.momentum), alpha=self.outer_lr)
        worker.pull(worker.state["previous"], 1.0)
