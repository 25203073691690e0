"""What an evaluation during a run looks like to the engine."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from adperception.models.base import TrainableModel

__all__ = ["Evaluation", "PredictionEvaluation"]


class Evaluation(Protocol):
    """A registered class in EVALUATIONS.

    Attributes:
        every_epochs: how often it runs; the end of a run is always evaluated.
        headline: names of the metrics to show on the console, the rest goes to the log only; empty shows all.
    """

    every_epochs: int
    headline: tuple[str, ...]

    def __call__(
        self, model: TrainableModel, batches: Iterable[Any], *, device: torch.device, step: int
    ) -> dict[str, float]:
        """Metrics by name, with the unit in the name where there is one.

        Args:
            model: the model on ``device``; must be left as it was.
            batches: the collated validation batches on the CPU, re-iterable, always in the same order.
            device: where to compute.
            step: optimizer steps done so far.
        """
        ...


class PredictionEvaluation(ABC):
    """An ``Evaluation`` that compares the predictions of a ``PredictionModel`` with labels.

    Args:
        every_epochs: how often it runs during training.
    """

    headline: tuple[str, ...] = ()

    def __init__(self, every_epochs: int = 1) -> None:
        if every_epochs < 1:
            raise ValueError(f"{type(self).__name__}: every_epochs={every_epochs} must be at least 1.")
        self.every_epochs = every_epochs

    @abstractmethod
    def bind(self, dataset: Any, folder: Path | None = None) -> None:
        """Get to know the validation dataset; predictions are written to ``folder`` if one is given.

        Raises:
            ValueError: if the dataset has no labels that this evaluation understands.
        """

    @abstractmethod
    def __call__(
        self, model: TrainableModel, batches: Iterable[Any], *, device: torch.device, step: int
    ) -> dict[str, float]:
        """See ``Evaluation``."""

    @abstractmethod
    def rehearse(self, model: TrainableModel, batches: Iterable[Any], *, device: torch.device) -> None:
        """Go through a whole evaluation of a few frames and keep nothing: a broken one is found before training."""

    @abstractmethod
    def report(self, metrics: Mapping[str, float]) -> str:
        """The metrics as a table for people; NaN reads ``n/a``."""
