"""One of the workers, as a strategy sees it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from adperception.optim.collectives import AllReduce, Note, Requests
from adperception.optim.flat_params import FlatParams, chunks
from adperception.optim.gradient_norms import run_probe
from adperception.optim.loss_window import LossWindow

__all__ = ["RoundReport", "Worker"]


@dataclass
class RoundReport:
    """What one round did, on one worker.

    Attributes:
        members: worker ids that took part.
        unhealthy: those of them that were left out because their parameters or their loss were not finite.
        leader: worker id of the (global) leader, if one was elected.
        weights: weight of each member in the mean, if they differ; of an LGRAWA round the mean over the tensors.
        skipped: whether nothing was done because no worker was fit to pull to.
        restarted: whether this worker's parameters were not finite and were replaced by what it was pulled to.
    """

    members: tuple[int, ...] = ()
    unhealthy: tuple[int, ...] = ()
    leader: int | None = None
    weights: dict[int, float] = field(default_factory=dict)
    skipped: bool = False
    restarted: bool = False


class Worker:
    """Parameters, memory and bookkeeping of one worker.

    Attributes:
        worker_id: which one this is.
        workers: the worker ids that the run started with.
        params: the flat parameters.
        optimizer: the local optimizer.
        losses: the training losses of late.
        state: the strategy's own vectors and numbers, by name; saved and restored with the run.
        notes: what each member of the round said of itself; the keys are the members, in ascending order.
        steps: local steps done.
        rounds: rounds that were committed.
        report: of the round at hand, or the last one.
        model: the model, if the strategy was given it.
        probe: fills gradients of a mini-batch, if the strategy was given it.
        deferred: whether pulls are to be applied after the local step that follows (``order="joint"``).
    """

    def __init__(
        self,
        worker_id: int,
        workers: tuple[int, ...],
        params: FlatParams,
        optimizer: torch.optim.Optimizer,
        *,
        extra: int,
        loss_window: int | None,
        model: nn.Module | None = None,
        probe: Callable[[nn.Module], Any] | None = None,
    ) -> None:
        self.worker_id, self.workers = worker_id, workers
        self.params = params
        self.optimizer = optimizer
        self.losses = LossWindow(loss_window)
        self.model, self.probe = model, probe
        self.state: dict[str, Tensor] = {}
        self.notes: dict[int, Note] = {}
        self.steps = 0
        self.rounds = 0
        self.report = RoundReport()
        self.deferred = False
        self._displaced = False
        self._restart: Tensor | None = None
        self._distance = math.nan
        self._extra = extra
        self._scratch: Tensor | None = None

    @property
    def members(self) -> tuple[int, ...]:
        """Worker ids of the round, in ascending order."""
        return tuple(self.notes)

    @property
    def healthy(self) -> tuple[int, ...]:
        """Members whose parameters (before a step whose gradients are averaged: gradients) are finite."""
        return tuple(member for member, note in self.notes.items() if note.healthy)

    @property
    def is_healthy(self) -> bool:
        """Whether this worker is one of them."""
        return self.notes[self.worker_id].healthy

    @property
    def learning_rate(self) -> float:
        """Of the first parameter group."""
        return float(self.optimizer.param_groups[0]["lr"])

    @property
    def vector(self) -> Tensor:
        """(P,), the live parameters."""
        return self.params.vector

    @property
    def scratch(self) -> Tensor:
        """(P + extra,), the one piece of memory that all rounds and the consensus share; anything may be in it."""
        if self._scratch is None or self._scratch.numel() != self.params.numel + self._extra:
            self._scratch = self.vector.new_zeros(self.params.numel + self._extra)
        return self._scratch

    def resize_extra(self, extra: int) -> None:
        """The strategy needs another amount of scratch memory."""
        self._extra = extra

    @property
    def scratch_vector(self) -> Tensor:
        """(P,), the part of the scratch memory as long as the parameters."""
        return self.scratch[: self.params.numel]

    def note(self, loss: float, tell: dict[str, Any]) -> Note:
        """What to say at a roll call."""
        largest = torch.linalg.vector_norm(self.vector, math.inf)
        weight = self.report.weights.get(self.worker_id, math.nan)
        return Note(loss, bool(torch.isfinite(largest)), self.steps, self._distance, weight, tell)

    def gradients_are_finite(self) -> bool:
        """Whether all gradients at hand are; a parameter without one is no reason against it."""
        gradients = [p.grad for p in self.params.parameters if p.grad is not None]
        return bool(torch.isfinite(torch.nn.utils.get_total_norm(gradients, math.inf))) if gradients else True

    def probe_loss(self) -> float:
        """What the probe returns: the loss of its mini-batch."""
        assert self.probe is not None
        assert self.model is not None
        result = run_probe(self.probe, self.model, self.params.parameters)[2]
        if result is None:
            raise ValueError(
                'leader_metric="probe_loss" needs a probe that returns its loss, and this one returned None.'
            )
        return float(result)

    def mean(self) -> Requests:
        """Put the mean of the healthy members' parameters into the scratch vector; the answer is their number.

        With none, nothing is communicated and the answer is 0.
        """
        count, scratch = len(self.healthy), self.scratch_vector
        if not count:
            return 0
        if self.is_healthy:
            scratch.copy_(self.vector)
        else:
            scratch.zero_()
        yield AllReduce(scratch)
        scratch.div_(count)
        return count

    def pull(self, target: Tensor, strength: float) -> None:
        """Move ``strength`` of the way to ``target`` (P,), now or, in a joint round, together with the next local step.

        A worker whose parameters are not finite is put onto the target, and its local optimizer starts afresh.
        """
        if not self.is_healthy:
            self.restart(target)
            return
        self._distance = squared_distance(self.vector, target)
        if strength == 0:
            return
        if not self.deferred:
            self.vector.lerp_(target, strength)
            return
        scratch = self.scratch_vector
        if not self._displaced:
            if target.data_ptr() == scratch.data_ptr():
                scratch.sub_(self.vector).mul_(strength)
            else:
                torch.sub(target, self.vector, out=scratch).mul_(strength)
        else:
            scratch.add_(target, alpha=strength).sub_(self.vector, alpha=strength)
        self._displaced = True

    def pull_and_move(self, center: Tensor, strength: float, center_strength: float) -> None:
        """Pull to ``center`` as it is, and move ``center`` towards the scratch vector, which holds the mean."""
        if not (self.deferred and self.is_healthy):
            self.pull(center, strength)
            center.lerp_(self.scratch_vector, center_strength)
            return
        self._distance = squared_distance(self.vector, center)
        for x, c, mean in chunks(self.vector, center, self.scratch_vector):
            displacement = (c - x).mul_(strength)
            c.lerp_(mean, center_strength)
            mean.copy_(displacement)
        self._displaced = True

    def restart(self, target: Tensor) -> None:
        """Put the parameters onto ``target``, without momentum; in a joint round ``settle`` does it later."""
        self._restart = target
        if not self.deferred:
            self._restart_now()

    def settle(self) -> None:
        """Before the local step of a joint round: restart, if need be, and drop gradients of what is gone."""
        if self._restart is not None:
            self._restart_now()
            for parameter in self.params.parameters:
                parameter.grad = None

    def _restart_now(self) -> None:
        assert self._restart is not None
        self.vector.copy_(self._restart)
        self._restart = None
        self.optimizer.state.clear()
        self.losses.clear()
        self.report.restarted = True

    def apply_displacement(self) -> None:
        """After the local step of a joint round: the pulls that were computed before it."""
        if self._displaced:
            self.vector.add_(self.scratch_vector)
            self._displaced = False

    def drop_displacement(self) -> None:
        """Forget pulls that were not committed."""
        self._displaced = False
        self._restart = None

    @property
    def displacement(self) -> Tensor | None:
        """(P,), pulls that were computed ahead of the local step that they belong to."""
        return self.scratch_vector if self._displaced else None

    @displacement.setter
    def displacement(self, values: Tensor | None) -> None:
        self._displaced = values is not None
        if values is not None:
            self.scratch_vector.copy_(values)


def squared_distance(first: Tensor, second: Tensor) -> float:
    """The squared Euclidean distance of two vectors, in double precision, without a temporary of their length."""
    total = 0.0
    for a, b in chunks(first, second):
        total += float((a - b).square_().sum(dtype=torch.float64))
    return total
