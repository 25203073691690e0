"""Vectors scaled to unit length, in any precision."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from adperception.losses.full_precision import full_precision

__all__ = ["unit_norm"]

_TINY = 1e-12


def unit_norm(vectors: Tensor, dim: int = 1) -> Tensor:
    """``vectors / max(|vectors|, 1e-12)`` along ``dim``, in their own precision, whatever autocast says.

    float32 vectors are treated as ``F.normalize`` does. Of half-precision ones the squares are summed in float32
    without a float32 copy of a whole map; the length, at least the smallest normal number there is, is then rounded.
    """
    with full_precision(vectors):
        if vectors.dtype not in (torch.bfloat16, torch.float16):
            return F.normalize(vectors, dim=dim)
        length = torch.linalg.vector_norm(vectors, dim=dim, keepdim=True, dtype=torch.float32)
        unit: Tensor = vectors / length.clamp(min=max(_TINY, torch.finfo(vectors.dtype).tiny)).to(vectors.dtype)
        return unit
