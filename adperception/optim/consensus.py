"""The one model that stands for all workers: swapped in for an evaluation or for saving, and out again.

Averaged weights need batch-norm statistics of their own activations; those of the workers describe other weights. So
they are either estimated anew, every worker on its own data, and pooled, or pooled from what the workers have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from adperception.optim.collectives import AllReduce, Commit, Requests
from adperception.optim.sync_optimizer import SyncOptimizer

__all__ = ["ConsensusSwap", "consensus"]


class ConsensusSwap:
    """The consensus in place of a worker's own model, for as long as it is wanted.

    Parameters that take part in the rounds become the strategy's consensus (EASGD: the centre; otherwise the mean).
    Other floating-point parameters (frozen ones, the target encoder of AD-L-JEPA) become the plain mean over the
    workers, which leaves equal ones exactly equal. Batch-norm statistics are estimated anew or pooled; other buffers
    stay the worker's.

    Args:
        sync: this worker's optimizer.
        model: what it trains.
        recalibrate: called with the model, its batch-norm layers in training mode with fresh statistics and the rest in
            evaluation mode, without gradients: it forwards some of this worker's training batches. ``None``: pool the
            statistics that the workers have.
    """

    def __init__(
        self, sync: SyncOptimizer, model: nn.Module, recalibrate: Callable[[nn.Module], Any] | None = None
    ) -> None:
        self._sync, self._model, self._recalibrate = sync, model, recalibrate
        self._kept: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def entering(self) -> Requests:
        """Swap in, as a generator of requests; all workers do it together. If it fails, everything is as before."""
        try:
            yield from self._entering()
        except BaseException:
            self.leave()
            raise

    def _entering(self) -> Requests:
        sync, model = self._sync, self._model
        yield from sync.swapping_in()
        in_rounds = {id(p) for p in sync.worker.params.parameters}
        others = [p for p in model.parameters() if id(p) not in in_rounds and p.is_floating_point()]
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
        statistics = [b for m in norms for b in m.buffers(recurse=False)]
        self._kept = [(tensor, tensor.detach().clone()) for tensor in [*others, *statistics]]
        yield from _average(sync, others)
        if self._recalibrate is not None:
            self._estimate(norms, self._recalibrate)
        yield from _pool(sync, norms)
        yield Commit()

    @torch.no_grad()
    def leave(self) -> None:
        """Put everything back as it was."""
        for tensor, value in self._kept:
            tensor.copy_(value)
        self._kept = []
        self._sync.swap_out()

    def _estimate(self, norms: list[_BatchNorm], recalibrate: Callable[[nn.Module], Any]) -> None:
        modes = [(module, module.training) for module in self._model.modules()]
        momenta = [norm.momentum for norm in norms]
        self._model.eval()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # every batch counts the same
            norm.train()
        try:
            recalibrate(self._model)
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
            for module, mode in modes:
                module.training = mode


@contextmanager
def consensus(
    sync: SyncOptimizer, model: nn.Module, recalibrate: Callable[[nn.Module], Any] | None = None
) -> Iterator[nn.Module]:
    """``model`` holds the consensus within the ``with`` block; see ``ConsensusSwap``. All workers enter it together.

    No step is possible inside. To give the consensus away: ``torch.save(model.state_dict(), path)`` on one worker.
    """
    swap = ConsensusSwap(sync, model, recalibrate)
    sync.communicator.run(swap.entering())
    try:
        yield model
    finally:
        swap.leave()


def _average(sync: SyncOptimizer, tensors: Sequence[Tensor]) -> Requests:
    """Replace tensors by their means over the workers whose parameters are finite.

    Sums of equal float32 values are exact in float64, and so is the division, so what is equal everywhere stays so.
    """
    if not tensors:
        return
    worker = sync.worker
    flat = torch.cat([t.detach().reshape(-1).double() for t in tensors])
    if not worker.is_healthy:
        flat.zero_()
    yield AllReduce(flat)
    flat.div_(len(worker.healthy))
    for tensor, values in zip(tensors, torch.split(flat, [t.numel() for t in tensors]), strict=True):
        tensor.copy_(values.view(tensor.shape))


def _pool(sync: SyncOptimizer, norms: list[_BatchNorm]) -> Requests:
    """Statistics of all workers' samples together: the variance within workers and between their means."""
    means = [norm.running_mean for norm in norms if norm.running_mean is not None]
    variances = [norm.running_var for norm in norms if norm.running_var is not None]
    for mean, variance in zip(means, variances, strict=True):
        variance.add_(mean.square())
    yield from _average(sync, [*means, *variances])
    for mean, variance in zip(means, variances, strict=True):
        variance.sub_(mean.square()).clamp_(min=0)
