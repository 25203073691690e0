"""State dicts of the AD-L-JEPA release to ours and back: names only, see ``kernel_layout`` for the axes of kernels.

The release names its backbone's tensors ``backbone_3d.encoder.*``, ``backbone_3d.target_encoder.*``,
``backbone_3d.predictor.*``, ``backbone_3d.mask_token``, ``backbone_3d.empty_token`` and adds ``global_step``: 168
tensors. The backbone alone, without prefix and step, has 167.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from adperception.checkpoint.layout import CheckpointError

__all__ = ["from_ad_l_jepa", "to_ad_l_jepa"]

_PREFIX = "backbone_3d."
_OURS_TO_THEIRS = {
    "context_encoder.": "encoder.",
    "target_encoder.": "target_encoder.",
    "predictor.": "predictor.",
    "mask_token": "mask_token",
    "empty_token": "empty_token",
}


def from_ad_l_jepa(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], int | None]:
    """Convert a release's state dict (168 tensors), or its backbone's (167), to that of ``ADLJEPA``.

    Returns:
        The converted state dict, float32 where floating point, and the global step if it was there.

    Raises:
        CheckpointError: for a tensor that the method does not have, by name.
    """
    step: int | None = None
    converted: dict[str, Tensor] = {}
    for key, value in state.items():
        if key == "global_step":
            step = int(value.item())
            continue
        name = key.removeprefix(_PREFIX)
        ours = next((o for o, theirs in _OURS_TO_THEIRS.items() if name.startswith(theirs)), None)
        if ours is None:
            raise CheckpointError(
                f'from_ad_l_jepa: "{key}" is not a tensor of an AD-L-JEPA checkpoint. A detector checkpoint needs the '
                "converter of its own framework."
            )
        renamed = ours + name[len(_OURS_TO_THEIRS[ours]) :]
        converted[renamed] = value.float() if value.is_floating_point() else value
    return converted, step


def to_ad_l_jepa(state: Mapping[str, Tensor], global_step: int) -> dict[str, Tensor]:
    """Convert an ``ADLJEPA`` state dict to the release's 168 tensors."""
    converted = {"global_step": torch.tensor([global_step], dtype=torch.int64)}
    for key, value in state.items():
        ours = next((o for o in _OURS_TO_THEIRS if key.startswith(o)), None)
        if ours is None:
            raise CheckpointError(f'to_ad_l_jepa: "{key}" is not a tensor of ADLJEPA.')
        converted[_PREFIX + _OURS_TO_THEIRS[ours] + key[len(ours) :]] = value
    return converted
