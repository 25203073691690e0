"""Probes of an encoder without fine-tuning: kNN, linear classifier, covariance spectrum, on labelled frames.

Every encoder is treated alike, random ones included: its batch-norm statistics are re-estimated on whole clouds of
training frames, then features of training frames (without augmentation) are the bank, those of validation frames the
queries. A feature is a site of the encoder's output, 128 channels at a layer of a bird's-eye-view cell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from adperception.checkpoint.encoder import load_encoder
from adperception.config import Config
from adperception.engine.data import ValidationBatches
from adperception.engine.randomness import seed_everything
from adperception.engine.settings import Settings, parse_settings
from adperception.evaluation.batch_norm_statistics import with_reestimated_batch_norm
from adperception.evaluation.label_probes import (
    BACKGROUND,
    class_accuracies,
    knn_probe,
    linear_probe,
    site_labels,
)
from adperception.evaluation.representation import Moments, covariance_spectrum, effective_rank, spectrum_area
from adperception.models.backbones.voxel_backbone_8x import BEV_STRIDE, VoxelBackBone8x, bev_layers
from adperception.models.base import Losses
from adperception.models.pretrain.voxel_pretraining import BEV_CHANNELS, VoxelPretraining
from adperception.registry import DATASETS, PREPARATIONS, build
from adperception.structures import LidarBatch

__all__ = ["RANDOM", "ProbeData", "ProbeOptions", "probe_data", "probe_encoder"]

RANDOM = "random"
"""Name of an encoder as it is initialised."""


@dataclass(frozen=True)
class ProbeOptions:
    """How much is measured.

    Attributes:
        train_frames: first training frames, for the bank.
        val_frames: first validation frames, for the queries.
        features_per_class: at most so many of each class, in the bank and in the queries.
        statistics_batches: batches for the batch-norm statistics.
        seed: of random encoders and of which features are drawn.
    """

    train_frames: int = 500
    val_frames: int = 500
    features_per_class: int = 10_000
    statistics_batches: int = 15
    seed: int = 0


@dataclass(frozen=True)
class ProbeData:
    """Frames and geometry of a config, for any number of encoders.

    Attributes:
        bank: batches of labelled training frames.
        queries: batches of labelled validation frames.
        class_names: the classes to tell apart, background not among them.
        model_options: geometry of the encoder.
        device: where to compute.
    """

    bank: ValidationBatches
    queries: ValidationBatches
    class_names: tuple[str, ...]
    model_options: dict[str, Any]
    device: torch.device


class _EncoderOnly(VoxelPretraining):
    """An encoder that sees whole clouds."""

    ENCODERS: ClassVar[dict[str, str]] = {"encoder": "encoder."}

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.encoder = VoxelBackBone8x(self.in_channels, self.grid, BEV_CHANNELS)

    def forward(self, batch: LidarBatch, generator: torch.Generator | None = None) -> Losses:
        """Nothing to be trained; only there to let batches through, for the batch-norm statistics."""
        return Losses(self.encoder(batch.voxels).mean())


def probe_data(config: Config, options: ProbeOptions, device: torch.device, workers: int = 0) -> ProbeData:
    """Training and validation frames of a config, both without augmentation and with the labels of all classes.

    Raises:
        ValueError: if there is no ``val_dataset``, no class to tell apart, or the frames have no labels.
    """
    settings = parse_settings(config.values)
    if settings.val_dataset is None:
        raise ValueError(f"{config.path}: the probes need a val_dataset.")
    classes = _class_names(config, settings)
    if settings.prepare is not None:
        build(PREPARATIONS, settings.prepare)()
    defaults = {"in_channels": 4, "max_points_per_voxel": 5, "max_voxels_train": 16_000, "max_voxels_test": 40_000}
    names = ("point_cloud_range", "voxel_size", *defaults)
    model = {**defaults, **{name: settings.model[name] for name in names if name in settings.model}}
    collate = _EncoderOnly(**model).collate(training=False)
    batches = []
    for section, limit in (
        (settings.train_dataset, options.train_frames),
        (settings.val_dataset, options.val_frames),
    ):
        dropped = ("transforms", "classes", "replace_empty_frames")
        dataset = build(DATASETS, {key: value for key, value in section.items() if key not in dropped})
        batches.append(
            ValidationBatches(
                dataset, settings.train.batch_size, 0, collate, workers, device, range(min(limit, len(dataset)))
            )
        )
    return ProbeData(batches[0], batches[1], classes, model, device)


def probe_encoder(data: ProbeData, weights: Path | str, options: ProbeOptions) -> dict[str, float]:
    """Probe one encoder.

    Args:
        data: frames, from ``probe_data``.
        weights: checkpoint or weights file of any model with this encoder, or ``"random"``.
        options: how much.

    Returns:
        Accuracies in 0..1 ``knn_<class>``, ``knn_mean``, ``linear_<class>``, ``linear_mean`` (background is a class),
        and of the features of all occupied sites of the bank ``effective_rank``, ``spectrum_area`` and
        ``off_diagonal_covariance`` (sum of the squared covariances of different channels, over channels).

    Raises:
        CheckpointError: if the weights are not those of such an encoder.
        ValueError: for frames without labels.
    """
    seed_everything(options.seed, deterministic=False)
    model = _EncoderOnly(**data.model_options)
    if str(weights) != RANDOM:
        load_encoder(model, weights)
    ready = with_reestimated_batch_norm(
        model.to(data.device), data.bank, device=data.device, count=options.statistics_batches
    )
    names = (*data.class_names, BACKGROUND)
    bank, bank_classes, moments = _collect(ready, data, data.bank, options, 0)
    queries, query_classes, _ = _collect(ready, data, data.queries, options, 1)
    if not len(bank) or not len(queries):
        raise ValueError("the probes found no occupied site in the frames; check range and data of the config.")
    values: dict[str, float] = {}
    for probe, called in (
        ("knn", knn_probe(bank, bank_classes, queries, len(names))),
        ("linear", linear_probe(bank, bank_classes, queries, len(names))),
    ):
        found = class_accuracies(called, query_classes, names)
        values |= {f"{probe}_{name}": value for name, value in found.items()}
    covariance, spectrum = moments.covariance(), covariance_spectrum(moments)
    off_diagonal = covariance.square().sum() - covariance.diagonal().square().sum()
    return values | {
        "effective_rank": effective_rank(spectrum),
        "spectrum_area": spectrum_area(spectrum),
        "off_diagonal_covariance": float(off_diagonal) / len(covariance),
    }


def _class_names(config: Config, settings: Settings) -> tuple[str, ...]:
    """Those of the training frames, else those of the detector."""
    names = settings.train_dataset.get("classes") or [c["name"] for c in settings.model.get("classes", ())]
    if not names:
        raise ValueError(
            f"{config.path}: which classes should the probes tell apart? Take a detector's config, or set "
            "train_dataset.classes, e.g. --cfg-options \"train_dataset.classes=['Car']\"."
        )
    return tuple(names)


@torch.no_grad()
def _collect(
    model: _EncoderOnly, data: ProbeData, batches: ValidationBatches, options: ProbeOptions, stream: int
) -> tuple[Tensor, Tensor, Moments]:
    """Features and classes of labelled sites, at most so many per class, and the moments of all of them."""
    layers = bev_layers(model.grid.shape_zyx[0])
    limit = options.features_per_class
    per_frame = math.ceil(limit / len(batches.frames))
    generator = np.random.default_rng([options.seed, stream])
    rows: list[list[Tensor]] = [[] for _ in range(len(data.class_names) + 1)]
    moments: Moments | None = None
    for batch in batches:
        if batch.boxes is None:
            raise ValueError(f"frame {batch.frame_ids[0]} has no labels; the probes compare features with labels.")
        bev = model.encoder(batch.voxels.to(data.device))
        maps = bev.reshape(len(batch), -1, layers, *bev.shape[2:]).cpu()
        for features, points, boxes in zip(maps, batch.points, batch.boxes, strict=True):
            labels = site_labels(points.numpy(), boxes, data.class_names, model.grid, layers, BEV_STRIDE)
            layer, y, x = torch.from_numpy(labels.sites).unbind(1)
            own = features[:, layer, y, x].T
            frame_moments = Moments.of(own)
            moments = frame_moments if moments is None else moments + frame_moments
            for number, part in enumerate(rows):
                chosen = np.flatnonzero(labels.classes == number)
                # Objects are rare and all kept for now; background comes evenly from all frames.
                if number == len(data.class_names) and len(chosen) > per_frame:
                    chosen = generator.choice(chosen, per_frame, replace=False)
                part.append(own[torch.from_numpy(np.sort(chosen))])
    assert moments is not None
    features_by_class = []
    for part in rows:
        joined = torch.cat(part)
        if len(joined) > limit:
            joined = joined[torch.from_numpy(np.sort(generator.choice(len(joined), limit, replace=False)))]
        features_by_class.append(joined)
    classes = [torch.full((len(part),), number) for number, part in enumerate(features_by_class)]
    return torch.cat(features_by_class), torch.cat(classes), moments
