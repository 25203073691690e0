"""AD-L-JEPA's step as the released code makes it: what our step is measured against.

The same weights, the same losses (``tests/benchmarks/test_upstream_step.py`` compares them on the CPU), made the way
the release makes them: spconv in float32, PyTorch's defaults (cuDNN may use TF32), all eager, maps in NCHW, masks built
on the device from the unique rows of the voxels' cells, boolean indexing, the variance terms sample by sample,
every logged scalar read by the host, Adam behind a loop that decays parameter after parameter, and the moving average
parameter after parameter. The tokens collect gradients that nobody uses, and the target branch is not detached from
them, as there.

Kept in its favour, since it would only slow it down: torch's current multi-tensor Adam and gradient norm, voxels that
are averaged already, and frames that arrive in page-locked memory. It has no check for values that are not finite.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from adperception.engine.schedules import OneCycle
from adperception.models.backbones.voxel_backbone_8x import VoxelBackBone8x
from adperception.models.pretrain.ad_l_jepa import ADLJEPA, CELL_WEIGHT, EMPTY_WEIGHT, ema_momentum
from adperception.sparse import SparseTensor, use_backend
from adperception.structures import LidarBatch, Voxels

__all__ = ["UpstreamMasks", "UpstreamStep", "upstream_masks"]

CELL = 8
"""Voxels per cell along each axis."""

LEVEL, EPSILON = 1 / 16, 1e-4


@dataclass(frozen=True)
class UpstreamMasks:
    """Which cell is which, ``(B, H, W)`` boolean each.

    Attributes:
        context_cells: occupied and visible (C1).
        target_cells: occupied and hidden (T1).
        context_empty: empty and visible (C0).
        target_empty: empty and hidden (T0).
        visible: ``(V,)`` whether a voxel goes to the context encoder.
    """

    context_cells: Tensor
    target_cells: Tensor
    context_empty: Tensor
    target_empty: Tensor
    visible: Tensor


def upstream_masks(
    coordinates: Tensor,
    batch_size: int,
    bev_shape: tuple[int, int],
    mask_ratio: float,
    noise: tuple[Tensor, Tensor] | None = None,
) -> UpstreamMasks:
    """Masks as the release draws them, on the device of the voxels.

    Args:
        coordinates: ``(V, 4)`` ``(batch, z, y, x)``.
        batch_size: B.
        bev_shape: ``(H, W)``.
        mask_ratio: share of hidden cells.
        noise: draws per occupied cell, in order of (batch, y, x), and per map cell; ``None``: new ones.
    """
    device = coordinates.device
    cells = coordinates.long()
    cells = torch.cat([cells[:, :1], torch.div(cells[:, 1:], CELL, rounding_mode="floor")], dim=1)
    # All heights of a column become 0. The release divides by twice the largest, which fails if that is 0.
    cells[:, 1] = torch.div(cells[:, 1], (2 * cells[:, 1].max()).clamp(min=1), rounding_mode="floor")
    occupied, cell_of_voxel = torch.unique(cells, dim=0, return_inverse=True)
    keep = int(len(occupied) * (1 - mask_ratio))
    cell_noise = torch.rand(len(occupied), device=device) if noise is None else noise[0]
    order = torch.argsort(cell_noise)
    context = torch.zeros(batch_size, *bev_shape, dtype=torch.bool, device=device)
    target = torch.zeros_like(context)
    for cells_of_kind, chosen in ((context, occupied[order[:keep]]), (target, occupied[order[keep:]])):
        cells_of_kind[chosen[:, 0], chosen[:, 2], chosen[:, 3]] = True
    empty = ~(context | target)
    map_noise = torch.rand(context.shape, device=device) if noise is None else noise[1]
    shown = map_noise < 1 - mask_ratio
    is_visible = torch.zeros(len(occupied), dtype=torch.bool, device=device)
    is_visible[order[:keep]] = True
    return UpstreamMasks(context, target, empty & shown, empty & ~shown, is_visible[cell_of_voxel])


class UpstreamStep:
    """One step of the release per call.

    Args:
        model: its weights; tokens are frozen in ours, and collect unused gradients here.
        batches: take turns.
        device: where to train.
        backend: of sparse convolutions, ``"spconv"`` for the real thing.
        peak_learning_rate: of the one-cycle schedule.
        total_steps: of the schedule and the moving average.
    """

    def __init__(
        self,
        model: ADLJEPA,
        batches: Sequence[LidarBatch],
        device: torch.device,
        *,
        backend: str,
        peak_learning_rate: float = 3e-4,
        total_steps: int = 100_000,
    ) -> None:
        self.model = model.to(device).train()
        self.model.mask_token.requires_grad_(True)
        self.model.empty_token.requires_grad_(True)
        self.batches, self.device, self.backend = batches, device, backend
        self.peak_learning_rate, self.total_steps, self.step = peak_learning_rate, total_steps, 0
        norms: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for module in [*model.context_encoder.modules(), *model.predictor.modules()]:
            if not list(module.children()):
                is_norm = isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d))
                (norms if is_norm else others).extend(module.parameters())
        self.optimizer = torch.optim.Adam([{"params": others}, {"params": norms}], lr=3e-5, betas=(0.95, 0.99))
        self._schedule = OneCycle()

    def __call__(self, batch: LidarBatch | None = None, mark: Callable[[str], None] = lambda phase: None) -> Tensor:
        """Make one step; returns the loss. ``mark`` is called at the end of every phase."""
        with use_backend(self.backend):
            values = self._schedule.at(self.step, self.total_steps, self.peak_learning_rate)
            for group in self.optimizer.param_groups:
                group["lr"], group["betas"] = values.learning_rate, (values.momentum, 0.99)
            batch = self.batches[self.step % len(self.batches)] if batch is None else batch
            voxels = batch.voxels.to(self.device)
            self.optimizer.zero_grad()
            mark("copy")
            loss, terms = self.forward(voxels)
            mark("forward")
            loss.backward()  # type: ignore[no-untyped-call]
            mark("backward")
            nn.utils.clip_grad_norm_(self.model.parameters(), 10.0)
            mark("checks")
            self._update(values.learning_rate)
            mark("optimizer")
            self._move_target()
            mark("after step")
        self.logged = {name: value.item() for name, value in terms.items()}
        self.step += 1
        return loss.detach()

    def forward(self, voxels: Voxels, noise: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of a batch and what is logged."""
        model = self.model
        masks = upstream_masks(
            voxels.coordinates, voxels.batch_size, model.context_encoder.bev_shape, model.mask_ratio, noise
        )
        # Cells last: boolean indexing picks rows of channels. A view, the map stays NCHW.
        context = _encode(model.context_encoder, _select(voxels, masks.visible)).permute(0, 2, 3, 1)
        context[~(masks.context_cells | masks.context_empty)] = model.mask_token.view(1, -1)
        context[masks.context_empty] = model.empty_token.view(1, -1)
        context = F.normalize(context.permute(0, 3, 1, 2), dim=1)
        prediction = F.normalize(model.predictor(context), dim=1)
        target = _encode(model.target_encoder, _select(voxels, ~masks.visible)).permute(0, 2, 3, 1)
        target[masks.target_empty] = model.empty_token.view(1, -1)
        target = F.normalize(target.permute(0, 3, 1, 2), dim=1)
        return self._losses(context, prediction, target, masks)

    def _losses(
        self, context: Tensor, prediction: Tensor, target: Tensor, masks: UpstreamMasks
    ) -> tuple[Tensor, dict[str, Tensor]]:
        context, prediction, target = (bev.permute(0, 2, 3, 1) for bev in (context, prediction, target))
        cells = (1 - F.cosine_similarity(target[masks.target_cells], prediction[masks.target_cells], dim=1)).mean()
        empty = (1 - F.cosine_similarity(target[masks.target_empty], prediction[masks.target_empty], dim=1)).mean()
        jepa = CELL_WEIGHT * cells + EMPTY_WEIGHT * empty
        hinges = {
            "context": _hinge_by_sample(context, masks.context_cells),
            "prediction": _hinge_by_sample(prediction, masks.target_cells),
            "target": _hinge_by_sample(target, masks.target_cells),
        }
        regularizer = hinges["context"] + hinges["prediction"]
        total = self.model.prediction_weight * jepa + self.model.variance_weight * regularizer
        terms = {
            "loss": total,
            "loss_prediction": jepa,
            "loss_prediction_cells": cells,
            "loss_prediction_empty": empty,
            "loss_variance": regularizer,
            "loss_variance_context": hinges["context"],
            "loss_variance_prediction": hinges["prediction"],
            "variance_hinge_target": hinges["target"],
            "channel_variance_context": context[masks.context_cells].var(dim=0).mean(),
            "channel_variance_target": target[masks.target_cells].var(dim=0).mean(),
            "channel_variance_prediction": prediction[masks.target_cells].var(dim=0).mean(),
            "channel_variance_prediction_empty": prediction[masks.target_empty].var(dim=0).mean(),
        }
        return total, {name: value.detach() for name, value in terms.items()}

    @torch.no_grad()
    def _update(self, learning_rate: float) -> None:
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.mul_(1 - 0.01 * learning_rate)
        self.optimizer.step()

    @torch.no_grad()
    def _move_target(self) -> None:
        momentum = ema_momentum(self.step, self.total_steps, self.model.momentum)
        pairs = zip(self.model.context_encoder.parameters(), self.model.target_encoder.parameters(), strict=True)
        for online, target in pairs:
            target.mul_(momentum).add_((1 - momentum) * online.detach())


def _select(voxels: Voxels, keep: Tensor) -> Voxels:
    return Voxels(voxels.features[keep], voxels.coordinates[keep], voxels.batch_size)


def _encode(encoder: VoxelBackBone8x, voxels: Voxels) -> Tensor:
    """The encoder's map in NCHW, made dense as spconv does it: scattered with channels last, then turned and copied."""
    x = SparseTensor(voxels.features, voxels.coordinates, encoder.grid.sparse_shape, voxels.batch_size)
    for stage in (encoder.conv_input, encoder.conv1, encoder.conv2, encoder.conv3, encoder.conv4, encoder.conv_out):
        x = stage(x)
    dense = x.features.new_zeros(x.batch_size, *x.spatial_shape, x.features.shape[1])
    dense[x.coordinates.long().unbind(1)] = x.features
    return dense.permute(0, 4, 1, 2, 3).contiguous().flatten(1, 2)


def _hinge_by_sample(rows: Tensor, cells: Tensor) -> Tensor:
    """Mean over the samples of the variance hinge over each one's cells."""
    hinges = []
    for sample in range(len(rows)):
        deviation = torch.sqrt(rows[sample][cells[sample]].var(dim=0) + EPSILON)
        hinges.append(torch.relu(LEVEL - deviation).mean())
    return torch.stack(hinges).mean()
