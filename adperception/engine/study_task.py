"""What a study of optimisers asks of a task: models, mini-batches, a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import torch
from torch import Tensor, nn

__all__ = ["SHARDINGS", "Batches", "Metric", "Sharding", "Split", "StudyTask"]

Split: TypeAlias = Literal["validation", "test"]

Sharding: TypeAlias = Literal["dealt", "fixed", "skewed"]

SHARDINGS: Mapping[Sharding, str] = {
    "dealt": "shards dealt anew in every pass over the data",
    "fixed": "fixed shards",
    "skewed": "fixed shards, skewed labels",
}
"""Who trains on what. In all of them the workers' shards are disjoint."""


@dataclass(frozen=True)
class Metric:
    """What a task measures.

    Attributes:
        name: for headings.
        higher_is_better: as an accuracy; otherwise as a loss.
        tolerance: a method counts as equal to the reference if it lies at most this far behind, or one standard
            deviation of the reference if that is more.
        decimals: in tables.
    """

    name: str
    higher_is_better: bool
    tolerance: float
    decimals: int = 2

    @property
    def sign(self) -> int:
        """Multiply with it to have something to be maximised."""
        return 1 if self.higher_is_better else -1


class Batches(Protocol):
    """The mini-batches of all workers in one run; a function of seed, worker and step."""

    def loss(self, model: nn.Module, worker: int, step: int) -> Tensor:
        """The loss of a worker's mini-batch in a step (from 0)."""

    def before_step(self, model: nn.Module) -> None:
        """What is done to the gradients, if anything (clipping)."""

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        """What a model does after an optimizer step of its own, if anything (a target network that follows)."""


class StudyTask(Protocol):
    """What is learned."""

    @property
    def name(self) -> str:
        """As the command line calls it."""

    @property
    def metric(self) -> Metric:
        """What ``score`` gives."""

    @property
    def shardings(self) -> Sequence[Sharding]:
        """Those that ``batches`` can make."""

    @property
    def batch_size(self) -> int:
        """Of one worker, unless another one is asked for."""

    @property
    def rate_scale(self) -> float:
        """By what the learning rates of the methods' settings are multiplied."""

    @property
    def recalibration_batches(self) -> int:
        """Training batches by which every worker estimates the batch-norm statistics of the consensus; 0: none."""

    def identity(self) -> dict[str, Any]:
        """All that decides what a run of this task finds, as plain values."""

    def build_model(self, seed: int) -> nn.Module:
        """A fresh model, the same one for the same seed."""

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The local optimizer of a worker; its learning rate is set in every step."""

    def batches(self, workers: int, seed: int, sharding: Sharding, batch_size: int, steps: int) -> Batches:
        """The data of a run.

        Raises:
            ValueError: if the data cannot be divided so.
        """

    def score(self, model: nn.Module, split: Split) -> float:
        """The metric of a model on held-out data."""
