"""Which bird's-eye-view cells the context encoder sees and which it has to predict.

Cells are columns of 8 x 8 voxels. Non-empty cells are split by an exact share, empty cells by independent draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["BevMasks", "draw_bev_masks", "masks_from_noise", "non_empty_cells"]


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


def non_empty_cells(coordinates: Tensor, batch_size: int, bev_shape: tuple[int, int], stride: int) -> Tensor:
    """``(B, H, W)`` boolean map of cells that hold a voxel.

    Args:
        coordinates: ``(V, 4)`` ``(batch, z, y, x)`` voxel coordinates.
        batch_size: B.
        bev_shape: ``(H, W)``.
        stride: voxels per cell along x and y.
    """
    cells = torch.zeros(batch_size, *bev_shape, dtype=torch.bool, device=coordinates.device)
    batch, _, y, x = coordinates.long().unbind(1)
    cells[batch, y // stride, x // stride] = True
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
    context = torch.zeros_like(non_empty)
    if mask_per == "batch":
        groups = [torch.ones_like(non_empty)]
    elif mask_per == "sample":
        sample = torch.arange(len(non_empty), device=non_empty.device)[:, None, None]
        groups = [(sample == b).expand_as(non_empty) for b in range(len(non_empty))]
    else:
        raise ValueError(f'mask_per="{mask_per}" is unknown. Available: batch, sample.')
    noise = torch.full(non_empty.shape, 2.0, dtype=cell_noise.dtype, device=non_empty.device)
    noise[non_empty] = cell_noise
    for group in groups:
        cells = (non_empty & group).flatten().nonzero().squeeze(1)
        keep = int(len(cells) * (1 - mask_ratio))
        order = torch.argsort(noise.flatten()[cells], stable=True)
        context.view(-1)[cells[order[:keep]]] = True
    shown = empty_noise < 1 - mask_ratio
    return BevMasks(context, non_empty & ~context, ~non_empty & shown, ~non_empty & ~shown)


def draw_bev_masks(
    non_empty: Tensor, mask_ratio: float, mask_per: str, generator: torch.Generator | None = None
) -> BevMasks:
    """Random masks. The draws come from a CPU generator, so that they are the same on every device.

    Args:
        non_empty: ``(B, H, W)`` boolean.
        mask_ratio: share of hidden cells.
        mask_per: see ``masks_from_noise``.
        generator: where the draws come from; torch's global generator if ``None``.
    """
    cell_noise = torch.rand(int(non_empty.sum()), generator=generator)
    empty_noise = torch.rand(non_empty.shape, generator=generator)
    device = non_empty.device
    return masks_from_noise(non_empty, cell_noise.to(device), empty_noise.to(device), mask_ratio, mask_per)
