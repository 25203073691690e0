"""Which bird's-eye-view cells the context encoder sees and which it has to predict.

Cells are columns of 8 x 8 voxels. Non-empty cells are split by an exact share, empty cells by independent draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from adperception.models.pretrain.hash_noise import draw_seed, hash_noise

__all__ = ["BevMasks", "CellCounts", "draw_bev_masks", "masks_from_noise", "non_empty_cells"]


@dataclass(frozen=True)
class BevMasks:
    """Four disjoint boolean maps ``(B, H, W)`` that together cover the grid.

    Attributes:
        context_cells: non-empty cells given to the context encoder (C1 in the method's notation).
        target_cells: non-empty cells given to the target encoder, to be predicted (T1).
        context_empty: empty cells shown to the context as empty (C0).
        target_empty: empty cells to be predicted (T0).
    """

    context_cells: Tensor
    target_cells: Tensor
    context_empty: Tensor
    target_empty: Tensor

    @property
    def hidden(self) -> Tensor:
        """``(B, H, W)``: cells hidden from the context."""
        return self.target_cells | self.target_empty


@dataclass(frozen=True)
class CellCounts:
    """How many cells of each kind there are, known to the host.

    Attributes:
        context_cells: per sample.
        target_cells: per sample.
        target_empty: in the batch.
    """

    context_cells: tuple[int, ...]
    target_cells: tuple[int, ...]
    target_empty: int


def non_empty_cells(coordinates: Tensor, batch_size: int, bev_shape: tuple[int, int], stride: int) -> Tensor:
    """``(B, H, W)`` boolean map of cells that hold a voxel.

    Args:
        coordinates: ``(V, 4)`` ``(batch, z, y, x)`` voxel coordinates.
        batch_size: B.
        bev_shape: ``(H, W)``.
        stride: voxels per cell along x and y.
    """
    height, width = bev_shape
    cells = torch.zeros(batch_size, height, width, dtype=torch.bool, device=coordinates.device)
    batch, _, y, x = coordinates.long().unbind(1)
    cells.view(-1).index_fill_(0, (batch * height + y // stride) * width + x // stride, True)
    return cells


def masks_from_noise(
    non_empty: Tensor, cell_noise: Tensor, empty_noise: Tensor, mask_ratio: float, mask_per: str = "batch"
) -> BevMasks:
    """Masks from given uniform draws.

    Args:
        non_empty: ``(B, H, W)`` boolean, cells with a voxel; n of them.
        cell_noise: ``(n,)`` one draw per non-empty cell, in order of (batch, y, x). The cells with the
            ``int(n * (1 - mask_ratio))`` smallest draws are context.
        empty_noise: ``(B, H, W)``; an empty cell is context where its draw is below ``1 - mask_ratio``.
        mask_ratio: share of hidden cells.
        mask_per: ``"batch"`` holds the share over all cells of the batch (as the released code does), ``"sample"``
            within every sample.
    """
    noise = empty_noise.to(cell_noise.dtype, copy=True)
    noise[non_empty] = cell_noise
    return _masks(non_empty, noise, empty_noise, mask_ratio, mask_per)


def draw_bev_masks(
    non_empty: Tensor, mask_ratio: float, mask_per: str, generator: torch.Generator | None = None
) -> BevMasks:
    """Random masks: every cell has a draw of ``hash_noise``; nothing is read from the device or copied to it.

    Args:
        non_empty: ``(B, H, W)`` boolean.
        mask_ratio: share of hidden cells.
        mask_per: see ``masks_from_noise``.
        generator: a CPU generator that draws the seed of the noise; torch's global one if ``None``. The masks are the
            same on every device.
    """
    noise = hash_noise(draw_seed(generator), non_empty.numel(), non_empty.device).view(non_empty.shape)
    return _masks(non_empty, noise, noise, mask_ratio, mask_per)


def _masks(non_empty: Tensor, cell_noise: Tensor, empty_noise: Tensor, mask_ratio: float, mask_per: str) -> BevMasks:
    """Masks from two maps of draws ``(B, H, W)``: one counts at non-empty cells, the other at empty ones."""
    if mask_per not in ("batch", "sample"):
        raise ValueError(f'mask_per="{mask_per}" is unknown. Available: batch, sample.')
    groups = 1 if mask_per == "batch" else len(non_empty)
    filled = non_empty.view(groups, -1)
    # In float64, as Python's int(n * (1 - mask_ratio)).
    keep = (filled.sum(dim=1, keepdim=True).double() * (1 - mask_ratio)).long()
    order = torch.argsort(cell_noise.masked_fill(~non_empty, 2.0).view(groups, -1), dim=1, stable=True)
    # The first places of the order are context.
    place = torch.arange(order.shape[1], device=order.device).expand_as(order)
    context = torch.empty_like(filled).scatter_(1, order, place < keep).view(non_empty.shape)
    shown = empty_noise < 1 - mask_ratio
    return BevMasks(context, non_empty & ~context, ~non_empty & shown, ~non_empty & ~shown)
