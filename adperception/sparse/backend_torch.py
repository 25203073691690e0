"""The ``torch`` backend: sparse convolution in plain PyTorch, on any device, forward and backward.

Per tap: gather the input rows, one matrix product, add to the output rows. Within a tap every output row occurs once,
so the order of additions, and with it every bit of the result on a CPU, is fixed.

bfloat16 and float16 features are multiplied and added in float32, as tensor cores do it: sums over taps in the lower
precision would lose most of what its rounding leaves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adperception.sparse.rulebook import Rulebook

__all__ = ["sparse_convolution"]


def _taps(weight: Tensor) -> Tensor:
    """KRSC weights ``(out, kz, ky, kx, in)`` as ``(taps, in, out)``."""
    return weight.permute(1, 2, 3, 4, 0).reshape(-1, weight.shape[4], weight.shape[0])


def _computed_in(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype in (torch.bfloat16, torch.float16) else dtype


def _add_product(target: Tensor, positions: Tensor, rows: Tensor, matrix: Tensor) -> None:
    """``target[positions] += rows @ matrix`` in place; no position occurs twice.

    Reading the rows, adding the product within the matrix multiplication and writing them back is faster on a CPU than
    ``index_add_``, which has to be ready for repeated positions.
    """
    present = target.index_select(0, positions)
    target.index_copy_(0, positions, present.addmm_(rows, matrix))


class _SparseConvolution(torch.autograd.Function):
    """y[o] = sum over taps k and pairs (i, o) of tap k of x[i] W_k."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, weight: Tensor, rulebook: Rulebook) -> Tensor:
        ctx.save_for_backward(features, weight)
        ctx.rulebook = rulebook
        given = features.dtype
        taps = _taps(weight.to(given)).to(_computed_in(given))
        features = features.to(taps.dtype)
        with torch.autocast(features.device.type, enabled=False):  # the types are chosen
            if rulebook.identity_tap is None:
                output = features.new_zeros(len(rulebook.coordinates), weight.shape[0])
            else:
                output = features @ taps[rulebook.identity_tap]
            for tap, (inputs, outputs) in zip(taps, rulebook.pairs, strict=True):
                if len(inputs):
                    _add_product(output, outputs, features.index_select(0, inputs), tap)
        return output.to(given)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        (gradient,) = gradients
        features, weight = ctx.saved_tensors
        rulebook: Rulebook = ctx.rulebook
        want_features, want_weight, _ = ctx.needs_input_grad
        given = features.dtype
        taps = _taps(weight.to(given)).to(_computed_in(given))
        features, gradient = features.to(taps.dtype), gradient.to(taps.dtype).contiguous()
        grad_taps = torch.zeros_like(taps)
        grad_features = torch.zeros_like(features)
        if rulebook.identity_tap is not None:
            if want_weight:
                torch.mm(features.t(), gradient, out=grad_taps[rulebook.identity_tap])
            if want_features:
                grad_features = gradient @ taps[rulebook.identity_tap].t()
        for k, (inputs, outputs) in enumerate(rulebook.pairs):
            if not len(inputs):
                continue
            rows = gradient.index_select(0, outputs)
            if want_weight:
                torch.mm(features.index_select(0, inputs).t(), rows, out=grad_taps[k])
            if want_features:
                _add_product(grad_features, inputs, rows, taps[k].t())
        grad_weight = grad_taps.view(*weight.shape[1:], weight.shape[0]).permute(4, 0, 1, 2, 3).contiguous()
        return (
            grad_features.to(given) if want_features else None,
            grad_weight.to(weight.dtype) if want_weight else None,
            None,
        )


def sparse_convolution(features: Tensor, weight: Tensor, rulebook: Rulebook) -> Tensor:
    """Sparse convolution (cross-correlation, as torch's) along a rulebook.

    Args:
        features: ``(N, in)`` at the rulebook's input sites.
        weight: ``(out, kz, ky, kx, in)``; it is rounded to the type of the features, its gradient is not.
        rulebook: which sites each tap connects.

    Returns:
        ``(M, out)`` at the rulebook's output sites, in the type of the features.
    """
    return _SparseConvolution.apply(features, weight, rulebook)  # type: ignore[no-any-return, no-untyped-call]
