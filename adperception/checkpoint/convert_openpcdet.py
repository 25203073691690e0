"""State dicts of OpenPCDet's detectors to ours and back: names only, see ``kernel_layout`` for the axes of kernels.

Our detectors carry OpenPCDet's module names, so what differs is ``global_step``, which OpenPCDet counts in the model,
and that half precision becomes float32.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from adperception.checkpoint.layout import CheckpointError

__all__ = ["from_openpcdet", "to_openpcdet"]

_PARTS = ("backbone_3d.", "backbone_2d.", "dense_head.", "pfe.", "point_head.", "roi_head.")


def from_openpcdet(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int | None]:
    """Convert a detector's state dict.

    Returns:
        The converted state dict, float32 where floating point, and the global step if it was there.

    Raises:
        CheckpointError: for a tensor of a module that no detector here has, by name.
    """
    step: int | None = None
    converted: dict[str, Tensor] = {}
    for key, value in state.items():
        if key == "global_step":
            step = int(value.item())
            continue
        if not key.startswith(_PARTS):
            raise CheckpointError(
                f'from_openpcdet: "{key}" belongs to no module of the detectors here ({", ".join(_PARTS)} are known).'
            )
        converted[key] = value.float() if value.is_floating_point() else value
    return converted, step


def to_openpcdet(state: Mapping[str, Tensor], global_step: int) -> dict[str, Tensor]:
    """Convert a detector's state dict.

    Raises:
        CheckpointError: for a tensor that is not a detector's, by name.
    """
    foreign = next((key for key in state if not key.startswith(_PARTS)), None)
    if foreign is not None:
        raise CheckpointError(f'to_openpcdet: "{foreign}" is not a tensor of a detector.')
    return {"global_step": torch.tensor([global_step], dtype=torch.int64), **state}
