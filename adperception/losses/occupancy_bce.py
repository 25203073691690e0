"""Binary cross-entropy of a dense occupancy prediction, without a dense target."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from adperception.losses.full_precision import full_precision, in_full_precision

__all__ = ["OccupancyBCE", "occupancy_bce"]


@dataclass(frozen=True)
class OccupancyBCE:
    """Scalars.

    Attributes:
        mean: over all cells of the grid, to be minimised.
        occupied: over the occupied cells only, without gradient; 0 if there is none.
        empty: over the empty cells only, without gradient.
    """

    mean: Tensor
    occupied: Tensor
    empty: Tensor


def occupancy_bce(logits: Tensor, coordinates: Tensor) -> OccupancyBCE:
    """Mean binary cross-entropy between ``sigmoid(logits)`` and the occupancy given by its occupied cells.

    As ``BCE(x, t) = softplus(x) - t x``, the target is never laid out: on KITTI's grid it would have 92 million cells
    per frame.

    Args:
        logits: ``(B, D, H, W)``.
        coordinates: ``(V, 4)`` occupied cells ``(batch, z, y, x)``, each once.

    Returns:
        The sums are float32 at least.

    Source: Occupancy-MAE (Min et al., IEEE TIV 2023), its reconstruction loss.
    """
    depth, height, width = logits.shape[1:]
    batch, z, y, x = coordinates.long().unbind(1)
    with full_precision(logits):
        occupied = in_full_precision(logits.reshape(-1)[((batch * depth + z) * height + y) * width + x])
        everywhere: Tensor
        if logits.dtype in (torch.bfloat16, torch.float16):
            everywhere = _SoftplusSum.apply(logits)  # type: ignore[no-untyped-call]
        else:
            everywhere = F.softplus(logits).sum()
        mean = (everywhere - occupied.sum()) / logits.numel()
        values = occupied.detach()
        empty_cells = logits.numel() - len(values)
        return OccupancyBCE(
            mean=mean,
            occupied=F.softplus(-values).sum() / max(len(values), 1),
            empty=(everywhere.detach() - F.softplus(values).sum()) / max(empty_cells, 1),
        )


class _SoftplusSum(torch.autograd.Function):
    """The sum of ``softplus`` over logits in half precision, in float32 without a float32 copy of all of them.

    One sample is converted at a time; kept for the backward pass are the logits as they are.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor) -> Tensor:
        ctx.save_for_backward(logits)
        return torch.stack([F.softplus(sample.float()).sum() for sample in logits]).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (logits,) = ctx.saved_tensors
        result = torch.empty_like(logits)
        for sample, of_sample in zip(logits, result, strict=True):
            of_sample.copy_(sample.float().sigmoid_().mul_(gradient))
        return result
