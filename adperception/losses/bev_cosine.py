"""Cosine distance between predicted and target embeddings of bird's-eye-view cells."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

__all__ = ["bev_cosine", "bev_cosine_to_vector"]

_TINY = 1e-12


def bev_cosine(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of ``1 - cos(target, prediction)`` over cells.

    Args:
        prediction: ``(N, C)`` embeddings of the selected cells of the whole batch.
        target: ``(N, C)``.

    Returns:
        Scalar in [0, 2]; 0, still connected to ``prediction``, if no cell is selected.

    Source: AD-L-JEPA (arXiv 2501.04969), the distance inside its prediction loss.
    """
    if len(prediction) == 0:
        return prediction.sum()
    return (1.0 - F.cosine_similarity(target, prediction, dim=1, eps=1e-8)).mean()


def bev_cosine_to_vector(prediction: Tensor, target: Tensor) -> Tensor:
    """``bev_cosine`` where all cells have the same target, as empty cells do; for very many cells.

    Nothing is kept for the backward pass but ``prediction`` itself, in its own precision; the arithmetic is float32.

    Args:
        prediction: ``(N, C)`` of any length and floating type. A zero vector has distance 1 and no gradient.
        target: ``(C,)`` float32 of unit length; it gets no gradient.

    Returns:
        float32 scalar; 0, still connected to ``prediction``, if there is no cell.
    """
    if len(prediction) == 0:
        return prediction.sum().float()
    cosines: Tensor = _CosineToVector.apply(prediction, target)  # type: ignore[no-untyped-call]
    return (1.0 - cosines).mean()


class _CosineToVector(torch.autograd.Function):
    """cos(x, v) = x v / |x| of rows x with a unit vector v; the gradient is (v - cos(x, v) x / |x|) / |x|."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, vector: Tensor) -> Tensor:
        x = rows.float()
        length = torch.linalg.vector_norm(x, dim=1)
        # Not a matrix product, which would be rounded to TF32 where that is on.
        cosine: Tensor = (x * vector).sum(dim=1) / length.clamp(min=_TINY)
        ctx.save_for_backward(rows, vector, length, cosine)
        return cosine

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        rows, vector, length, cosine = ctx.saved_tensors
        scale = torch.where(length > _TINY, gradient / length.clamp(min=_TINY), 0.0)[:, None]
        along = cosine[:, None] / length.clamp(min=_TINY)[:, None]
        return ((vector - along * rows.float()) * scale).to(rows.dtype), None
