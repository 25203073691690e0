"""Workers on analytic functions, for comparing rounds with numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adperception.optim.simulation import Simulation
from adperception.optim.strategy import Strategy
from adperception.optim.sync_optimizer import SyncOptimizer
from adperception.optim.triggers import EverySteps, Trigger

Function = Callable[[Tensor], Tensor]


class ToyWorkers:
    """One parameter vector per worker, plain SGD unless said otherwise, in a simulation.

    Args:
        strategy: what to test.
        starts: (M, n) parameters of the workers. ``SyncOptimizer`` makes them start equal; these are put in afterwards.
        function: what is minimised.
        lr: learning rate; 0 leaves the local step out.
        tensors: into how many parameter tensors the vector is cut.
    """

    def __init__(
        self,
        strategy: Strategy,
        starts: Sequence[Sequence[float]],
        function: Function = lambda x: 0.5 * x.square().sum(),
        *,
        lr: float = 0.1,
        trigger: Trigger | None = None,
        tensors: int = 1,
        optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None,
        center: Sequence[float] | None = None,
        probe: Callable[[nn.Module], Any] | None = None,
    ) -> None:
        self.function = function
        self.starts = torch.tensor(starts, dtype=torch.float64)
        self.simulation = Simulation(len(starts))
        self.models: list[nn.ParameterList] = []
        self.syncs: list[SyncOptimizer] = []
        for communicator in self.simulation.communicators:
            common = torch.zeros_like(self.starts[0]) if center is None else torch.tensor(center, dtype=torch.float64)
            parameters = nn.ParameterList([nn.Parameter(part.clone()) for part in common.chunk(tensors)])
            made = torch.optim.SGD(parameters, lr=lr) if optimizer is None else optimizer(list(parameters))
            sync = SyncOptimizer(
                made,
                strategy,
                trigger or EverySteps(1),
                model=parameters,
                communicator=communicator,
                probe=probe,
                allow_single_worker=True,
            )
            self.models.append(parameters)
            self.syncs.append(sync)
        self.simulation.run([sync.starting() for sync in self.syncs])
        self.put(self.starts)

    @torch.no_grad()
    def put(self, values: Tensor) -> None:
        """Set the workers' parameters."""
        for model, value in zip(self.models, values, strict=True):
            for parameter, part in zip(model, value.chunk(len(model)), strict=True):
                parameter.copy_(part)

    @property
    def x(self) -> Tensor:
        """(M, n) parameters."""
        return torch.stack([torch.cat([p.detach().flatten() for p in model]) for model in self.models])

    def loss(self, model: nn.ParameterList) -> Tensor:
        """The function at a worker's parameters."""
        return self.function(torch.cat([p.flatten() for p in model]))

    def step(self, count: int = 1, losses: Sequence[float] | None = None, *, closures: bool = False) -> Tensor:
        """Let all workers make steps; (M, n) parameters afterwards. ``losses`` replace those that are told."""
        for _ in range(count):
            generators = []
            for number, (model, sync) in enumerate(zip(self.models, self.syncs, strict=True)):
                if closures:
                    generators.append(sync.stepping(self._closure(model, sync)))
                    continue
                sync.zero_grad()
                loss = self.loss(model)
                loss.backward()
                generators.append(sync.stepping(loss=loss.detach() if losses is None else losses[number]))
            self.simulation.run(generators)
        return self.x

    def _closure(self, model: nn.ParameterList, sync: SyncOptimizer) -> Callable[[], Tensor]:
        def closure() -> Tensor:
            sync.zero_grad()
            loss = self.loss(model)
            loss.backward()
            return loss.detach()

        return closure


def near(found: Tensor, expected: Sequence[Any] | Tensor, tolerance: float = 1e-12) -> None:
    """Equal within a tolerance, with the values in the message."""
    wanted = torch.as_tensor(expected, dtype=torch.float64).reshape(found.shape)
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance)
