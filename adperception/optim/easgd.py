"""EASGD: workers are tied by springs to a centre that follows their mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from adperception.optim.collectives import Commit, Requests
from adperception.optim.strategy import Order, Strategy, require, require_order
from adperception.optim.worker import Worker

__all__ = ["EASGD"]


@dataclass(frozen=True)
class EASGD(Strategy):
    """Elastic averaging SGD (Zhang, Choromanska, LeCun, NIPS 2015, arXiv 1412.6651).

    A round with centre c, mean m of the workers, and strengths beta (``pull``) and alpha = beta / M:

        ``x_m <- x_m - alpha (x_m - c)``        every worker moves a little towards the centre as it was
        ``c   <- c + beta (mean_k x_k - c)``    the centre moves towards the mean of the workers before that

    so that what the workers lose the centre gains. With ``NesterovMomentum`` as the local optimizer and
    ``order="joint"`` this is EAMSGD. The centre is kept on every worker and is the same to the bit everywhere, so
    nobody owns it and it survives whoever is lost; alpha is then computed with the workers that are left.

    A single worker is not plain training: the centre still drags it.

    Args:
        pull: beta, the share of the way that the centre moves to the mean; 0.43 = 0.9^8 in the authors' code, where the
            best value depends on the period.
        divide_pull_by_workers: alpha = beta / M, the elastic symmetry of paper and code; ``False``: alpha = beta.
        center: ``"moving_average"``, as above; ``"mean"``: the centre is the present mean, without memory.
        order: ``"step_then_pull"`` (authors' code) or ``"joint"`` (the paper's equations).

    State: the centre (P), replicated. Traffic: one all-reduce of P per round. Consensus: the centre.
    """

    pull: float = 0.43
    divide_pull_by_workers: bool = True
    center: Literal["moving_average", "mean"] = "moving_average"
    order: Order = "step_then_pull"

    replicated: ClassVar[tuple[str, ...]] = ("center",)
    runs_alone: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require(self, "pull", self.pull, 0, 1)
        if self.center not in ("moving_average", "mean"):
            raise ValueError(f'EASGD: center="{self.center}" is unknown. Available: moving_average, mean.')
        require_order(self, self.order)

    def start(self, worker: Worker) -> None:
        """The centre starts at the common parameters."""
        worker.state["center"] = worker.vector.clone()

    def round(self, worker: Worker) -> Requests:
        """Pull the workers to the centre and the centre to the workers."""
        count = yield from worker.mean()
        yield Commit()
        if not count:
            worker.report.skipped = True
            return
        center: Tensor = worker.state["center"]
        alpha = self.pull / len(worker.members) if self.divide_pull_by_workers else self.pull
        if self.center == "mean":
            center.copy_(worker.scratch_vector)
            worker.pull(center, alpha)
        else:
            worker.pull_and_move(center, alpha, self.pull)

    def consensus(self, worker: Worker) -> Requests:
        """The centre."""
        worker.scratch_vector.copy_(worker.state["center"])
        yield from ()
        return True
