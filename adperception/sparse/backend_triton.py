"""The ``triton`` backend: sparse convolution as implicit matrix products on a GPU, with nothing but PyTorch installed.

For every output row and tap a table says which input row is read. Rows are sorted by the set of taps that they use,
so that a block of rows skips the taps that none of them needs; the kernel gathers rows straight into the matrix
product and accumulates in float32. The input gradient is the same kernel along the inverted table, the weight gradient
a product over the list of each tap's pairs. Nothing adds atomically: results are the same bits in every run.

Tables (``triton_table``) and products are torch operators (``triton_operators``), so that ``torch.compile`` sees
through a layer; the kernels themselves are in ``triton_kernels``.

Shape legend: N input sites, M output sites, K taps.
"""

from __future__ import annotations

from dataclasses import astuple

import torch
from torch import Tensor

from adperception.sparse.precision import float32_precision
from adperception.sparse.triton_operators import run_convolve
from adperception.sparse.triton_table import TapTable, build_table
from adperception.sparse.tuning import ConvolveBlocks, convolve_blocks, weight_gradient_blocks

__all__ = ["TapTable", "build_table", "convolve", "sparse_convolution"]


def sparse_convolution(features: Tensor, weight: Tensor, table: TapTable) -> Tensor:
    """Sparse convolution (cross-correlation, as torch's) along a table.

    Args:
        features: ``(N, in)`` float32, bfloat16 or float16.
        weight: ``(out, kz, ky, kx, in)`` in any of these; it is rounded to the type of the features.
        table: which site each row reads.

    Returns:
        ``(M, out)`` in the type of the features. Sums, and the gradient of a float32 weight, are float32.

    Raises:
        TypeError: for features of another type.
    """
    if features.dtype not in (torch.float32, torch.bfloat16, torch.float16):
        raise TypeError(
            f'sparse backend "triton": features are {features.dtype}; it computes in float32, bfloat16 and float16. '
            'Use the "torch" backend for other types.'
        )
    rows, sites = len(table.coordinates), table.sites
    outputs, _, _, _, inputs = weight.shape
    volume = table.kernel.volume
    precision, device = str(features.dtype).removeprefix("torch."), features.device
    nothing = table.order
    forward = convolve_blocks(precision, inputs, outputs, volume, rows, device)
    taps, counts = table.blocks(forward.rows)
    back_sources, back_order, back_taps, back_counts = table.sources, table.order, taps, counts
    backward = convolve_blocks(precision, outputs, inputs, volume, sites, device)
    gradient = weight_gradient_blocks(precision, inputs, outputs, volume, rows, device)
    pair_rows, pair_sources, segments = nothing, nothing, nothing
    if torch.is_grad_enabled():
        if features.requires_grad:
            back_sources, back_order = table.read_backwards()
            back_taps, back_counts = table.blocks(backward.rows, backwards=True)
        if weight.requires_grad:
            pair_rows, pair_sources, segments = table.pairs(gradient.segments, gradient.pairs)
    result: Tensor = torch.ops.adperception.sparse_convolution(
        features.contiguous(),
        weight.contiguous(),
        table.sources,
        table.order,
        taps,
        counts,
        back_sources,
        back_order,
        back_taps,
        back_counts,
        pair_rows,
        pair_sources,
        segments,
        table.submanifold,
        float32_precision(),
        list(astuple(forward)),
        list(astuple(backward)),
        list(astuple(gradient)),
    )
    return result


def convolve(
    features: Tensor,
    weight: Tensor,
    table: TapTable,
    output: Tensor,
    blocks: ConvolveBlocks,
    *,
    float32: str,
    backwards: bool,
) -> Tensor:
    """The product alone, without autograd, with given blocks: what is measured to find the best ones.

    Args:
        features: ``(N, in)``, or for ``backwards`` the gradient ``(M, out)`` of the output.
        weight: ``(out, kz, ky, kx, in)``.
        table: which site each row reads.
        output: ``(M, out)``, or for ``backwards`` ``(N, in)``; is filled and returned.
        blocks: how the work is cut.
        float32: precision of float32 products.
        backwards: compute the input gradient.
    """
    sources, order = table.read_backwards() if backwards else (table.sources, table.order)
    taps, counts = table.blocks(blocks.rows, backwards=backwards)
    return run_convolve(
        features,
        weight,
        sources,
        order,
        taps,
        counts,
        output,
        float32,
        astuple(blocks),
        transposed=backwards,
        mirror=backwards and table.submanifold,
    )
