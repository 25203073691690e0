"""Evaluate a trained model that predicts, or predictions that were written before: LiDAR detectors and radar models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from adperception.checkpoint.load import load_weights
from adperception.config import Config
from adperception.datasets.radar_dataset import RadarDataset
from adperception.engine.console import say
from adperception.engine.data import FrameDataset, ValidationBatches
from adperception.engine.evaluate_radar import require_same_frames, score_and_write, score_radar_predictions
from adperception.engine.results import RESULTS_FILE, describe_machine, write_json
from adperception.engine.run import check_names
from adperception.engine.settings import Settings, parse_settings
from adperception.evaluation.base import PredictionEvaluation
from adperception.evaluation.detection_evaluation import DetectionEvaluation
from adperception.evaluation.predictions import predict_frames, read_predictions, write_predictions
from adperception.evaluation.radar_evaluation import RadarEvaluation
from adperception.models.base import DetectionModel, PredictionModel
from adperception.models.radar.base import RadarModel
from adperception.registry import DATASETS, EVALUATIONS, MODELS, PREPARATIONS, build

__all__ = ["PREDICTIONS_FILE", "evaluate_model", "evaluate_predictions", "evaluate_weights"]

PREDICTIONS_FILE = "predictions.jsonl"


def evaluate_weights(
    config: Config, weights: Path, folder: Path, device: torch.device, workers: int = 0
) -> dict[str, float]:
    """Predict every validation frame of a config, write the predictions, then compute the metrics.

    Args:
        config: a config with ``val_dataset`` and ``evaluations`` of a detector or a radar model.
        weights: a checkpoint directory or weights file of the whole model.
        folder: where the predictions (``predictions.jsonl``, radar: ``predictions.npz``) and ``results.json`` go.
        device: where to compute.
        workers: data-loading processes.

    Raises:
        ValueError: if the config has no model that predicts, no validation frames or no evaluation of predictions.
        CheckpointError: if the weights do not fit.
    """
    model = build(MODELS, parse_settings(config.values).model)
    if not isinstance(model, PredictionModel):
        raise ValueError(f"{config.name}: {type(model).__name__} predicts nothing; there is nothing to evaluate.")
    say(f"{weights}: {load_weights(model, weights)}")
    origin = {"weights": str(weights), **describe_machine(device)}
    return evaluate_model(config, model, origin, folder, device, workers)


def evaluate_model(
    config: Config,
    model: PredictionModel,
    origin: Mapping[str, Any],
    folder: Path,
    device: torch.device,
    workers: int = 0,
) -> dict[str, float]:
    """As ``evaluate_weights``, with a model that is there already.

    Args:
        config: says on which frames and how it is judged.
        model: what predicts.
        origin: what it is, for ``results.json``.
        folder: where predictions and results go.
        device: where to compute.
        workers: data-loading processes.
    """
    settings, dataset, evaluations = _parts(config)
    batches = ValidationBatches(
        dataset=dataset,
        batch_size=settings.train.batch_size,
        seed=settings.seed,
        collate=model.collate(training=False),
        workers=workers,
        device=device,
    )
    model.to(device)
    if isinstance(model, RadarModel):
        radar = [e for e in evaluations if isinstance(e, RadarEvaluation)]
        _require_all(evaluations, radar, model)
        metrics = score_and_write(model, batches, radar, folder, device)
    elif isinstance(model, DetectionModel):
        boxes = [e for e in evaluations if isinstance(e, DetectionEvaluation)]
        _require_all(evaluations, boxes, model)
        predictions = predict_frames(model, batches, device=device)
        path = folder / PREDICTIONS_FILE
        write_predictions(path, predictions)
        say(f"wrote {path}: {sum(map(len, predictions.values()))} boxes in {len(predictions)} frames")
        metrics = [evaluation.score(predictions) for evaluation in boxes]
    else:
        metrics = [e(model, batches, device=device, step=0) for e in evaluations]
    return _report(config, evaluations, metrics, len(dataset), folder, origin)


def evaluate_predictions(config: Config, path: Path, folder: Path) -> dict[str, float]:
    """Compute the metrics of stored predictions; no model is built.

    Raises:
        ValueError: if frames of the validation set have no predictions, or the file has frames of another set.
    """
    _, dataset, evaluations = _parts(config)
    if isinstance(dataset, RadarDataset):
        radar = [e for e in evaluations if isinstance(e, RadarEvaluation)]
        _require_all(evaluations, radar, dataset)
        metrics = score_radar_predictions(path, dataset, radar)
    else:
        boxes = [e for e in evaluations if isinstance(e, DetectionEvaluation)]
        _require_all(evaluations, boxes, dataset)
        predictions = read_predictions(path)
        require_same_frames(path, predictions, dataset.frame_ids)
        say(f"read {path}: {sum(map(len, predictions.values()))} boxes in {len(predictions)} frames")
        metrics = [evaluation.score(predictions) for evaluation in boxes]
    return _report(config, evaluations, metrics, len(dataset), folder, {"predictions": str(path)})


def _parts(config: Config) -> tuple[Settings, FrameDataset, list[PredictionEvaluation]]:
    settings = parse_settings(config.values)
    check_names(settings)
    if settings.val_dataset is None or not settings.evaluations:
        raise ValueError(f"{config.name}: the config needs val_dataset and evaluations to be evaluated.")
    if settings.prepare is not None:
        build(PREPARATIONS, settings.prepare)()
    dataset: FrameDataset = build(DATASETS, settings.val_dataset)
    built = [build(EVALUATIONS, section) for section in settings.evaluations]
    evaluations = [evaluation for evaluation in built if isinstance(evaluation, PredictionEvaluation)]
    if not evaluations:
        raise ValueError(
            f"{config.name}: none of its evaluations ({', '.join(type(e).__name__ for e in built)}) judges "
            'predictions. Add one, e.g. evaluations = [dict(type="KittiAP")], or dict(type="RadarSegmentation") for '
            "radar."
        )
    for evaluation in evaluations:
        evaluation.bind(dataset)
    return settings, dataset, evaluations


def _require_all(
    evaluations: Sequence[PredictionEvaluation], able: Sequence[PredictionEvaluation], judged: object
) -> None:
    """Refuse evaluations that cannot judge this model or dataset."""
    for evaluation in evaluations:
        if evaluation not in able:
            raise ValueError(
                f"{type(evaluation).__name__} cannot judge {type(judged).__name__}. Take it out of evaluations=."
            )


def _report(
    config: Config,
    evaluations: Sequence[PredictionEvaluation],
    found: Sequence[Mapping[str, float]],
    frames: int,
    folder: Path,
    origin: Mapping[str, Any],
) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for evaluation, own in zip(evaluations, found, strict=True):
        say("\n" + evaluation.report(own) + "\n")
        metrics.update(own)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / RESULTS_FILE
    write_json(path, {"config": config.name, "frames": frames, **origin, "metrics": metrics})
    say(f"wrote {path}")
    return metrics
