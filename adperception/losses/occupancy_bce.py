"""Binary cross-entropy of a dense occupancy prediction, without a dense target."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

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

    Source: Occupancy-MAE (Min et al., IEEE TIV 2023), its reconstruction loss.
    """
    depth, height, width = logits.shape[1:]
    batch, z, y, x = coordinates.long().unbind(1)
    occupied = logits.reshape(-1)[((batch * depth + z) * height + y) * width + x]
    everywhere = F.softplus(logits).sum()
    mean = (everywhere - occupied.sum()) / logits.numel()
    values = occupied.detach()
    empty_cells = logits.numel() - len(values)
    return OccupancyBCE(
        mean=mean,
        occupied=F.softplus(-values).sum() / max(len(values), 1),
        empty=(everywhere.detach() - F.softplus(values).sum()) / max(empty_cells, 1),
    )
