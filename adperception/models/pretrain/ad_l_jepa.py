"""AD-L-JEPA: self-supervised pre-training of a LiDAR encoder by predicting embeddings in bird's-eye view.

Zhu et al., "AD-L-JEPA: Self-Supervised Spatial World Models with Joint Embedding Predictive Architecture for
Autonomous Driving with LiDAR Data", AAAI 2026 (arXiv 2501.04969). The context encoder sees the visible cells of a
scan, the target encoder (a moving average of it) the hidden ones; a small CNN predicts the target's embeddings of
hidden cells, occupied or empty, from the context's. A hinge on the spread of the embeddings prevents collapse.

What differs from the released code, on purpose: the momentum of the moving average follows the global step, so that a
resumed run continues it; frozen tokens take no part in gradient clipping; samples with fewer than two cells are left
out of the variance terms instead of making them NaN; masks can hold their share per sample.

Shape legend: B batch, V voxels, C = 256 channels, H x W bird's-eye-view cells.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adperception.losses.bev_cosine import bev_cosine
from adperception.losses.variance_regularizer import variance_regularizer
from adperception.models.backbones.voxel_backbone_8x import BEV_STRIDE, VoxelBackBone8x
from adperception.models.base import Losses
from adperception.models.pretrain.bev_masking import BevMasks, draw_bev_masks, non_empty_cells
from adperception.models.pretrain.voxel_pretraining import BEV_CHANNELS, VoxelPretraining, select_voxels
from adperception.registry import MODELS
from adperception.structures import LidarBatch, Voxels

__all__ = ["ADLJEPA", "Embeddings", "Predictor", "ema_momentum"]

CELL_WEIGHT, EMPTY_WEIGHT = 0.75, 0.25
"""Weights of occupied and empty hidden cells in the prediction loss (the paper's alpha_1, alpha_0)."""


@dataclass(frozen=True)
class Embeddings:
    """What one forward pass of the method looks like.

    Attributes:
        context: ``(B, 256, H, W)`` context embeddings with tokens at hidden and empty cells (z_c).
        prediction: ``(B, 256, H, W)`` predictions (s_c).
        target: ``(B, 256, H, W)`` target embeddings (s_t), without gradient; meaningful at target cells only.
        masks: which cell is which.

    All three have unit norm over channels.
    """

    context: Tensor
    prediction: Tensor
    target: Tensor
    masks: BevMasks


class Predictor(nn.Module):
    """Three 3 x 3 convolutions with batch norm and ReLU over the whole map, ``(B, 256, H, W)`` to the same shape."""

    def __init__(self, channels: int = BEV_CHANNELS) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (
            nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(inplace=True))
            for _ in range(3)
        )

    def forward(self, bev: Tensor) -> Tensor:
        """Predict."""
        return self.conv3(self.conv2(self.conv1(bev)))  # type: ignore[no-any-return]


def ema_momentum(step: int, total_steps: int, start: float = 0.996) -> float:
    """Momentum of the target encoder after optimizer step ``step`` (0, 1, ...): linear from ``start`` towards 1."""
    return start + (1.0 - start) * step / total_steps


@MODELS.register_module()
class ADLJEPA(VoxelPretraining):
    """AD-L-JEPA pre-training.

    Args:
        point_cloud_range: ``(x_min, y_min, z_min, x_max, y_max, z_max)`` in metres.
        voxel_size: ``(x, y, z)`` in metres.
        in_channels: channels per point (4: x, y, z, intensity; 5 with Waymo's elongation).
        max_points_per_voxel: points averaged per voxel, the first ones; ``None`` averages all.
        max_voxels_train: voxels kept per frame in training, the first ones.
        max_voxels_test: likewise in evaluation.
        mask_ratio: share of hidden cells (r).
        mask_per: ``"batch"`` or ``"sample"``: where the share of occupied cells is held exactly.
        token_mode: ``"frozen"`` keeps mask and empty token at their random initial directions, as the released code
            does in effect; ``"learnable"`` trains them, as the paper says.
        prediction_weight: weight of the prediction loss (alpha).
        variance_weight: weight of the variance regulariser (beta): 1 on KITTI, 10 on Waymo.
        momentum: initial momentum of the target encoder.
    """

    ENCODERS: ClassVar[Mapping[str, str]] = {"context": "context_encoder.", "target": "target_encoder."}

    COMPILED: ClassVar[tuple[str, ...]] = ("predictor",)

    def __init__(
        self,
        point_cloud_range: Sequence[float],
        voxel_size: Sequence[float],
        in_channels: int = 4,
        max_points_per_voxel: int | None = 5,
        max_voxels_train: int = 16_000,
        max_voxels_test: int = 40_000,
        mask_ratio: float = 0.5,
        mask_per: str = "batch",
        token_mode: str = "frozen",
        prediction_weight: float = 1.0,
        variance_weight: float = 1.0,
        momentum: float = 0.996,
    ) -> None:
        super().__init__(
            point_cloud_range, voxel_size, in_channels, max_points_per_voxel, max_voxels_train, max_voxels_test
        )
        if not 0 < mask_ratio < 1:
            raise ValueError(f"ADLJEPA: mask_ratio={mask_ratio} must lie between 0 and 1.")
        if mask_per not in ("batch", "sample"):
            raise ValueError(f'ADLJEPA: mask_per="{mask_per}" is unknown. Available: batch, sample.')
        if token_mode not in ("frozen", "learnable"):
            raise ValueError(f'ADLJEPA: token_mode="{token_mode}" is unknown. Available: frozen, learnable.')
        self.mask_ratio, self.mask_per, self.token_mode = mask_ratio, mask_per, token_mode
        self.prediction_weight, self.variance_weight, self.momentum = prediction_weight, variance_weight, momentum

        learnable = token_mode == "learnable"
        self.mask_token = nn.Parameter(torch.randn(1, BEV_CHANNELS, 1, 1), requires_grad=learnable)
        self.empty_token = nn.Parameter(torch.randn(1, BEV_CHANNELS, 1, 1), requires_grad=learnable)
        self.context_encoder = VoxelBackBone8x(in_channels, self.grid, BEV_CHANNELS)
        self.target_encoder = copy.deepcopy(self.context_encoder).requires_grad_(False)
        self.predictor = Predictor()

    def forward(self, batch: LidarBatch, generator: torch.Generator | None = None) -> Losses:
        """The losses of one batch; ``generator`` draws the masks."""
        return self.losses(self.embed(batch, generator))

    def embed(self, batch: LidarBatch, generator: torch.Generator | None = None) -> Embeddings:
        """Draw masks and compute the embeddings of both branches."""
        voxels = batch.voxels
        occupied = non_empty_cells(voxels.coordinates, voxels.batch_size, self.context_encoder.bev_shape, BEV_STRIDE)
        return self.embed_masked(voxels, draw_bev_masks(occupied, self.mask_ratio, self.mask_per, generator))

    def embed_masked(self, voxels: Voxels, masks: BevMasks) -> Embeddings:
        """The embeddings of both branches for given masks."""
        batch, _, y, x = voxels.coordinates.long().unbind(1)
        visible = masks.context_cells[batch, y // BEV_STRIDE, x // BEV_STRIDE]
        context = self.context_encoder(select_voxels(voxels, visible))
        context = torch.where(masks.hidden[:, None], self.mask_token, context)
        context = F.normalize(torch.where(masks.context_empty[:, None], self.empty_token, context), dim=1)
        prediction = F.normalize(self.predictor(context), dim=1)
        with torch.no_grad():
            target = self.target_encoder(select_voxels(voxels, ~visible))
            target = F.normalize(torch.where(masks.target_empty[:, None], self.empty_token, target), dim=1)
        return Embeddings(context, prediction, target, masks)

    def losses(self, embeddings: Embeddings) -> Losses:
        """Prediction loss and variance regulariser of given embeddings, with what is logged beside them."""
        masks = embeddings.masks
        context_rows = _rows(embeddings.context, masks.context_cells)
        target_rows, target_empty = (_rows(embeddings.target, m) for m in (masks.target_cells, masks.target_empty))
        predicted, predicted_empty = (_rows(embeddings.prediction, m) for m in (masks.target_cells, masks.target_empty))
        cells, empty = bev_cosine(predicted, target_rows), bev_cosine(predicted_empty, target_empty)
        prediction = CELL_WEIGHT * cells + EMPTY_WEIGHT * empty
        context_hinge = variance_regularizer(embeddings.context, masks.context_cells)
        prediction_hinge = variance_regularizer(embeddings.prediction, masks.target_cells)
        variance = context_hinge + prediction_hinge
        total = self.prediction_weight * prediction + self.variance_weight * variance
        if self.token_mode == "learnable":  # a batch may hide no cell; every parameter still gets a gradient
            total = total + 0.0 * (self.mask_token.sum() + self.empty_token.sum())
        with torch.no_grad():
            terms = {
                "loss": total,
                "loss_prediction": prediction,
                "loss_prediction_cells": cells,
                "loss_prediction_empty": empty,
                "loss_variance": variance,
                "loss_variance_context": context_hinge,
                "loss_variance_prediction": prediction_hinge,
                "variance_hinge_target": variance_regularizer(embeddings.target, masks.target_cells),
                "channel_variance_context": _channel_variance(context_rows),
                "channel_variance_target": _channel_variance(target_rows),
                "channel_variance_prediction": _channel_variance(predicted),
                "channel_variance_prediction_empty": _channel_variance(predicted_empty),
            }
        return Losses(total, {name: value.detach() for name, value in terms.items()})

    def after_optimizer_step(self, step: int, total_steps: int, applied: Tensor | None = None) -> None:
        """Move the target encoder's parameters towards the context encoder's; batch-norm statistics stay its own."""
        momentum = ema_momentum(step, total_steps, self.momentum)
        with torch.no_grad():
            target: list[Tensor] = list(self.target_encoder.parameters())
            online: list[Tensor] = list(self.context_encoder.parameters())
            if applied is None:
                torch._foreach_mul_(target, momentum)
                torch._foreach_add_(target, online, alpha=1.0 - momentum)
                return
            # The same sums, to the bit; where the step was left out, 1 times the target plus nothing.
            torch._foreach_mul_(target, torch.where(applied, momentum, 1.0))
            torch._foreach_add_(target, torch._foreach_mul(online, applied.float()), alpha=1.0 - momentum)


def _rows(bev: Tensor, cells: Tensor) -> Tensor:
    """``(n, C)`` embeddings at the n selected cells of ``(B, C, H, W)``."""
    return bev.permute(0, 2, 3, 1)[cells]


def _channel_variance(rows: Tensor) -> Tensor:
    """Mean over channels of the unbiased variance over cells; 0 for fewer than two cells."""
    return rows.var(dim=0, unbiased=True).mean() if len(rows) >= 2 else rows.new_zeros(())
