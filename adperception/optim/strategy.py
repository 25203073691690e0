"""What all strategies share: how workers that train apart are brought together from time to time."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal, TypeAlias

from torch import Tensor

from adperception.optim.collectives import Requests
from adperception.optim.worker import Worker

__all__ = ["Order", "Strategy", "finite_losses", "require", "require_order"]

Order: TypeAlias = Literal["step_then_pull", "joint"]
"""When the pull of a round happens: after the local step, to targets made of the stepped parameters (the released
codes); or together with it, both computed from the parameters before it (the papers' equations)."""


class Strategy(ABC):
    """The rule of a round. Strategies are frozen dataclasses of their options; what changes is in ``Worker.state``.

    Attributes:
        needs_loss: whether it elects by training losses, so that ``SyncOptimizer.step`` needs them.
        needs_probe: whether it measures gradients with a probe.
        has_step_work: whether it does something after every local step.
        replicated: names of the state that is the same on all workers, to the bit.
        runs_alone: whether rounds of a single worker do anything.
    """

    replicated: ClassVar[tuple[str, ...]] = ()
    runs_alone: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """As configs and messages call it."""
        return type(self).__name__

    @property
    def needs_loss(self) -> bool:
        """Whether it elects by training losses."""
        return False

    @property
    def needs_probe(self) -> bool:
        """Whether it measures gradients with a probe."""
        return False

    @property
    def is_joint(self) -> bool:
        """Whether its pulls are computed before the local step of the round and applied with it."""
        return getattr(self, "order", "step_then_pull") == "joint"

    @property
    def has_step_work(self) -> bool:
        """Whether ``after_step`` does anything."""
        return type(self).after_step is not Strategy.after_step

    @property
    def losses_averaged(self) -> int | None:
        """How many losses an election averages; ``None``: all since the last round."""
        return None

    @property
    def communicates_before_step(self) -> bool:
        """Whether ``before_step`` does anything, in some steps at least."""
        return type(self).before_step is not Strategy.before_step

    def wants_gradients(self, step: int) -> bool:
        """Whether there is a ``before_step`` for local step ``step``."""
        return self.communicates_before_step

    def election_loss(self, worker: Worker) -> float:
        """The loss that the worker tells at a roll call."""
        return worker.losses.mean()

    def extra(self, worker_count: int, tensors: int) -> int:
        """Elements of scratch memory beyond the parameters."""
        return 0

    def start(self, worker: Worker) -> None:  # noqa: B027  most strategies have no state
        """Make the state of a new run; all workers hold the same parameters."""

    def before_step(self, worker: Worker) -> Requests:
        """Before the local step ``worker.steps``, with the gradients at hand."""
        yield from ()

    def after_step(self, worker: Worker, sync_every: float) -> None:  # noqa: B027  most strategies do nothing here
        """After every local step, without communication.

        Args:
            worker: who stepped; gradients are still there.
            sync_every: local steps between two rounds, on average.
        """

    @abstractmethod
    def round(self, worker: Worker) -> Requests:
        """One round, after the roll call: communicate, commit, then change parameters and state."""

    def finish(self, worker: Worker) -> Requests:
        """The rest of a joint round, after the local step, for a method that communicates before and after it."""
        yield from ()

    def consensus(self, worker: Worker) -> Requests:
        """Leave the model that stands for all workers in the scratch vector: their mean, unless a method has another.

        The answer is whether there is one.
        """
        return (yield from worker.mean()) > 0

    def resized(self, worker: Worker, moves: list[tuple[slice, slice]]) -> None:
        """Further parameters were taken in: move the state that is as long as the parameters.

        Args:
            worker: with the new flat parameters.
            moves: old and new slices of the parameters from before.
        """
        for name, old in worker.state.items():
            if old.ndim == 1 and moves and old.numel() >= moves[-1][0].stop and old.dtype == worker.vector.dtype:
                new = self.fill_resized(name, worker)
                for before, after in moves:
                    new[after] = old[before]
                worker.state[name] = new

    def fill_resized(self, name: str, worker: Worker) -> Tensor:
        """What state ``name`` is at new parameters: a copy of them."""
        return worker.vector.clone()


def require(
    strategy: Strategy, name: str, value: float, low: float, high: float = math.inf, *, low_open: bool = False
) -> None:
    """Check an option.

    Raises:
        ValueError: naming strategy, option, value and range.
    """
    if not (low < value if low_open else low <= value) or not value <= high or not math.isfinite(value):
        above = f"above {low:g}" if low_open else f"{low:g} or more"
        raise ValueError(
            f"{strategy.name}: {name}={value} must be {above}" + ("." if high == math.inf else f", at most {high:g}.")
        )


def finite_losses(worker: Worker) -> dict[int, float]:
    """The losses of the members that can lead: parameters and loss are finite. The others are noted in the report."""
    losses = {m: n.loss for m, n in worker.notes.items() if n.healthy and math.isfinite(n.loss)}
    worker.report.unhealthy = tuple(m for m in worker.members if m not in losses)
    return losses


def require_order(strategy: Strategy, order: str) -> None:
    """Check an option of type ``Order``.

    Raises:
        ValueError: naming the value.
    """
    if order not in ("step_then_pull", "joint"):
        raise ValueError(f'{strategy.name}: order="{order}" is unknown. Available: step_then_pull, joint.')
