"""Evaluation of a pre-training run of any method: validation loss, and how much of its space the encoder uses."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adperception.evaluation.batch_norm_statistics import (
    mask_generator,
    untouched_rng,
    with_reestimated_batch_norm,
)
from adperception.evaluation.representation import (
    Moments,
    covariance_spectrum,
    effective_rank,
    mean_pair_cosine,
    spectrum_area,
    standard_deviation,
)
from adperception.models.backbones.voxel_backbone_8x import BEV_STRIDE
from adperception.registry import EVALUATIONS
from adperception.structures import LidarBatch, Voxels

__all__ = ["EncoderEvaluation", "occupied_rows"]

_MINIMUM_STATISTICS_BATCHES = 15


@EVALUATIONS.register_module()
class EncoderEvaluation:
    """Measures the encoder of a reconstruction method (Occupancy-MAE, BEV-MAE) on validation frames.

    Everything is computed on a copy of the model whose batch-norm statistics were re-estimated (see
    :mod:`adperception.evaluation.batch_norm_statistics`). The loss covers all batches, with fixed masks; the measures
    of the encoder's map of whole clouds cover the first ``probe_frames`` frames.

    Args:
        every_epochs: how often the engine calls this.
        statistics_batches: batches for the batch-norm statistics, 15 or more.
        probe_frames: frames whose maps are measured.
        mask_seed: the masks of batch i are a function of this and i alone, so losses of two epochs compare.

    Raises:
        ValueError: for an option outside its range.
    """

    def __init__(
        self,
        every_epochs: int = 1,
        statistics_batches: int = _MINIMUM_STATISTICS_BATCHES,
        probe_frames: int = 51,
        mask_seed: int = 0,
    ) -> None:
        if statistics_batches < _MINIMUM_STATISTICS_BATCHES:
            raise ValueError(
                f"EncoderEvaluation: statistics_batches={statistics_batches} is too few for steady batch-norm "
                f"statistics. Use {_MINIMUM_STATISTICS_BATCHES} or more; batches are reused with other masks."
            )
        for name, value in (("every_epochs", every_epochs), ("probe_frames", probe_frames)):
            if value < 1:
                raise ValueError(f"EncoderEvaluation: {name}={value} must be 1 or more.")
        self.every_epochs = every_epochs
        self.statistics_batches = statistics_batches
        self.probe_frames = probe_frames
        self.mask_seed = mask_seed
        self.headline: tuple[str, ...] = ("val_loss", "effective_rank", "standard_deviation_mean")

    @torch.no_grad()
    def __call__(
        self, model: nn.Module, batches: Iterable[LidarBatch], *, device: torch.device | str, step: int
    ) -> dict[str, float]:
        """Measure ``model`` and leave it, and the global random state, as they were.

        Args:
            model: a pre-training model with an ``online_encoder`` on ``device``.
            batches: re-iterable of validation batches in a fixed order.
            device: where to compute.
            step: optimizer steps done so far.

        Returns:
            ``val_loss`` and ``val_loss_<term>`` (means over frames), and of the unit-length rows of the encoder's map
            at occupied cells ``effective_rank``, ``spectrum_area``, ``standard_deviation_mean`` and
            ``encoder_pair_cosine``.

        Raises:
            ValueError: if the model has no such encoder.
        """
        if not hasattr(model, "online_encoder"):
            raise ValueError(
                f"{type(model).__name__} has no online_encoder: only pre-training models of voxel encoders can be "
                "measured this way. Remove EncoderEvaluation from `evaluations` of the config."
            )
        device = torch.device(device)
        with untouched_rng(device):
            copy = with_reestimated_batch_norm(
                model, batches, device=device, count=self.statistics_batches, mask_seed=self.mask_seed
            )
            encoder = cast(nn.Module, copy.online_encoder)
            sums: dict[str, float] = defaultdict(float)
            moments: Moments | None = None
            frames = 0
            for index, cpu_batch in enumerate(batches):
                batch = cpu_batch.to(device)
                losses = copy(batch, mask_generator(self.mask_seed, 0, index))
                for name, value in {**losses.terms, "loss": losses.total}.items():
                    if name.startswith("loss"):
                        sums[f"val_{name}"] += float(value) * len(batch)
                if frames < self.probe_frames:
                    rows = Moments.of(occupied_rows(encoder(batch.voxels), batch.voxels))
                    moments = rows if moments is None else moments + rows
                frames += len(batch)
        assert moments is not None  # an empty set was refused above
        spectrum = covariance_spectrum(moments)
        return {name: value / frames for name, value in sums.items()} | {
            "effective_rank": effective_rank(spectrum),
            "spectrum_area": spectrum_area(spectrum),
            "standard_deviation_mean": float(standard_deviation(moments).mean()),
            "encoder_pair_cosine": mean_pair_cosine(moments),
        }


def occupied_rows(bev: Tensor, voxels: Voxels) -> Tensor:
    """Rows of unit length ``(n, C)`` of a map ``(B, C, H, W)`` at the cells (8 x 8 voxels) that hold a voxel."""
    batch, _, y, x = voxels.coordinates.long().unbind(1)
    cells = torch.zeros(bev.shape[0], *bev.shape[2:], dtype=torch.bool, device=bev.device)
    cells[batch, y // BEV_STRIDE, x // BEV_STRIDE] = True
    return F.normalize(bev.permute(0, 2, 3, 1)[cells], dim=1)
