"""What the rounds of a strategy cost on a given network, without training: for plans of runs that cannot be tried.

The strategy itself is run, on a vector of a few numbers, in a simulation that charges for the parameters of the real
model. So nothing has to be known here about what a strategy sends, and hundreds of workers take seconds.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from adperception.optim import Compute, DataParallel, EverySteps, Simulation, Strategy, SyncOptimizer
from adperception.optim.collectives import AllReduce, Broadcast, Commit, Mix, Request, RollCall
from adperception.optim.time_model import CommunicationTime, Link

__all__ = ["Costs", "Hardware", "costs_per_steps", "costs_until"]

_WORKER_ROUNDS = 1024
"""Rounds times workers over which costs are averaged: graphs that change at random differ from round to round."""


@dataclass(frozen=True)
class Hardware:
    """What a run is planned for.

    Attributes:
        link: of every worker.
        step_seconds: of computing per local step, the same on all workers.
    """

    link: Link
    step_seconds: float


@dataclass(frozen=True)
class Costs:
    """What some steps cost.

    Attributes:
        seconds: of the clock.
        bytes_sent: payload, all workers together.
    """

    seconds: float
    bytes_sent: float


def costs_until(
    strategy: Strategy, workers: int, sync_every: int | None, parameters: int, hardware: Hardware, steps: list[int]
) -> list[Costs]:
    """Costs of a run up to each of ``steps`` (ascending).

    Args:
        strategy: with its options.
        workers: M, at least 2.
        sync_every: local steps between two rounds; ``None``: no rounds.
        parameters: elements (4 bytes) of the real model.
        hardware: network and speed.
        steps: numbers of local steps.
    """
    run = _PlannedRun(strategy, workers, sync_every, parameters, hardware)
    return [run.advance(end) for end in steps]


def costs_per_steps(
    strategy: Strategy, workers: int, sync_every: int, parameters: int, hardware: Hardware, steps: int = 1000
) -> Costs:
    """Costs of ``steps`` steps in the long run; arguments as ``costs_until``."""
    # In a method that communicates in every step, every step is a round.
    rounds = max(4, min(16, _WORKER_ROUNDS // workers))
    simulated = rounds if strategy.wants_gradients(NEVER) else rounds * sync_every
    (found,) = costs_until(strategy, workers, sync_every, parameters, hardware, [simulated])
    return Costs(found.seconds * steps / simulated, found.bytes_sent * steps / simulated)


NEVER = 10**9


class _PlannedRun:
    def __init__(
        self, strategy: Strategy, workers: int, sync_every: int | None, parameters: int, hardware: Hardware
    ) -> None:
        self._strategy, self._hardware = strategy, hardware
        self._trigger = EverySteps(sync_every or NEVER)
        self._models = [nn.ParameterList([nn.Parameter(torch.zeros(1))]) for _ in range(workers)]
        cost = _Charged(
            CommunicationTime(hardware.link), elements=parameters, free_control=isinstance(strategy, DataParallel)
        )
        self._simulation = Simulation(workers, cost)
        self._syncs = [
            SyncOptimizer(
                torch.optim.SGD(model.parameters(), lr=0.0),
                strategy,
                self._trigger,
                model=model,
                communicator=communicator,
                probe=_probe,
                check_replicas_every=0,
            )
            for model, communicator in zip(self._models, self._simulation.communicators, strict=True)
        ]
        Simulation(workers).run([sync.starting() for sync in self._syncs])
        cost.stand_in = self._syncs[0].worker.params.numel
        self._step = 0

    def advance(self, end: int) -> Costs:
        self._simulation.run([self._steps(sync, end) for sync in self._syncs])
        self._step = end
        communicators = self._simulation.communicators
        return Costs(max(c.clock for c in communicators), sum(c.bytes_sent for c in communicators))

    def _steps(self, sync: SyncOptimizer, end: int) -> Generator[Any, Any, None]:
        computed = 0.0
        for step in range(self._step, end):
            computed += self._hardware.step_seconds
            due = self._trigger.is_due(step + 1, len(self._syncs))
            if not due and not self._strategy.wants_gradients(step):
                sync.worker.steps += 1  # nothing is sent, so nothing has to be done
                continue
            if due and self._strategy.needs_probe:
                computed += self._hardware.step_seconds
            yield Compute(computed)
            computed = 0.0
            yield from sync.stepping(loss=0.0)
        yield Compute(computed)


def _probe(model: nn.Module) -> Tensor:
    loss = torch.stack([parameter.sum() for parameter in model.parameters()]).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    return loss


class _Charged:
    """A cost for tensors as long as the real model's.

    Args:
        cost: of requests.
        elements: of the real model.
        free_control: leave roll calls and commits out: torch's DistributedDataParallel, which ``DataParallel`` stands
            for, has neither.
    """

    def __init__(self, cost: CommunicationTime, elements: int, free_control: bool) -> None:
        self._cost, self._elements, self._free_control = cost, elements, free_control
        self._known: dict[tuple[object, ...], float] = {}
        self.stand_in = 0

    def seconds(self, request: Request, workers: int) -> float:
        if self._free_control and isinstance(request, (RollCall, Commit)):
            return 0.0
        name = (*_name(request), workers)
        if name not in self._known:
            self._known[name] = self._cost.seconds(self._real(request), workers)
        return self._known[name]

    def bytes_sent(self, request: Request, workers: int, worker_id: int) -> float:
        name = (*_name(request), workers, worker_id)
        if name not in self._known:
            self._known[name] = self._cost.bytes_sent(self._real(request), workers, worker_id)
        return self._known[name]

    def _real(self, request: Request) -> Request:
        if isinstance(request, (AllReduce, Broadcast)):
            return replace(request, tensor=self._longer(request.tensor))
        return replace(request, source=self._longer(request.source)) if isinstance(request, Mix) else request

    def _longer(self, tensor: Tensor) -> Tensor:
        """A tensor without memory; what travels with the parameters (weights, counts) is kept."""
        return torch.empty(tensor.numel() - self.stand_in + self._elements, dtype=tensor.dtype, device="meta")


def _name(request: Request) -> tuple[object, ...]:
    """What the cost of a request depends on."""
    if isinstance(request, AllReduce):
        return AllReduce, request.tensor.numel(), request.tensor.dtype
    if isinstance(request, Broadcast):
        return Broadcast, request.tensor.numel(), request.tensor.dtype, request.root, request.among
    if isinstance(request, Mix):
        return Mix, request.source.numel(), request.source.dtype, len(request.neighbours)
    return (type(request),)
