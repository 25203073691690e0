"""Evaluate a trained radar model, or predictions that were written before: frame by frame, in little memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from adperception.datasets.radar_dataset import RadarDataset
from adperception.engine.console import say
from adperception.evaluation.radar_evaluation import RadarEvaluation, RadarScore, predict_radar_frames
from adperception.evaluation.radar_predictions import RadarPredictions, RadarPredictionWriter
from adperception.models.radar.base import RadarModel
from adperception.structures import RadarBatch

__all__ = ["RADAR_PREDICTIONS_FILE", "score_radar_model", "score_radar_predictions"]

RADAR_PREDICTIONS_FILE = "predictions.npz"


def score_radar_model(
    model: RadarModel,
    batches: Iterable[RadarBatch],
    evaluations: Sequence[RadarEvaluation],
    folder: Path,
    device: torch.device,
) -> list[dict[str, float]]:
    """Predict every frame once, write the predictions, and score them by each evaluation.

    Args:
        model: on ``device``.
        batches: collated batches on the CPU, with labels.
        evaluations: bound to their dataset.
        folder: where ``predictions.npz`` goes.
        device: where to compute.

    Returns:
        The metrics of each evaluation.

    Raises:
        ValueError: if an evaluation cannot judge this model, or the labels do not fit.
    """
    scores: list[RadarScore] = [evaluation.score() for evaluation in evaluations]
    for evaluation in evaluations:
        evaluation.check_model(model)
    dataset, path, frames = evaluations[0].dataset, folder / RADAR_PREDICTIONS_FILE, 0
    with RadarPredictionWriter(path, dataset.class_names, dataset.grid) as writer:
        for batch, predictions in predict_radar_frames(model, batches, device=device):
            for number, (frame_id, found) in enumerate(zip(batch.frame_ids, predictions, strict=True)):
                writer.add(frame_id, found)
                frames += 1
                for score in scores:
                    score.add(
                        frame_id, found, batch.masks(number), None if batch.objects is None else batch.objects[number]
                    )
    say(f"wrote {path}: {frames} frames")
    return [score.metrics() for score in scores]


def score_radar_predictions(
    path: Path, dataset: RadarDataset, evaluations: Sequence[RadarEvaluation]
) -> list[dict[str, float]]:
    """Metrics of stored predictions; no model is needed.

    Args:
        path: an ``.npz`` of ``RadarPredictionWriter``.
        dataset: the frames that were predicted.
        evaluations: bound to ``dataset``.

    Returns:
        The metrics of each evaluation.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it holds other classes, another grid or other frames than the dataset.
    """
    stored = RadarPredictions(path)
    for name, theirs, ours in (
        ("classes", stored.class_names, tuple(dataset.class_names)),
        ("grid", stored.grid, dataset.grid),
    ):
        if theirs != ours:
            raise ValueError(f"{path}: was made with {name} {theirs}, the dataset has {ours}.")
    require_same_frames(path, stored, dataset.frame_ids)
    scores: list[RadarScore] = [evaluation.score() for evaluation in evaluations]
    for index, frame_id in enumerate(dataset.frame_ids):
        frame = dataset.read(index)
        for score in scores:
            score.add(frame_id, stored[frame_id], frame.masks, frame.objects)
    say(f"read {path}: {len(stored)} frames")
    return [score.metrics() for score in scores]


def require_same_frames(path: Path, predicted: Iterable[str], frame_ids: Sequence[str]) -> None:
    """Refuse predictions of other frames than those of a dataset.

    Raises:
        ValueError: with the number of frames and the first one.
    """
    found = dict.fromkeys(predicted)
    missing = [name for name in frame_ids if name not in found]
    known = set(frame_ids)
    strange = [name for name in found if name not in known]
    if missing or strange:
        count, which, first = (
            (len(missing), "validation frames have no predictions in it", missing[0])
            if missing
            else (len(strange), "of its frames are not in the validation set", strange[0])
        )
        raise ValueError(
            f"{path}: {count} {which} (first: {first}). It was written for another dataset or split than the "
            "val_dataset of this config, or it is incomplete."
        )
