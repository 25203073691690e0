"""State dicts of the AD-L-JEPA release to ours and back.

The release names its backbone's tensors ``backbone_3d.encoder.*``, ``backbone_3d.target_encoder.*``,
``backbone_3d.predictor.*``, ``backbone_3d.mask_token``, ``backbone_3d.empty_token`` and adds ``global_step``: 168
tensors. The backbone alone, without prefix and step, has 167. Our weights are in KRSC layout ``(out, z, y, x, in)``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

__all__ = ["from_ad_l_jepa", "kernel_layout", "to_ad_l_jepa", "to_krsc"]

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
        ValueError: for a tensor that the method does not have, by name.
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
            raise ValueError(
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
            raise ValueError(f'to_ad_l_jepa: "{key}" is not a tensor of ADLJEPA.')
        converted[_PREFIX + _OURS_TO_THEIRS[ours] + key[len(ours) :]] = value
    return converted


# Of the last convolution (64 to 128 channels, kernel 3 x 1 x 1) every axis is recognisable, whatever the layout; of
# those with equally many input and output channels it is not, and a wrong guess would fit silently.
_OUT_SHAPES = {"KRSC": (128, 3, 1, 1, 64), "RSKC": (3, 1, 1, 128, 64), "RSCK": (3, 1, 1, 64, 128)}
_PERMUTATIONS = {"KRSC": (0, 1, 2, 3, 4), "RSKC": (3, 0, 1, 2, 4), "RSCK": (4, 0, 1, 2, 3)}


def kernel_layout(state: Mapping[str, Tensor]) -> str:
    """The layout of sparse convolution weights, from the last convolution of the encoder.

    Returns:
        ``"KRSC"`` (spconv 2.2 and newer), ``"RSKC"`` (spconv 2.0) or ``"RSCK"`` (spconv 1).

    Raises:
        ValueError: if there is no such layer or it has no known shape.
    """
    shape = next((tuple(v.shape) for k, v in state.items() if k.endswith("encoder.conv_out.0.weight")), None)
    layout = next((name for name, known in _OUT_SHAPES.items() if shape == known), None)
    if layout is None:
        raise ValueError(
            f"kernel_layout: encoder.conv_out.0.weight has shape {shape}; known are "
            f"{', '.join(f'{s} ({n})' for n, s in _OUT_SHAPES.items())}."
        )
    return layout


def to_krsc(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same state dict with all sparse convolution weights in KRSC layout."""
    order = _PERMUTATIONS[kernel_layout(state)]
    return {k: v.permute(order).contiguous() if v.dim() == 5 else v for k, v in state.items()}
