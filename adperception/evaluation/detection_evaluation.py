"""Evaluating a detector: predictions are written first, then compared with the ground truth."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from adperception.evaluation.base import PredictionEvaluation
from adperception.evaluation.predictions import predict_frames, write_predictions
from adperception.models.base import DetectionModel, TrainableModel
from adperception.structures import Detections

__all__ = ["DetectionEvaluation"]


class DetectionEvaluation(PredictionEvaluation):
    """Base of the evaluations of detectors; an ``Evaluation`` for the engine, and usable with stored predictions.

    Args:
        every_epochs: how often it runs during training.
    """

    def __init__(self, every_epochs: int = 1) -> None:
        super().__init__(every_epochs)
        self._folder: Path | None = None

    def bind(self, dataset: Any, folder: Path | None = None) -> None:
        """Use the ground truth of ``dataset``; predictions are written to ``folder`` if one is given.

        The folder keeps those of the newest evaluation, so that metrics can be computed again without the model.

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
        if self._folder is None:
            return self.score(predictions)
        path = self._folder / f"step_{step:08d}.jsonl"
        write_predictions(path, predictions)
        metrics = self.score(predictions)
        for older in self._folder.glob("step_*.jsonl"):
            if older != path:
                older.unlink()
        return metrics

    def rehearse(self, model: TrainableModel, batches: Iterable[Any], *, device: torch.device) -> None:
        """Go through a whole evaluation of a few frames and keep nothing: a broken one is found before training."""
        self.report(self.score(self._predict(model, batches, device)))

    def _predict(self, model: TrainableModel, batches: Iterable[Any], device: torch.device) -> dict[str, Detections]:
        if not isinstance(model, DetectionModel):
            raise ValueError(
                f"{type(self).__name__} evaluates detectors, but {type(model).__name__} is none. Take it out of "
                "evaluations=, or train a detector."
            )
        return predict_frames(model, batches, device=device)
