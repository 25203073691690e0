"""In which precision a sparse convolution computes.

Under ``torch.autocast`` its features go in, and come out, in the lower precision. How float32 products are computed is
a setting of the ``triton`` backend; the others have switches of their own (torch's and spconv's).
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["FLOAT32_PRECISIONS", "autocast_type", "float32_precision", "in_autocast_type", "set_float32_precision"]

FLOAT32_PRECISIONS = ("ieee", "tf32x3", "tf32")
_state = {"float32": "ieee"}


def autocast_type(features: Tensor) -> torch.dtype:
    """The type in which a product of ``features`` is computed here: autocast's for float32, else their own."""
    device = features.device.type
    if features.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return features.dtype
    return torch.get_autocast_dtype(device)


def in_autocast_type(features: Tensor) -> Tensor:
    """``features`` in that type."""
    return features.to(autocast_type(features))


def set_float32_precision(name: str) -> None:
    """How the ``triton`` backend computes float32 products.

    Args:
        name: ``"ieee"`` (default) in float32 throughout; ``"tf32x3"`` as three products of TF32 parts on tensor cores,
            nearly as exact; ``"tf32"`` with 10 bits of mantissa, as cuDNN's convolutions do by default.

    Raises:
        ValueError: for another name.
    """
    if name not in FLOAT32_PRECISIONS:
        raise ValueError(f'float32 precision "{name}" is unknown. Available: {", ".join(FLOAT32_PRECISIONS)}.')
    _state["float32"] = name


def float32_precision() -> str:
    """The chosen precision of float32 products."""
    return _state["float32"]
