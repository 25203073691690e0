"""What a strategy asks its workers to communicate.

The communication part of a strategy is a generator: it yields one of these requests, and is resumed with the answer.
Who drives the generator decides how the request is carried out: ``TorchCommunicator`` over gloo or NCCL, ``Simulation``
for any number of workers in one process. The rule itself is the same code in both.

A round starts with a ``RollCall`` and ends with a ``Commit``. In between a strategy may write to scratch memory only: a
round that fails on any worker never happened on all of them.

Workers are named by their *worker id*: the rank that they started with, which does not change when others are lost.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

from torch import Tensor

__all__ = [
    "AllReduce",
    "Broadcast",
    "Commit",
    "Communicator",
    "Mix",
    "Note",
    "Request",
    "Requests",
    "RollCall",
    "RoundFailedError",
    "TakeTicket",
]


class RoundFailedError(RuntimeError):
    """Thrown into the generator where a request could not be carried out on every worker; the round never happened."""


@dataclass(frozen=True)
class Note:
    """What a worker says of itself when it joins a round.

    Attributes:
        loss: its mean training loss of late, for elections; NaN if unknown.
        healthy: whether its parameters are finite. The others leave it out of means, weights and elections.
        steps: its local steps so far.
        distance: squared distance of its parameters to what they were pulled to in the round before; NaN if unknown.
        weight: its weight in the mean of the round before; NaN if all had the same.
        tell: plain values for the others that no strategy reads (a signal to stop, what to log).
    """

    loss: float = float("nan")
    healthy: bool = True
    steps: int = 0
    distance: float = float("nan")
    weight: float = float("nan")
    tell: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RollCall:
    """Wait for the others, or find out who is lost. The answer is a dict of notes by worker id, in ascending order.

    Its keys are the members of the round: all workers that are left.

    Attributes:
        note: what this worker says.
    """

    note: Note


@dataclass(frozen=True)
class AllReduce:
    """Sum over the members, in place; all of them end with the same bits. The answer is the tensor.

    Attributes:
        tensor: (n,), the same n on every worker.
    """

    tensor: Tensor


@dataclass(frozen=True)
class Broadcast:
    """One worker's values to all. The answer is the tensor.

    Attributes:
        tensor: (n,); read on the root, overwritten on the others.
        root: worker id.
        among: the worker ids that take part, in ascending order, the root included; ``None``: all members. The other
            members make the same request for groups of their own at the same time.
    """

    tensor: Tensor
    root: int
    among: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Mix:
    """A weighted sum of one's own values and those of the neighbours, which each get one's own. The answer is ``out``.

    ``out = own_weight * source + sum_j weights[j] * (source of neighbours[j])``, added up in this order.

    Attributes:
        source: (n,); unchanged until the answer is there.
        out: (n,), other memory than ``source``.
        own_weight: weight of one's own values.
        neighbours: worker ids, all of them members; being neighbours is symmetric, the weights need not be.
        weights: one per neighbour. Values with weight 0 are left out, even if they are not finite.
    """

    source: Tensor
    out: Tensor
    own_weight: float
    neighbours: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()


@dataclass(frozen=True)
class Commit:
    """All members have got here, or none goes on. The answer is ``None``."""


@dataclass(frozen=True)
class TakeTicket:
    """The next number of a counter that all workers share, from 0. It needs nobody else and belongs to no round."""


Request: TypeAlias = RollCall | AllReduce | Broadcast | Mix | Commit | TakeTicket

Requests: TypeAlias = Generator[Request, Any, Any]
"""What the communication part of a strategy returns."""


class Communicator(Protocol):
    """Carries out requests for one worker."""

    is_simulated: bool
    """Whether ``run`` cannot be called, because a ``Simulation`` drives all workers together."""

    @property
    def worker_id(self) -> int:
        """Which worker this is: the rank that it started with."""

    @property
    def members(self) -> tuple[int, ...]:
        """Worker ids of all that are left, in ascending order."""

    def run(self, requests: Requests) -> Any:
        """Drive a generator to its end; what it returns.

        Raises:
            RoundFailedError: where a request failed and the generator does not catch it; the members may be fewer now.
        """
