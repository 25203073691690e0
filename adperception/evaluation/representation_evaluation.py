"""Evaluation of a pre-training run: validation loss, collapse monitor, occupancy probes."""

from __future__ import annotations

import logging
import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from adperception.evaluation.batch_norm_statistics import (
    mask_generator,
    untouched_rng,
    with_reestimated_batch_norm,
)
from adperception.evaluation.pretraining_model import Embeddings, as_pretraining_model
from adperception.evaluation.representation import (
    Moments,
    cosine_empty_probe,
    covariance_spectrum,
    effective_rank,
    k_means_foreground_probe,
    mean_cosine,
    mean_cross_cosine,
    mean_pair_cosine,
    spectrum_area,
    standard_deviation,
)
from adperception.registry import EVALUATIONS
from adperception.structures import LidarBatch

__all__ = ["ALARM_EFFECTIVE_RANK", "ALARM_STANDARD_DEVIATION", "RepresentationEvaluation"]

ALARM_EFFECTIVE_RANK = 16.0
ALARM_STANDARD_DEVIATION = 0.01

_LOG = logging.getLogger(__name__)

_MINIMUM_STATISTICS_BATCHES = 15
# Upper limit of hidden cells per frame for the probes: 51 frames then need 214 MB in float32 with 256 channels.
_PROBE_CELLS_PER_FRAME = 4096


@EVALUATIONS.register_module()
class RepresentationEvaluation:
    """Measures a joint-embedding model on validation frames with fixed masks, and sounds the collapse alarm.

    Everything is computed on a copy of the model whose batch-norm statistics were re-estimated (see
    :mod:`adperception.evaluation.batch_norm_statistics`). The loss covers all batches; the measures of the
    embeddings cover the first ``probe_frames`` frames.

    Args:
        every_epochs: how often the engine calls this.
        statistics_batches: batches for the batch-norm statistics, 15 or more.
        probe_frames: frames whose embeddings are measured (51 as in the AD-L-JEPA protocol).
        alarm_effective_rank: alarm below this effective rank of the context embeddings.
        alarm_standard_deviation: alarm if the mean over dimensions of the standard deviation is below this. Unit
            vectors that use all of 256 dimensions reach 1/16.
        mask_seed: the masks of batch i are a function of this and i alone, so losses of two epochs compare.

    Raises:
        ValueError: for an option outside its range.
    """

    def __init__(
        self,
        every_epochs: int = 1,
        statistics_batches: int = _MINIMUM_STATISTICS_BATCHES,
        probe_frames: int = 51,
        alarm_effective_rank: float = ALARM_EFFECTIVE_RANK,
        alarm_standard_deviation: float = ALARM_STANDARD_DEVIATION,
        mask_seed: int = 0,
    ) -> None:
        if statistics_batches < _MINIMUM_STATISTICS_BATCHES:
            raise ValueError(
                f"RepresentationEvaluation: statistics_batches={statistics_batches} is too few for steady batch-norm "
                f"statistics. Use {_MINIMUM_STATISTICS_BATCHES} or more; batches are reused with other masks."
            )
        for name, value in (("every_epochs", every_epochs), ("probe_frames", probe_frames)):
            if value < 1:
                raise ValueError(f"RepresentationEvaluation: {name}={value} must be 1 or more.")
        self.every_epochs = every_epochs
        self.statistics_batches = statistics_batches
        self.probe_frames = probe_frames
        self.alarm_effective_rank = alarm_effective_rank
        self.alarm_standard_deviation = alarm_standard_deviation
        self.mask_seed = mask_seed
        self.headline: tuple[str, ...] = (
            "val_loss",
            "effective_rank",
            "standard_deviation_mean",
            "prediction_target_cosine",
            "context_target_pair_cosine",
            "k_means_foreground_iou",
        )

    @torch.no_grad()
    def __call__(
        self, model: nn.Module, batches: Iterable[LidarBatch], *, device: torch.device | str, step: int
    ) -> dict[str, float]:
        """Measure ``model`` and leave it, and the global random state, as they were.

        Args:
            model: a joint-embedding pre-training model on ``device``.
            batches: re-iterable of validation batches in a fixed order.
            device: where to compute.
            step: optimizer steps done so far, for the messages.

        Returns:
            ``val_loss`` and ``val_loss_<term>`` (means over frames), and the measures listed in docs/evaluation.md. A
            measure without any cell to be measured at is NaN.
        """
        as_pretraining_model(model)
        device = torch.device(device)
        with untouched_rng(device):
            copy = with_reestimated_batch_norm(
                model, batches, device=device, count=self.statistics_batches, mask_seed=self.mask_seed
            )
            _LOG.info(
                "step %d: batch-norm statistics re-estimated over %d batches, on a copy of the model",
                step,
                self.statistics_batches,
            )
            values, collected = self._run(copy, batches, device)
        values |= collected.measures(self.mask_seed)
        self._alarm(values, step)
        return values

    def _run(
        self, model: nn.Module, batches: Iterable[LidarBatch], device: torch.device
    ) -> tuple[dict[str, float], _Collected]:
        """Losses over all batches, embeddings of the first frames."""
        measured = as_pretraining_model(model)
        sums: dict[str, float] = defaultdict(float)
        collected = _Collected(measured.empty_token)
        frames = 0
        for index, cpu_batch in enumerate(batches):
            batch = cpu_batch.to(device)
            embeddings = measured.embed(batch, mask_generator(self.mask_seed, 0, index))
            losses = measured.losses(embeddings)
            for name, value in {**losses.terms, "loss": losses.total}.items():
                if name.startswith("loss"):  # other terms are statistics, measured better below
                    sums[f"val_{name}"] += float(value) * len(batch)
            if frames < self.probe_frames:
                collected.add(embeddings, mask_generator(self.mask_seed, 2, index))
            frames += len(batch)
        return {name: value / frames for name, value in sums.items()}, collected

    def _alarm(self, values: dict[str, float], step: int) -> None:
        """Say in a sentence what collapsed, by how much, and what to do."""
        for what, value, threshold in (
            ("effective rank", values["effective_rank"], self.alarm_effective_rank),
            ("mean standard deviation", values["standard_deviation_mean"], self.alarm_standard_deviation),
        ):
            if math.isnan(value):
                _LOG.warning("step %d: no visible occupied cell in the validation frames, %s unknown", step, what)
            elif value < threshold:
                _LOG.warning(
                    "COLLAPSE ALARM at step %d: %s of the context embeddings is %.4g, below %.4g. The encoder maps "
                    "different places to nearly the same vector. Raise the variance weight of the loss, lower the "
                    "learning rate, or go back to an earlier checkpoint; see docs/evaluation.md.",
                    step,
                    what,
                    value,
                    threshold,
                )


@dataclass
class _Collected:
    """What is kept of the embeddings while the batches go by."""

    empty_token: Tensor
    context: list[Moments] = field(default_factory=list)
    target: list[Moments] = field(default_factory=list)
    prediction: list[Moments] = field(default_factory=list)
    cosines: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    probe: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def add(self, embeddings: Embeddings, generator: torch.Generator) -> None:
        masks = embeddings.masks
        context, prediction, target = (
            m.movedim(1, -1) for m in (embeddings.context, embeddings.prediction, embeddings.target)
        )
        self.context.append(Moments.of(context[masks.context_cells]))
        self.target.append(Moments.of(target[masks.target_cells]))
        self.prediction.append(Moments.of(prediction[masks.target_cells]))
        for name, other, cells in (
            ("prediction_target_cosine", target, masks.target_cells),
            ("prediction_target_cosine_empty", target, masks.target_empty),
            ("prediction_context_cosine", context, masks.context_cells),
        ):
            count = int(cells.sum())
            if count:
                self.cosines[name].append((mean_cosine(prediction[cells], other[cells]), count))
        hidden = masks.target_cells | masks.target_empty
        rows, occupied = prediction[hidden].float().cpu(), masks.target_cells[hidden].cpu()
        limit = _PROBE_CELLS_PER_FRAME * hidden.shape[0]
        if len(rows) > limit:
            drawn = torch.randperm(len(rows), generator=generator)[:limit]
            rows, occupied = rows[drawn], occupied[drawn]
        self.probe.append((rows, occupied))

    def measures(self, seed: int) -> dict[str, float]:
        context, target, prediction = (_pooled(m) for m in (self.context, self.target, self.prediction))
        spectrum, deviation = covariance_spectrum(context), standard_deviation(context)
        values = {
            "effective_rank": effective_rank(spectrum),
            "spectrum_area": spectrum_area(spectrum),
            "standard_deviation_min": float(deviation.min()),
            "standard_deviation_mean": float(deviation.mean()),
            "standard_deviation_max": float(deviation.max()),
            "context_pair_cosine": mean_pair_cosine(context),
            "target_pair_cosine": mean_pair_cosine(target),
            "prediction_pair_cosine": mean_pair_cosine(prediction),
            "context_target_pair_cosine": mean_cross_cosine(context, target),
        }
        for name in ("prediction_target_cosine", "prediction_target_cosine_empty", "prediction_context_cosine"):
            parts = self.cosines[name]
            cells = sum(count for _, count in parts)
            values[name] = sum(value * count for value, count in parts) / cells if cells else math.nan
        rows = torch.cat([rows for rows, _ in self.probe])
        occupied = torch.cat([occupied for _, occupied in self.probe])
        clusters = k_means_foreground_probe(rows, occupied, mask_generator(seed, 3))
        probe = cosine_empty_probe(rows, self.empty_token.cpu(), occupied)
        return values | {
            "k_means_foreground_iou": clusters.foreground,
            "k_means_empty_iou": clusters.empty,
            "cosine_probe_foreground_iou": probe.foreground,
            "cosine_probe_empty_iou": probe.empty,
        }


def _pooled(parts: list[Moments]) -> Moments:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
