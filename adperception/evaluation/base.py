"""What an evaluation during a run looks like to the engine."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import torch

from adperception.models.base import TrainableModel

__all__ = ["Evaluation"]


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
