"""Evaluate a trained detector, or predictions that were written before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from adperception.checkpoint.load import load_weights
from adperception.config import Config
from adperception.engine.console import say
from adperception.engine.data import FrameDataset, ValidationBatches
from adperception.engine.results import RESULTS_FILE, describe_machine, write_json
from adperception.engine.run import check_names
from adperception.engine.settings import Settings, parse_settings
from adperception.evaluation.detection_evaluation import DetectionEvaluation
from adperception.evaluation.predictions import predict_frames, read_predictions, write_predictions
from adperception.models.base import DetectionModel
from adperception.registry import DATASETS, EVALUATIONS, MODELS, PREPARATIONS, build
from adperception.structures import Detections

__all__ = ["PREDICTIONS_FILE", "evaluate_predictions", "evaluate_weights"]

PREDICTIONS_FILE = "predictions.jsonl"


def evaluate_weights(
    config: Config, weights: Path, folder: Path, device: torch.device, workers: int = 0
) -> dict[str, float]:
    """Predict every validation frame of a config, write the predictions, then compute the metrics.

    Args:
        config: a detector's config with ``val_dataset`` and ``evaluations``.
        weights: a checkpoint directory or weights file of the whole detector.
        folder: where ``predictions.jsonl`` and ``results.json`` go.
        device: where to compute.
        workers: data-loading processes.

    Raises:
        ValueError: if the config has no detector, validation frames or detection evaluation.
        CheckpointError: if the weights do not fit.
    """
    settings, dataset, evaluations = _parts(config)
    model = build(MODELS, settings.model)
    if not isinstance(model, DetectionModel):
        raise ValueError(f"{config.name}: {type(model).__name__} is no detector; there is nothing to evaluate.")
    say(f"{weights}: {load_weights(model, weights)}")
    batches = ValidationBatches(
        dataset=dataset,
        batch_size=settings.train.batch_size,
        seed=settings.seed,
        collate=model.collate(training=False),
        workers=workers,
        device=device,
    )
    predictions = predict_frames(model.to(device), batches, device=device)
    path = folder / PREDICTIONS_FILE
    write_predictions(path, predictions)
    say(f"wrote {path}: {sum(map(len, predictions.values()))} boxes in {len(predictions)} frames")
    origin = {"weights": str(weights), **describe_machine(device)}
    return _score(config, evaluations, predictions, folder, origin)


def evaluate_predictions(config: Config, path: Path, folder: Path) -> dict[str, float]:
    """Compute the metrics of stored predictions; no model is built.

    Raises:
        ValueError: if frames of the validation set have no predictions, or the file has frames of another set.
    """
    _, dataset, evaluations = _parts(config)
    predictions = read_predictions(path)
    missing = [name for name in dataset.frame_ids if name not in predictions]
    known = set(dataset.frame_ids)
    strange = [name for name in predictions if name not in known]
    if missing or strange:
        count, which, first = (
            (len(missing), "validation frames have no line in it", missing[0])
            if missing
            else (len(strange), "of its frames are not in the validation set", strange[0])
        )
        raise ValueError(
            f"{path}: {count} {which} (first: {first}). It was written for another dataset or split than the "
            f"val_dataset of {config.name}, or it is incomplete."
        )
    say(f"read {path}: {sum(map(len, predictions.values()))} boxes in {len(predictions)} frames")
    return _score(config, evaluations, predictions, folder, {"predictions": str(path)})


def _parts(config: Config) -> tuple[Settings, FrameDataset, list[DetectionEvaluation]]:
    settings = parse_settings(config.values)
    check_names(settings)
    if settings.val_dataset is None or not settings.evaluations:
        raise ValueError(f"{config.name}: the config needs val_dataset and evaluations to be evaluated.")
    if settings.prepare is not None:
        build(PREPARATIONS, settings.prepare)()
    dataset: FrameDataset = build(DATASETS, settings.val_dataset)
    built = [build(EVALUATIONS, section) for section in settings.evaluations]
    evaluations = [evaluation for evaluation in built if isinstance(evaluation, DetectionEvaluation)]
    if not evaluations:
        raise ValueError(
            f"{config.name}: none of its evaluations ({', '.join(type(e).__name__ for e in built)}) compares boxes. "
            'Add one, e.g. evaluations = [dict(type="KittiAP")].'
        )
    for evaluation in evaluations:
        evaluation.bind(dataset)
    return settings, dataset, evaluations


def _score(
    config: Config,
    evaluations: Sequence[DetectionEvaluation],
    predictions: Mapping[str, Detections],
    folder: Path,
    origin: Mapping[str, Any],
) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for evaluation in evaluations:
        found = evaluation.score(predictions)
        say("\n" + evaluation.report(found) + "\n")
        metrics.update(found)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RESULTS_FILE
    write_json(path, {"config": config.name, "frames": len(predictions), **origin, "metrics": metrics})
    say(f"wrote {path}")
    return metrics
