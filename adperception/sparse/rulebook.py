"""Rulebooks: for every tap of a kernel, which input sites meet which output sites.

Sites are sorted by a linear key on a grid that is padded so that a neighbour never wraps into the next row. In that
order the neighbours along x are adjacent, so one binary search serves all taps of a kernel row, and the two halves of
a submanifold kernel mirror each other: searching half of the rows is enough.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Kernel", "Rulebook", "build_strided_rulebook", "build_submanifold_rulebook", "strided_output_shape"]

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Kernel:
    """Extent of a convolution along z, y, x, in cells."""

    size: Shape
    stride: Shape = (1, 1, 1)
    padding: Shape = (0, 0, 0)

    @property
    def volume(self) -> int:
        """Number of taps."""
        return self.size[0] * self.size[1] * self.size[2]


@dataclass(frozen=True)
class Rulebook:
    """Pairs of sites per tap, and the output sites.

    Attributes:
        pairs: per tap (z-major, x fastest) the int64 positions ``(inputs, outputs)`` of the sites it connects. Within
            a tap no output (and no input) occurs twice.
        identity_tap: the tap that connects every site with itself (submanifold kernels), else ``None``; its pairs
            are empty.
        source: the coordinates that it was built from.
        coordinates: ``(M, 4)`` int32 output sites ``(batch, z, y, x)``.
        spatial_shape: output grid ``(D, H, W)``.
        kernel: the kernel it was built for.
    """

    pairs: tuple[tuple[Tensor, Tensor], ...]
    identity_tap: int | None
    source: Tensor
    coordinates: Tensor
    spatial_shape: Shape
    kernel: Kernel

    @property
    def pair_count(self) -> int:
        """Connected pairs of sites: multiply-adds per input and output channel."""
        identity = 0 if self.identity_tap is None else len(self.coordinates)
        return identity + sum(len(inputs) for inputs, _ in self.pairs)


def strided_output_shape(shape: Shape, kernel: Kernel, layer: str = "") -> Shape:
    """Output grid of a strided convolution: ``floor((n + 2 p - k) / s) + 1`` along z, y, x.

    Raises:
        ValueError: if an axis would shrink to nothing.
    """
    output = []
    for axis, n, k, s, p in zip("zyx", shape, kernel.size, kernel.stride, kernel.padding, strict=True):
        cells = (n + 2 * p - k) // s + 1
        if n + 2 * p < k:
            raise ValueError(
                f'sparse_conv "{layer}": {axis} would shrink from {n} to {max(cells, 0)} (kernel {k}, stride {s}, '
                f"padding {p}). Use a smaller voxel size along {axis} or a backbone with less {axis}-stride."
            )
        output.append(cells)
    return output[0], output[1], output[2]


def _linear_keys(coordinates: Tensor, shape: Shape, padding: Shape) -> Tensor:
    """int64 keys ordered by (batch, z, y, x) on a grid with ``padding`` empty cells on both sides of every axis."""
    depth, height, width = (n + 2 * p for n, p in zip(shape, padding, strict=True))
    batch, z, y, x = coordinates.long().unbind(1)
    return ((batch * depth + z + padding[0]) * height + y + padding[1]) * width + x + padding[2]


def build_submanifold_rulebook(coordinates: Tensor, shape: Shape, kernel: Kernel) -> Rulebook:
    """The rulebook of a submanifold convolution: output sites are the input sites.

    Args:
        coordinates: ``(N, 4)`` ``(batch, z, y, x)``, unique, any order.
        shape: grid ``(D, H, W)``.
        kernel: odd extents, stride 1.
    """
    half = tuple(k // 2 for k in kernel.size)
    padding: Shape = (half[0], half[1], half[2])
    keys = _linear_keys(coordinates, shape, padding)
    ordered, order = torch.sort(keys)
    already_sorted = bool((keys == ordered).all()) if len(keys) else True
    height, width = shape[1] + 2 * padding[1], shape[2] + 2 * padding[2]
    # A sentinel past the end stands for "no neighbour" and keeps positions in bounds.
    padded = torch.cat([ordered, ordered.new_full((kernel.size[2] + 1,), torch.iinfo(torch.int64).max)])

    pairs: list[tuple[Tensor, Tensor]] = [(order[:0], order[:0])] * kernel.volume
    centre = kernel.volume // 2
    rows = list(itertools.product(range(-padding[0], padding[0] + 1), range(-padding[1], padding[1] + 1)))
    for row, (dz, dy) in enumerate(rows):
        if (dz, dy) < (0, 0):
            continue  # mirrored below
        first_dx = 1 if (dz, dy) == (0, 0) else -padding[2]
        wanted = ordered + ((dz * height + dy) * width + first_dx)
        position = torch.searchsorted(ordered, wanted)
        for dx in range(first_dx, padding[2] + 1):
            found = padded[position] == wanted
            outputs = found.nonzero().squeeze(1)
            inputs = position[outputs]
            if not already_sorted:
                outputs, inputs = order[outputs], order[inputs]
            tap = row * kernel.size[2] + dx + padding[2]
            pairs[tap] = (inputs, outputs)
            pairs[kernel.volume - 1 - tap] = (outputs, inputs)
            if dx < padding[2]:
                position = position + found  # the next key along x stands directly behind a hit
                wanted = wanted + 1
    return Rulebook(tuple(pairs), centre, coordinates, coordinates, shape, kernel)


def build_strided_rulebook(coordinates: Tensor, shape: Shape, kernel: Kernel, layer: str = "") -> Rulebook:
    """The rulebook of a strided convolution: an output site is active if its receptive field holds an input site.

    Args:
        coordinates: ``(N, 4)`` ``(batch, z, y, x)``, unique, any order.
        shape: grid ``(D, H, W)``.
        kernel: extents, strides and paddings.
        layer: name for error messages.
    """
    output_shape = strided_output_shape(shape, kernel, layer)
    batch, *zyx = coordinates.long().unbind(1)
    # Per axis and tap: the output cell, and whether there is one. Combined per tap by three lookups.
    cells: list[list[Tensor]] = []
    valid: list[list[Tensor]] = []
    for axis in range(3):
        taps = [zyx[axis] + (kernel.padding[axis] - k) for k in range(kernel.size[axis])]
        cells.append([torch.div(t, kernel.stride[axis], rounding_mode="floor") for t in taps])
        valid.append(
            [
                (c * kernel.stride[axis] == t) & (c >= 0) & (c < output_shape[axis])
                for c, t in zip(cells[axis], taps, strict=True)
            ]
        )
    rows = [(batch * output_shape[0] + z) * output_shape[1] + y for z, y in itertools.product(cells[0], cells[1])]
    rows_valid = [a & b for a, b in itertools.product(valid[0], valid[1])]

    inputs: list[Tensor] = []
    keys: list[Tensor] = []
    for row, row_valid in zip(rows, rows_valid, strict=True):
        for x, x_valid in zip(cells[2], valid[2], strict=True):
            hit = (row_valid & x_valid).nonzero().squeeze(1)
            inputs.append(hit)
            keys.append(row[hit] * output_shape[2] + x[hit])
    unique, outputs = torch.unique(torch.cat(keys), return_inverse=True)
    split = outputs.split([len(k) for k in keys])

    x_out = unique % output_shape[2]
    rest = torch.div(unique, output_shape[2], rounding_mode="floor")
    y_out = rest % output_shape[1]
    rest = torch.div(rest, output_shape[1], rounding_mode="floor")
    z_out = rest % output_shape[0]
    b_out = torch.div(rest, output_shape[0], rounding_mode="floor")
    out_coordinates = torch.stack([b_out, z_out, y_out, x_out], dim=1).to(torch.int32)
    return Rulebook(tuple(zip(inputs, split, strict=True)), None, coordinates, out_coordinates, output_shape, kernel)
