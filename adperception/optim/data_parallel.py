"""DataParallel and PostLocalSGD: the mean gradient in every step, for the whole run or for its beginning."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from adperception.optim.collectives import AllReduce, Commit, Requests
from adperception.optim.local_sgd import LocalSGD
from adperception.optim.strategy import Strategy, require
from adperception.optim.worker import Worker

__all__ = ["DataParallel", "PostLocalSGD"]


def average_gradients(worker: Worker) -> Requests:
    """Every worker's gradients become their mean; a tensor that has one on some workers only counts as 0 elsewhere.

    A worker whose gradients are not finite is left out, and takes over the mean of the others. With none that are,
    nothing is averaged.
    """
    if not worker.healthy:
        yield Commit()
        return
    parameters, size = worker.params.parameters, worker.params.numel
    scratch = worker.scratch[: size + len(parameters)].zero_()
    views = worker.params.views(scratch)
    for view, parameter in zip(views, parameters, strict=True):
        if parameter.grad is not None and worker.is_healthy:
            view.copy_(parameter.grad)
    scratch[size:] = torch.tensor([float(p.grad is not None and worker.is_healthy) for p in parameters])
    yield AllReduce(scratch)
    scratch[:size].div_(len(worker.healthy))
    yield Commit()
    for view, parameter, present in zip(views, parameters, scratch[size:].tolist(), strict=True):
        if present:
            parameter.grad = view.to(parameter.dtype, copy=True)


@dataclass(frozen=True)
class DataParallel(Strategy):
    """Synchronous data-parallel SGD, what torch's DistributedDataParallel does, as a strategy to compare with.

    Before every step: ``g <- (1/M) sum_m g_m``, over the workers whose gradients are finite. For training use
    DistributedDataParallel, which overlaps this with the backward pass; here it runs in the simulation as well. Rounds
    have nothing left to do.

    State: none. Traffic: one all-reduce of P + L per step (L flags say which of the tensors have a gradient).
    """

    def extra(self, worker_count: int, tensors: int) -> int:
        """Which tensors have a gradient."""
        return tensors

    def before_step(self, worker: Worker) -> Requests:
        """Average the gradients."""
        yield from average_gradients(worker)

    def round(self, worker: Worker) -> Requests:
        """Nothing, as all workers are the same, or what puts one right that is not."""
        if len(worker.healthy) < len(worker.members):
            yield from LocalSGD().round(worker)
        else:
            yield Commit()


@dataclass(frozen=True)
class PostLocalSGD(LocalSGD):
    """Data-parallel SGD at first, then local SGD (Lin, Stich, Patel, Jaggi, ICLR 2020, arXiv 1808.07217).

    Before step t < ``local_from_step``: ``g <- (1/M) sum_m g_m``. From then on rounds of ``LocalSGD``. In words: agree
    closely while the loss falls fast, and save communication afterwards.

    Args:
        local_from_step: first step without gradient averaging.

    State: none. Traffic: one all-reduce of P + L per step, later of P per round.
    """

    local_from_step: int = 500

    def __post_init__(self) -> None:
        require(self, "local_from_step", self.local_from_step, 0)

    def extra(self, worker_count: int, tensors: int) -> int:
        """Which tensors have a gradient."""
        return tensors

    def wants_gradients(self, step: int) -> bool:
        """Whether gradients are averaged before this step."""
        return step < self.local_from_step

    def before_step(self, worker: Worker) -> Requests:
        """Average the gradients."""
        yield from average_gradients(worker)
