"""Evaluating a radar model: each frame is predicted, written and counted before the next one is read."""

from __future__ import annotations

import contextlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import torch

from adperception.evaluation.base import PredictionEvaluation
from adperception.evaluation.radar_predictions import RadarPredictionWriter
from adperception.models.base import TrainableModel
from adperception.models.radar.base import RadarModel, RadarPrediction
from adperception.structures import RadarBatch, RadarGrid, RadarMasks, RadarObjects

__all__ = ["RadarEvaluation", "RadarGroundTruth", "RadarScore", "predict_radar_frames", "score_radar_model"]


@runtime_checkable
class RadarGroundTruth(Protocol):
    """What the radar evaluations ask of a dataset; every ``RadarDataset`` has it.

    Attributes:
        frame_ids: names of the labelled moments.
        class_names: foreground classes.
        grid: what the cells mean.
        label_axis: what azimuth columns of labels are linear in.
    """

    frame_ids: Sequence[str]
    class_names: tuple[str, ...]
    grid: RadarGrid
    label_axis: Literal["sin", "angle", "unknown"]


class RadarScore(Protocol):
    """Counts over frames, to be turned into metrics at the end."""

    def add(
        self, frame_id: str, found: RadarPrediction, masks: RadarMasks | None, objects: RadarObjects | None
    ) -> None:
        """Count one frame.

        Args:
            frame_id: for messages.
            found: what the model says.
            masks: true classes of the pixels, if the frame has them.
            objects: true objects, if the frame has them.

        Raises:
            ValueError: if the prediction or the labels lack what is compared, or do not fit each other.
        """

    def metrics(self) -> dict[str, float]:
        """Metrics by name over the frames so far."""
        ...


class RadarEvaluation(PredictionEvaluation):
    """Base of the evaluations of radar models.

    Args:
        every_epochs: how often it runs during training.
    """

    def __init__(self, every_epochs: int = 1) -> None:
        super().__init__(every_epochs)
        self._folder: Path | None = None
        self._dataset: RadarGroundTruth | None = None

    def bind(self, dataset: Any, folder: Path | None = None) -> None:
        """Compare with the labels of ``dataset``; predictions of the newest evaluation are written to ``folder``.

        Raises:
            ValueError: if it is no radar dataset.
        """
        if not isinstance(dataset, RadarGroundTruth):
            raise ValueError(
                f"{type(self).__name__} needs a radar dataset; {type(dataset).__name__} has no class_names, grid and "
                "label_axis."
            )
        self._dataset, self._folder = dataset, folder

    @property
    def dataset(self) -> RadarGroundTruth:
        """The bound dataset.

        Raises:
            ValueError: if there is none yet.
        """
        if self._dataset is None:
            raise ValueError(f"{type(self).__name__} has no ground truth yet: call bind(dataset) first.")
        return self._dataset

    @abstractmethod
    def score(self) -> RadarScore:
        """Empty counts for frames of the bound dataset."""

    def __call__(
        self, model: TrainableModel, batches: Iterable[Any], *, device: torch.device, step: int
    ) -> dict[str, float]:
        """Predict every frame of ``batches`` and compare; the predictions are written if there is a folder.

        Raises:
            ValueError: if the model is no radar model or was made for other classes, or see ``RadarScore.add``.
        """
        if self._folder is None:
            return self._run(model, batches, device, None)
        path = self._folder / f"step_{step:08d}.npz"
        with RadarPredictionWriter(path, self.dataset.class_names, self.dataset.grid) as writer:
            metrics = self._run(model, batches, device, writer)
        for older in self._folder.glob("step_*.npz"):
            if older != path:
                older.unlink()
        return metrics

    def rehearse(self, model: TrainableModel, batches: Iterable[Any], *, device: torch.device) -> None:
        """Go through a whole evaluation of a few frames and keep nothing: a broken one is found before training."""
        self.report(self._run(model, batches, device, None))

    def _run(
        self,
        model: TrainableModel,
        batches: Iterable[RadarBatch],
        device: torch.device,
        writer: RadarPredictionWriter | None,
    ) -> dict[str, float]:
        return score_radar_model([self], model, batches, device=device, writer=writer)[0]

    def check_model(self, model: object) -> RadarModel:
        """The model, if this evaluation can judge it.

        Raises:
            ValueError: if it cannot.
        """
        if not isinstance(model, RadarModel):
            raise ValueError(
                f"{type(self).__name__} evaluates radar models, but {type(model).__name__} is none. Take it out of "
                "evaluations=, or train a radar model."
            )
        if tuple(model.class_names) != tuple(self.dataset.class_names):
            raise ValueError(
                f"{type(self).__name__}: the model knows the classes {', '.join(model.class_names)}, the dataset has "
                f"{', '.join(self.dataset.class_names)}. Evaluate on a dataset with the classes it was trained for."
            )
        return model


def score_radar_model(
    evaluations: Sequence[RadarEvaluation],
    model: object,
    batches: Iterable[RadarBatch],
    *,
    device: torch.device,
    writer: RadarPredictionWriter | None = None,
) -> list[dict[str, float]]:
    """Predict every frame once, write what was found, and let each evaluation count it.

    Args:
        evaluations: bound to their dataset.
        model: the radar model on ``device``.
        batches: labelled, collated batches on the CPU.
        device: where to compute.
        writer: for the predictions, if they are to be kept.

    Returns:
        The metrics of each evaluation.

    Raises:
        ValueError: if an evaluation cannot judge this model, or the labels do not fit.
    """
    models = [evaluation.check_model(model) for evaluation in evaluations]
    scores = [evaluation.score() for evaluation in evaluations]
    for batch, predictions in predict_radar_frames(models[0], batches, device=device):
        for number, (frame_id, found) in enumerate(zip(batch.frame_ids, predictions, strict=True)):
            if writer is not None:
                writer.add(frame_id, found)
            masks, objects = batch.masks(number), None if batch.objects is None else batch.objects[number]
            for score in scores:
                score.add(frame_id, found, masks, objects)
    return [score.metrics() for score in scores]


def predict_radar_frames(
    model: RadarModel, batches: Iterable[RadarBatch], *, device: torch.device
) -> Iterator[tuple[RadarBatch, list[RadarPrediction]]]:
    """Each batch (on the CPU) with what the model finds in its frames; its training mode is left as it was.

    Args:
        model: the model on ``device``.
        batches: collated batches on the CPU.
        device: where to compute.
    """
    was_training = model.training
    model.eval()
    with contextlib.ExitStack() as stack:
        stack.callback(model.train, was_training)
        for batch in batches:
            with torch.no_grad():
                predictions = model.predict(batch.to(device))
            yield batch, predictions
