"""Evaluate a trained radar model, or predictions that were written before: frame by frame, in little memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from adperception.datasets.radar_dataset import RadarDataset
from adperception.engine.console import say
from adperception.evaluation.radar_evaluation import RadarEvaluation, RadarScore, score_radar_model
from adperception.evaluation.radar_predictions import RadarPredictions, RadarPredictionWriter
from adperception.models.radar.base import RadarModel
from adperception.structures import RadarBatch

__all__ = ["RADAR_PREDICTIONS_FILE", "require_same_frames", "score_and_write", "score_radar_predictions"]

RADAR_PREDICTIONS_FILE = "predictions.npz"


def score_and_write(
    model: RadarModel,
    batches: Iterable[RadarBatch],
    evaluations: Sequence[RadarEvaluation],
    folder: Path,
    device: torch.device,
) -> list[dict[str, float]]:
    """Metrics of a model; its predictions are written to ``predictions.npz`` in ``folder``.

    Arguments, result and errors are otherwise those of ``score_radar_model``.
    """
    dataset, path = evaluations[0].dataset, folder / RADAR_PREDICTIONS_FILE
    with RadarPredictionWriter(path, dataset.class_names, dataset.grid) as writer:
        metrics = score_radar_model(evaluations, model, batches, device=device, writer=writer)
    say(f"wrote {path}")
    return metrics


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
