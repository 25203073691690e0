"""Evaluating a detector: predictions are written first, then compared with the ground truth."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from adperception.evaluation.predictions import predict_frames, write_predictions
from adperception.models.base import DetectionModel, TrainableModel
from adperception.structures import Detections

__all__ = ["DetectionEvaluation"]


class DetectionEvaluation(ABC):
    """Base of the evaluations of detectors; an ``Evaluation`` for the engine, and usable with stored predictions.

    Args:
        every_epochs: how often it runs during training.
    """

    headline: tuple[str, ...] = ()

    def __init__(self, every_epochs: int = 1) -> None:
        if every_epochs < 1:
            raise ValueError(f"{type(self).__name__}: every_epochs={every_epochs} must be at least 1.")
        self.every_epochs = every_epochs
        self._folder: Path | None = None

    def bind(self, dataset: Any, folder: Path | None = None) -> None:
        """Use the ground truth of ``dataset``; predictions are written below ``folder`` if one is given.

        Raises:
            ValueError: if the dataset has no ground truth that this evaluation understands.
        """
        self._folder = folder
        self._bind(dataset)

    @abstractmethod
    def _bind(self, dataset: Any) -> None:
        """Check that ``dataset`` has the ground truth, and keep what is needed of it."""

    @abstractmethod
    def score(self, predictions: Mapping[str, Detections]) -> dict[str, float]:
        """Metrics by name over the frames of ``predictions``; NaN where a class has no ground truth.

        Args:
            predictions: by frame name; every frame must be one of the bound dataset's.

        Raises:
            ValueError: for a frame that the dataset does not have.
        """

    @abstractmethod
    def report(self, metrics: Mapping[str, float]) -> str:
        """The metrics of ``score`` as a table for people; NaN reads ``n/a``."""

    def __call__(
        self, model: TrainableModel, batches: Iterable[Any], *, device: torch.device, step: int
    ) -> dict[str, float]:
        """Predict every frame of ``batches``, write the predictions, then score them.

        Raises:
            ValueError: if the model is no detector.
        """
        predictions = self._predict(model, batches, device)
        if self._folder is not None:
            write_predictions(self._folder / f"step_{step:08d}.jsonl", predictions)
        return self.score(predictions)

    def rehearse(self, model: TrainableModel, batches: Iterable[Any], *, device: torch.device) -> None:
        """Go through an evaluation of the first batches (at least two frames), to find a broken one before training."""
        self.score(self._predict(model, islice(batches, 2), device))

    def _predict(self, model: TrainableModel, batches: Iterable[Any], device: torch.device) -> dict[str, Detections]:
        if not isinstance(model, DetectionModel):
            raise ValueError(
                f"{type(self).__name__} evaluates detectors, but {type(model).__name__} is none. Take it out of "
                "evaluations=, or train a detector."
            )
        return predict_frames(model, batches, device=device)
