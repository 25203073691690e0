"""When a round happens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

__all__ = ["EverySamples", "EverySteps", "Ticket", "Trigger"]


class Trigger(ABC):
    """Decides after each local step whether a round follows. Triggers are frozen dataclasses of their options."""

    @abstractmethod
    def is_due(self, steps: int, workers: int) -> bool:
        """Whether a round follows local step number ``steps`` (from 1), with so many workers left."""

    @abstractmethod
    def steps_per_round(self, workers: int) -> float:
        """Local steps of a worker between two rounds, on average."""


@dataclass(frozen=True)
class EverySteps(Trigger):
    """A round after every so many local steps.

    Args:
        steps: tau.
    """

    steps: int = 16

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"EverySteps: steps={self.steps} must be 1 or more; 1 is a round after every local step.")

    def is_due(self, steps: int, workers: int) -> bool:
        """After steps tau, 2 tau, ..."""
        return steps % self.steps == 0

    def steps_per_round(self, workers: int) -> float:
        """Tau."""
        return float(self.steps)


@dataclass(frozen=True)
class EverySamples(Trigger):
    """A round whenever all workers together have seen so many samples more.

    Args:
        samples: between two rounds, of all workers together.
        batch_size: samples of one local step of one worker.
    """

    samples: int
    batch_size: int

    def __post_init__(self) -> None:
        for name in ("samples", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"EverySamples: {name}={getattr(self, name)} must be 1 or more.")

    def is_due(self, steps: int, workers: int) -> bool:
        """Where the count passes a multiple of ``samples``."""
        per_step = self.batch_size * workers
        return steps * per_step // self.samples > (steps - 1) * per_step // self.samples

    def steps_per_round(self, workers: int) -> float:
        """At least 1."""
        return max(1.0, self.samples / (self.batch_size * workers))


@dataclass(frozen=True)
class Ticket(Trigger):
    """Semi-asynchronous: a round after so many local steps of all workers together, whoever did them.

    Before every mini-batch a worker takes a number n from one counter. With G = ``steps`` times M: if n mod (G + M) < G
    it trains, otherwise it joins the round that all M workers come to. Fast workers train more between two rounds, and
    nobody computes with stale parameters. The released servers and threads do exactly this (Teng et al., 2019).

    The numbers depend on speed, so a run is not repeatable by itself; ``SyncOptimizer.ticket_log`` holds them, and
    given as ``replay`` they make a run equal to the bit to the one that was logged.

    Args:
        steps: local steps of a worker between two rounds, on average.
        replay: for each local step of all workers together, in the order of the tickets, the worker that does it.
    """

    steps: int = 16
    replay: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"Ticket: steps={self.steps} must be 1 or more.")

    def is_local(self, number: int, workers: int) -> bool:
        """Whether the holder of this ticket trains; otherwise it joins a round."""
        group = self.steps * workers
        return number % (group + workers) < group

    def local_number(self, number: int, workers: int) -> int:
        """Which local step of all workers together this ticket is for."""
        group = self.steps * workers
        return number // (group + workers) * group + number % (group + workers)

    def is_due(self, steps: int, workers: int) -> bool:
        """Not by a worker's own steps."""
        return False

    def steps_per_round(self, workers: int) -> float:
        """On average."""
        return float(self.steps)
