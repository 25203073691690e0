"""Checks before any sparse kernel runs: a sentence instead of a native crash."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["CHECKED_INPUTS", "check_coordinates", "check_devices", "debug_mode", "set_debug_mode"]

CHECKED_INPUTS = 40
"""Coordinates are checked on this many first inputs, 20 batches of a model with two encoders; each check costs one
synchronisation on a GPU."""

_state = {"debug": False, "checked": 0}


def set_debug_mode(enabled: bool) -> None:
    """Check coordinates of every input, and also for duplicates, until switched off."""
    _state["debug"] = enabled


def debug_mode() -> bool:
    """Whether debug mode is on."""
    return bool(_state["debug"])


def check_devices(layer: str, features: Tensor, weight: Tensor) -> None:
    """Refuse features and weights on different devices."""
    if features.device != weight.device:
        raise ValueError(
            f'sparse_conv "{layer}": features are on {features.device} but weights are on {weight.device}. '
            f'Move the model: model.to("{features.device}").'
        )


def check_coordinates(
    features: Tensor, coordinates: Tensor, spatial_shape: tuple[int, int, int], batch_size: int
) -> None:
    """Refuse an input that does not describe sites of the grid.

    Shapes, types and devices are checked always; the values of the coordinates on the first ``CHECKED_INPUTS``
    inputs of the process and in debug mode.
    """
    if features.dim() != 2 or coordinates.dim() != 2 or coordinates.shape[1] != 4:
        raise ValueError(
            f"SparseTensor: features {tuple(features.shape)} and coordinates {tuple(coordinates.shape)} must be "
            "(N, C) and (N, 4) with columns batch, z, y, x."
        )
    if len(features) != len(coordinates):
        raise ValueError(f"SparseTensor: {len(features)} feature rows but {len(coordinates)} coordinate rows.")
    if coordinates.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"SparseTensor: coordinates are {coordinates.dtype}; pass int32 (batch, z, y, x).")
    if features.device != coordinates.device:
        raise ValueError(
            f"SparseTensor: features are on {features.device} but coordinates are on {coordinates.device}. "
            "Move the whole batch: batch.to(device)."
        )
    if min(spatial_shape) < 1 or batch_size < 1:
        raise ValueError(f"SparseTensor: grid {spatial_shape} (z, y, x) with batch size {batch_size} holds no cell.")
    if not debug_mode() and _state["checked"] >= CHECKED_INPUTS:
        return
    if torch.compiler.is_compiling():  # values cannot be looked at while a graph is traced
        return
    _state["checked"] += 1
    if len(coordinates) == 0:
        return
    # One copy to the host for both ends.
    low, high = torch.stack(torch.aminmax(coordinates, dim=0)).tolist()
    for axis, name in enumerate(("batch", "z", "y", "x")):
        size = (batch_size, *spatial_shape)[axis]
        if low[axis] < 0 or high[axis] >= size:
            raise ValueError(
                f"SparseTensor: {name} coordinates span {low[axis]}..{high[axis]}, but the grid has {size} "
                f"({'batch size' if axis == 0 else f'cells along {name}'}). Voxelise with the range and voxel size "
                "of the model."
            )
    if debug_mode():
        unique, counts = torch.unique(coordinates, dim=0, return_counts=True)
        if len(unique) != len(coordinates):
            row = unique[counts.argmax()].tolist()
            raise ValueError(
                f"SparseTensor: {len(coordinates) - len(unique)} of {len(coordinates)} coordinates are duplicates, "
                f"e.g. (batch, z, y, x) = {tuple(row)}. Merge points of one voxel before building the tensor."
            )
