"""What MGRAWA and LGRAWA share: a centre in which workers with small gradients weigh more."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from adperception.optim.collectives import AllReduce, Commit, Requests
from adperception.optim.gradient_norms import NormAverage, present_norms, run_probe
from adperception.optim.strategy import Strategy, require
from adperception.optim.worker import Worker

__all__ = ["GradientWeighted"]

PROBE_DECAY, ONLINE_DECAY = 0.9**8, 0.85
"""Of the moving averages of norms, in the authors' code."""


@dataclass(frozen=True)
class GradientWeighted(Strategy):
    """Base of ``MGRAWA`` and ``LGRAWA``, which say what a weight belongs to; see there."""

    pull: float = 0.5
    proximal: float = 0.01
    norm_source: Literal["probe", "online"] = "probe"
    norm_decay: float | None = None
    norm_exponent: float = 1.0
    norm_eps: float = 1e-12

    replicated: ClassVar[tuple[str, ...]] = ("center",)

    def __post_init__(self) -> None:
        require(self, "pull", self.pull, 0, 1)
        require(self, "proximal", self.proximal, 0, 1)
        require(self, "norm_exponent", self.norm_exponent, 0)
        require(self, "norm_eps", self.norm_eps, 0, 1e-3, low_open=True)
        if self.norm_decay is not None:
            require(self, "norm_decay", self.norm_decay, 0, 0.9999)
        if self.norm_source not in ("probe", "online"):
            raise ValueError(f'{self.name}: norm_source="{self.norm_source}" is unknown. Available: probe, online.')

    @property
    def needs_probe(self) -> bool:
        """One extra mini-batch per round, unless the norms of training are used."""
        return self.norm_source == "probe"

    @property
    def has_step_work(self) -> bool:
        """The proximal term, and norms of training gradients."""
        return self.proximal > 0 or self.norm_source == "online"

    @property
    def decay(self) -> float:
        """Of the moving average of norms."""
        if self.norm_decay is not None:
            return self.norm_decay
        return PROBE_DECAY if self.norm_source == "probe" else ONLINE_DECAY

    @abstractmethod
    def weight_count(self, tensors: int) -> int:
        """How many weights a worker has."""

    @abstractmethod
    def combine(self, norms: Tensor, present: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """From (L,) norms per tensor to those that are averaged over time; which of them are there, ``None`` if all."""

    def extra(self, worker_count: int, tensors: int) -> int:
        """The weights travel with the parameters, in one all-reduce."""
        return self.weight_count(tensors)

    def start(self, worker: Worker) -> None:
        """No norm is known; the centre is the common parameters."""
        count = self.weight_count(len(worker.params.segments))
        for name in ("norm_average", "norm_count"):
            worker.state[name] = torch.zeros(count, dtype=torch.float64, device=worker.vector.device)
        if self.proximal > 0:
            worker.state["center"] = worker.vector.clone()

    def resized(self, worker: Worker, moves: list[tuple[slice, slice]]) -> None:
        """Averages of norms start anew."""
        super().resized(worker, moves)
        center = worker.state.get("center")
        self.start(worker)
        if center is not None:
            worker.state["center"] = center

    def after_step(self, worker: Worker, sync_every: float) -> None:
        """Note the norms of this step's gradients, and the proximal term: a small pull to the last centre."""
        if self.norm_source == "online":
            self._average(worker).add(*self.combine(*present_norms(worker.params.parameters, worker.vector.device)))
        if self.proximal > 0:
            worker.vector.lerp_(worker.state["center"], self.proximal / sync_every)

    def round(self, worker: Worker) -> Requests:
        """Weigh, add up, and pull."""
        tensors, size = len(worker.params.segments), worker.params.numel
        count = self.weight_count(tensors)
        norms = self._norms(worker)
        weights = norms.nan_to_num(nan=torch.inf).clamp(self.norm_eps, 1 / self.norm_eps) ** -self.norm_exponent
        if not worker.healthy:
            yield Commit()
            worker.report.skipped = True
            return
        scratch, vector = worker.scratch[: size + count], worker.scratch_vector
        if worker.is_healthy:
            vector.copy_(worker.vector)
            self._multiply(worker, vector, weights)
            scratch[size:] = weights.to(scratch.dtype)
        else:
            scratch.zero_()
        # Weighted sum and sum of weights in one all-reduce; dividing afterwards saves a second one.
        yield AllReduce(scratch)
        total = scratch[size:].double()
        self._multiply(worker, vector, 1 / total)
        yield Commit()
        worker.report.weights = {worker.worker_id: float((weights / total).mean()) if worker.is_healthy else 0.0}
        if self.proximal > 0:
            worker.state["center"].copy_(vector)
        worker.pull(vector, self.pull)
        self.round_done(worker)

    def round_done(self, worker: Worker) -> None:
        """After a round."""

    def _average(self, worker: Worker) -> NormAverage:
        return NormAverage(worker.state["norm_average"], worker.state["norm_count"], self.decay)

    def _norms(self, worker: Worker) -> Tensor:
        """(n,) averaged norms; with a probe, after one more measurement."""
        average = self._average(worker)
        if self.norm_source == "probe":
            assert worker.probe is not None
            assert worker.model is not None
            norms, present, _ = run_probe(worker.probe, worker.model, worker.params.parameters)
            average.add(*self.combine(norms, present))
        return average.value()

    def _multiply(self, worker: Worker, vector: Tensor, factors: Tensor) -> None:
        """Multiply each tensor's part of ``vector`` by its factor."""
        if len(factors) == 1:
            vector.mul_(factors.to(vector.dtype))
            return
        torch._foreach_mul_(worker.params.parts(vector), factors.tolist())
