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

from adperception.losses.bev_cosine import bev_cosine, bev_cosine_to_vector
from adperception.losses.full_precision import full_precision, in_full_precision
from adperception.losses.variance_regularizer import variance_regularizer
from adperception.models.backbones.voxel_backbone_8x import BEV_STRIDE, VoxelBackBone8x
from adperception.models.base import Losses
from adperception.models.pretrain.bev_masking import BevMasks, CellCounts, draw_bev_masks, non_empty_cells
from adperception.models.pretrain.cell_plan import plan_cells
from adperception.models.pretrain.unit_norm import unit_norm
from adperception.models.pretrain.voxel_pretraining import BEV_CHANNELS, VoxelPretraining
from adperception.registry import MODELS
from adperception.sparse import static_nonzero
from adperception.structures import LidarBatch, Voxels

__all__ = ["ADLJEPA", "Embeddings", "Predictor", "ema_momentum"]

CELL_WEIGHT, EMPTY_WEIGHT = 0.75, 0.25
"""Weights of occupied and empty hidden cells in the prediction loss (the paper's alpha_1, alpha_0)."""


@dataclass(frozen=True)
class Embeddings:
    """What one forward pass of the method looks like.

    The losses look at rows of these maps and need no normalised copy of a whole one; ``prediction`` and ``target`` make
    them for who wants to see them.

    Attributes:
        context: ``(B, 256, H, W)`` context embeddings with tokens at hidden and empty cells, of unit norm over channels
            (z_c): the input of the predictor, in its precision.
        context_rows: ``(n, 256)`` float32, what ``context`` holds at the n context cells, in order of (batch, y, x).
        predictor_output: ``(B, 256, H, W)`` as the predictor gives it.
        target_output: ``(B, 256, H, W)`` as the target encoder gives it, without gradient.
        empty_token: ``(1, 256, 1, 1)``.
        masks: which cell is which.
        counts: how many there are.
    """

    context: Tensor
    context_rows: Tensor
    predictor_output: Tensor
    target_output: Tensor
    empty_token: Tensor
    masks: BevMasks
    counts: CellCounts

    @property
    def prediction(self) -> Tensor:
        """``(B, 256, H, W)`` predictions (s_c), of unit norm over channels."""
        return unit_norm(self.predictor_output)

    @property
    def target(self) -> Tensor:
        """``(B, 256, H, W)`` target embeddings (s_t), of unit norm, no gradient; meaningful at target cells only."""
        with torch.no_grad():
            token = self.empty_token.to(self.target_output.dtype)
            return unit_norm(torch.where(self.masks.target_empty[:, None], token, self.target_output))


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
        plan = plan_cells(voxels, masks, self.context_encoder)
        cells = static_nonzero(masks.context_cells.flatten(), sum(plan.counts.context_cells))
        encoded = self.context_encoder(plan.context.voxels, plan.context.planned)
        rows = unit_norm(in_full_precision(_rows(encoded, cells)))
        del encoded  # only its rows are needed
        context = self._with_tokens(rows, cells, masks.hidden)
        output = self.predictor(context)
        with torch.no_grad():
            target = self.target_encoder(plan.target.voxels, plan.target.planned)
        return Embeddings(context, rows, output, target, self.empty_token, masks, plan.counts)

    def _with_tokens(self, rows: Tensor, cells: Tensor, hidden: Tensor) -> Tensor:
        """The predictor's input: ``rows`` at ``cells``, the mask token at ``hidden`` ones, the empty token elsewhere.

        Everything has unit norm before it is put into the map, so that the map is made once, in the precision of the
        predictor, and nothing but the map is kept for the backward pass.
        """
        device = rows.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else rows.dtype
        mask, empty = (unit_norm(token).view(1, -1).to(dtype) for token in (self.mask_token, self.empty_token))
        context = torch.where(hidden.view(-1, 1), mask, empty)
        context = context.index_copy_(0, cells, rows.to(dtype))
        return context.view(*hidden.shape, -1).permute(0, 3, 1, 2)

    def losses(self, embeddings: Embeddings) -> Losses:
        """Prediction loss and variance regulariser of given embeddings, with what is logged beside them; in float32."""
        masks, counts = embeddings.masks, embeddings.counts
        context_cells = static_nonzero(masks.context_cells.flatten(), sum(counts.context_cells))
        target_cells = static_nonzero(masks.target_cells.flatten(), sum(counts.target_cells))
        hidden = torch.cat([target_cells, static_nonzero(masks.target_empty.flatten(), counts.target_empty)])
        # Selected together, so that their gradients fill one map and not two.
        predicted, predicted_empty = torch.split(
            _rows(embeddings.predictor_output, hidden), [len(target_cells), counts.target_empty]
        )
        context_samples, target_samples = (
            torch.div(cells, masks.hidden[0].numel(), rounding_mode="floor") for cells in (context_cells, target_cells)
        )
        with full_precision(predicted):
            context_rows = embeddings.context_rows
            predicted = unit_norm(in_full_precision(predicted))
            target_rows = unit_norm(in_full_precision(_rows(embeddings.target_output, target_cells)))
            empty_token = unit_norm(embeddings.empty_token.detach()).flatten()

            cells, empty = bev_cosine(predicted, target_rows), bev_cosine_to_vector(predicted_empty, empty_token)
            prediction = CELL_WEIGHT * cells + EMPTY_WEIGHT * empty
            context_hinge = variance_regularizer(context_rows, context_samples, counts.context_cells)
            prediction_hinge = variance_regularizer(predicted, target_samples, counts.target_cells)
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
                    "variance_hinge_target": variance_regularizer(target_rows, target_samples, counts.target_cells),
                    "channel_variance_context": _channel_variance(context_rows),
                    "channel_variance_target": _channel_variance(target_rows),
                    "channel_variance_prediction": _channel_variance(predicted),
                    "channel_variance_prediction_empty": _channel_variance(
                        unit_norm(in_full_precision(predicted_empty))
                    ),
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
    """``(n, C)`` embeddings at positions ``(n,)`` of the flattened cells of ``(B, C, H, W)``, a channels-last map."""
    return bev.permute(0, 2, 3, 1).flatten(0, 2).index_select(0, cells)


def _channel_variance(rows: Tensor) -> Tensor:
    """Mean over channels of the unbiased variance over cells; 0 for fewer than two cells."""
    return rows.var(dim=0, unbiased=True).mean() if len(rows) >= 2 else rows.new_zeros(())
