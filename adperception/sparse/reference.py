"""The slow readable twin of the sparse convolutions: loops over sites, for tests and for reading."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from adperception.sparse.rulebook import Kernel, Shape, strided_output_shape

__all__ = ["sparse_convolution_reference"]


def sparse_convolution_reference(
    features: Tensor, coordinates: Tensor, shape: Shape, weight: Tensor, kernel: Kernel, *, submanifold: bool
) -> tuple[Tensor, Tensor]:
    """Sparse convolution, one site and one tap at a time.

    Args:
        features: ``(N, in)``.
        coordinates: ``(N, 4)`` ``(batch, z, y, x)``.
        shape: grid ``(D, H, W)``.
        weight: ``(out, kz, ky, kx, in)``.
        kernel: extents, strides, paddings (ignored but for the extents when ``submanifold``).
        submanifold: keep the active sites instead of activating every touched one.

    Returns:
        Output features ``(M, out)`` and their coordinates ``(M, 4)``: in input order for submanifold kernels, sorted
        by (batch, z, y, x) otherwise.
    """
    if submanifold:
        kernel = Kernel(kernel.size, (1, 1, 1), tuple(k // 2 for k in kernel.size))  # type: ignore[arg-type]
    output_shape = strided_output_shape(shape, kernel)
    taps = list(itertools.product(*(range(k) for k in kernel.size)))
    site_of = {tuple(c): i for i, c in enumerate(coordinates.tolist())}

    def receptive_field(b: int, *cell: int) -> list[tuple[tuple[int, ...], int]]:
        found = []
        for tap in taps:
            source = tuple(o * s - p + t for o, s, p, t in zip(cell, kernel.stride, kernel.padding, tap, strict=True))
            if (b, *source) in site_of:
                found.append((tap, site_of[(b, *source)]))
        return found

    if submanifold:
        sites = [tuple(c) for c in coordinates.tolist()]
    else:
        batches = sorted({c[0] for c in site_of})
        grid = itertools.product(batches, *(range(n) for n in output_shape))
        sites = [site for site in grid if receptive_field(*site)]
    rows = []
    for site in sites:
        row = features.new_zeros(weight.shape[0])
        for (kz, ky, kx), source in receptive_field(*site):
            row = row + weight[:, kz, ky, kx] @ features[source]
        rows.append(row)
    output = torch.stack(rows) if rows else features.new_zeros(0, weight.shape[0])
    return output, torch.tensor(sites, dtype=torch.int32).reshape(-1, 4)
