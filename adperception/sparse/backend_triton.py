"""The ``triton`` backend: sparse convolution as implicit matrix products on a GPU, with nothing but PyTorch installed.

For every output row and tap a table says which input row is read. Rows are sorted by the set of taps that they use,
so that a block of rows skips the taps that none of them needs; the kernel gathers rows straight into the matrix
product and accumulates in float32. The input gradient is the same kernel along the inverted table, the weight gradient
a product over the list of each tap's pairs. Nothing adds atomically: results are the same bits in every run.

Tables and products are registered as torch operators, so that ``torch.compile`` sees through a layer. Sizes are known
before anything runs: no operator waits for the device.

Shape legend: N input sites, M output sites, K taps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from adperception.sparse import triton_kernels as kernels
from adperception.sparse.rulebook import Kernel, Shape
from adperception.sparse.site_levels import plan_levels
from adperception.sparse.tuning import ConvolveBlocks, convolve_blocks, weight_gradient_blocks

if TYPE_CHECKING:
    from adperception.sparse.tensor import SparseTensor

__all__ = [
    "SortedSites",
    "TapTable",
    "build_table",
    "convolve",
    "float32_precision",
    "set_float32_precision",
    "sparse_convolution",
]

_ROWS = 256
"""Rows per program of the kernels that build tables."""

FLOAT32_PRECISIONS = ("ieee", "tf32x3", "tf32")
_state = {"float32": "ieee"}


def set_float32_precision(name: str) -> None:
    """How float32 products are computed.

    Args:
        name: ``"ieee"`` (default) in float32 throughout; ``"tf32x3"`` as three products of TF32 parts on tensor cores,
            nearly as exact; ``"tf32"`` with 10 bits of mantissa, as cuDNN's convolutions do by default.
    """
    if name not in FLOAT32_PRECISIONS:
        raise ValueError(f'float32 precision "{name}" is unknown. Available: {", ".join(FLOAT32_PRECISIONS)}.')
    _state["float32"] = name


def float32_precision() -> str:
    """The chosen precision of float32 products."""
    return _state["float32"]


@dataclass(frozen=True)
class SortedSites:
    """Sites of a grid, ready to be looked up.

    Attributes:
        keys: ``(N,)`` linear keys in ascending order, int32 if the whole grid can be numbered with it.
        positions: ``(N,)`` int32, where each of them stands among the coordinates.
        shape: the grid.
    """

    keys: Tensor
    positions: Tensor
    shape: Shape

    @classmethod
    def of(cls, coordinates: Tensor, shape: Shape, batch_size: int) -> SortedSites:
        """Sort ``(N, 4)`` coordinates (batch, z, y, x)."""
        keys, positions = torch.ops.adperception.sort_sites(coordinates, list(shape), batch_size)
        return cls(keys, positions, shape)


@dataclass
class TapTable:
    """Which site every row reads at every tap.

    Attributes:
        sources: ``(K, M)`` int32 position of the site, or -1; column m belongs to row ``order[m]``.
        order: ``(M,)`` int32, the rows sorted by the set of taps that they use.
        sites: number of sites that are read, N.
        coordinates: ``(M, 4)`` int32 cells of the rows (batch, z, y, x).
        spatial_shape: their grid.
        kernel: the kernel it was built for.
        source: the coordinates that are read.
        submanifold: rows and sites are the same, so that the table read backwards is itself.
    """

    sources: Tensor
    order: Tensor
    sites: int
    coordinates: Tensor
    spatial_shape: Shape
    kernel: Kernel
    source: Tensor
    submanifold: bool
    _inverse: tuple[Tensor, Tensor] | None = None
    _blocks: dict[tuple[bool, int], tuple[Tensor, Tensor]] = field(default_factory=dict)
    _pairs: dict[tuple[int, int], tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)

    @classmethod
    def build(
        cls,
        sites: SortedSites,
        source: Tensor,
        coordinates: Tensor,
        spatial_shape: Shape,
        kernel: Kernel,
        *,
        submanifold: bool,
    ) -> TapTable:
        """Look up all neighbours.

        Args:
            sites: what is read.
            source: its coordinates ``(N, 4)``.
            coordinates: ``(M, 4)`` output sites; for a submanifold kernel ``source`` itself.
            spatial_shape: the output grid.
            kernel: extents, strides, paddings; only extents count for a submanifold kernel.
            submanifold: centred kernel of stride 1.
        """
        padding = tuple(k // 2 for k in kernel.size) if submanifold else kernel.padding
        sources, order = torch.ops.adperception.tap_table(
            sites.keys,
            sites.positions,
            coordinates,
            list(sites.shape),
            list(kernel.size),
            list(kernel.stride),
            list(padding),
        )
        return cls(sources, order, len(source), coordinates, spatial_shape, kernel, source, submanifold)

    def read_backwards(self) -> tuple[Tensor, Tensor]:
        """``sources`` ``(K, N)`` and ``order`` of the input gradient. Submanifold: the same, with mirrored taps."""
        if self.submanifold:
            return self.sources, self.order
        if self._inverse is None:
            self._inverse = torch.ops.adperception.invert_table(self.sources, self.order, self.sites)
        return self._inverse

    def blocks(self, rows: int, *, backwards: bool = False) -> tuple[Tensor, Tensor]:
        """The taps used by each block of ``rows`` rows, and their number."""
        backwards = backwards and not self.submanifold
        if (backwards, rows) not in self._blocks:
            sources = self.read_backwards()[0] if backwards else self.sources
            self._blocks[backwards, rows] = torch.ops.adperception.block_taps(sources, rows)
        return self._blocks[backwards, rows]

    def pairs(self, segments: int, least: int) -> tuple[Tensor, Tensor, Tensor]:
        """Rows and sites of all pairs, tap after tap, and how they are cut into segments."""
        if (segments, least) not in self._pairs:
            self._pairs[segments, least] = torch.ops.adperception.tap_pairs(self.sources, self.order, segments, least)
        return self._pairs[segments, least]


def build_table(x: SparseTensor, kernel: Kernel, layer: str, *, submanifold: bool, key: str | None) -> TapTable:
    """The table of a layer on the sites of ``x``.

    Output sites of a strided layer are taken from ``x.cache.planned[key]``. Without an entry they are found here, and
    the host has to wait for their number.
    """
    sites = _sorted_sites(x)
    if submanifold:
        return TapTable.build(sites, x.coordinates, x.coordinates, x.spatial_shape, kernel, submanifold=True)
    planned = x.cache.planned.get(key) if key is not None else None
    if planned is None:
        pending = plan_levels(x.coordinates, x.spatial_shape, x.batch_size, [(layer, kernel)])
        planned = pending.sites(pending.counts.tolist())[0][layer]
    return TapTable.build(sites, x.coordinates, planned.coordinates, planned.spatial_shape, kernel, submanifold=False)


def _sorted_sites(x: SparseTensor) -> SortedSites:
    for coordinates, known in x.cache.sorted_sites:
        if coordinates is x.coordinates:
            return known  # type: ignore[no-any-return]
    sites = SortedSites.of(x.coordinates, x.spatial_shape, x.batch_size)
    x.cache.sorted_sites.append((x.coordinates, sites))
    return sites


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
    return _convolve(
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


# Operators. Each has a function that computes and one that says the shapes; both know every size from their arguments.


@torch.library.custom_op("adperception::sort_sites", mutates_args=())
def _sort_sites(coordinates: Tensor, shape: Sequence[int], batch_size: int) -> tuple[Tensor, Tensor]:
    depth, height, width = shape
    # Half of the bytes to sort, wherever the cells of the grid can be numbered so.
    batch, z, y, x = coordinates.to(_key_type(shape, batch_size)).unbind(1)
    keys, order = torch.sort(((batch * depth + z) * height + y) * width + x)
    return keys, order.int()


@_sort_sites.register_fake
def _(coordinates: Tensor, shape: Sequence[int], batch_size: int) -> tuple[Tensor, Tensor]:
    sites = coordinates.shape[0]
    return (
        coordinates.new_empty(sites, dtype=_key_type(shape, batch_size)),
        coordinates.new_empty(sites, dtype=torch.int32),
    )


def _key_type(shape: Sequence[int], batch_size: int) -> torch.dtype:
    depth, height, width = shape
    return torch.int32 if batch_size * depth * height * width < 2**31 else torch.int64


@torch.library.custom_op("adperception::tap_table", mutates_args=())
def _tap_table(
    keys: Tensor,
    positions: Tensor,
    coordinates: Tensor,
    shape: Sequence[int],
    size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
) -> tuple[Tensor, Tensor]:
    rows, volume = len(coordinates), size[0] * size[1] * size[2]
    coordinates = coordinates.int().contiguous()
    sources = coordinates.new_empty(volume, rows)
    if rows:
        with _on(sources):
            kernels.find_sources[_cut(rows, _ROWS), size[0] * size[1]](
                keys,
                positions,
                coordinates,
                sources,
                len(keys),
                rows,
                len(keys).bit_length(),
                *shape,
                *stride,
                *padding,
                size[1],
                size[2],
                BLOCK=_ROWS,
            )
    return _by_taps(sources)


@_tap_table.register_fake
def _(
    keys: Tensor,
    positions: Tensor,
    coordinates: Tensor,
    shape: Sequence[int],
    size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
) -> tuple[Tensor, Tensor]:
    rows = coordinates.shape[0]
    return (
        coordinates.new_empty(size[0] * size[1] * size[2], rows, dtype=torch.int32),
        coordinates.new_empty(rows, dtype=torch.int32),
    )


@torch.library.custom_op("adperception::invert_table", mutates_args=())
def _invert_table(sources: Tensor, order: Tensor, sites: int) -> tuple[Tensor, Tensor]:
    volume, rows = sources.shape
    inverse = sources.new_full((volume, sites), -1)
    if rows and sites:
        with _on(sources):
            kernels.invert_sources[_cut(rows, _ROWS), volume](sources, order, inverse, rows, sites, BLOCK=_ROWS)
    return _by_taps(inverse)


@_invert_table.register_fake
def _(sources: Tensor, order: Tensor, sites: int) -> tuple[Tensor, Tensor]:
    return sources.new_empty(sources.shape[0], sites), sources.new_empty(sites)


def _by_taps(sources: Tensor) -> tuple[Tensor, Tensor]:
    """The table with its columns sorted by the set of taps that they use, and the columns' rows."""
    volume, rows = sources.shape
    masks = sources.new_empty(rows)
    if rows:
        with _on(sources):
            kernels.tap_masks[_cut(rows, _ROWS),](sources, masks, rows, VOLUME=volume, BLOCK=_ROWS)
    # Stable: rows of one set stay in the order of their cells, and the order is the same in every run.
    order = torch.sort(masks, stable=True).indices
    return sources.index_select(1, order), order.int()


@torch.library.custom_op("adperception::block_taps", mutates_args=())
def _block_taps(sources: Tensor, block_rows: int) -> tuple[Tensor, Tensor]:
    volume, rows = sources.shape
    blocks = _cut(rows, block_rows)
    taps, counts = sources.new_empty(blocks, volume), sources.new_empty(blocks)
    if rows:
        with _on(sources):
            kernels.block_taps[blocks,](sources, taps, counts, rows, VOLUME=volume, BLOCK=block_rows)
    return taps, counts


@_block_taps.register_fake
def _(sources: Tensor, block_rows: int) -> tuple[Tensor, Tensor]:
    blocks = (sources.shape[1] + block_rows - 1) // block_rows
    return sources.new_empty(blocks, sources.shape[0]), sources.new_empty(blocks)


@torch.library.custom_op("adperception::tap_pairs", mutates_args=())
def _tap_pairs(sources: Tensor, order: Tensor, segments: int, least: int) -> tuple[Tensor, Tensor, Tensor]:
    volume, rows = sources.shape
    # As long as the longest possible list: the true length stays on the device.
    pair_rows, pair_sources = sources.new_empty(volume * rows), sources.new_empty(volume * rows)
    taps = _tap_lanes(volume)
    plan = sources.new_zeros(2 * taps + 3)
    if rows:
        blocks = _cut(rows, _ROWS)
        counts = sources.new_empty(volume, blocks)
        with _on(sources):
            kernels.count_pairs[blocks, volume](sources, counts, rows, blocks, BLOCK=_ROWS)
            ends = counts.flatten().cumsum(0, dtype=torch.int32)
            kernels.write_pairs[blocks, volume](
                sources, order, ends, pair_rows, pair_sources, rows, blocks, BLOCK=_ROWS
            )
            kernels.plan_segments[1,](ends, plan, blocks, segments, least, VOLUME=volume, TAPS=taps)
    return pair_rows, pair_sources, plan


@_tap_pairs.register_fake
def _(sources: Tensor, order: Tensor, segments: int, least: int) -> tuple[Tensor, Tensor, Tensor]:
    volume, rows = sources.shape
    return (
        sources.new_empty(volume * rows),
        sources.new_empty(volume * rows),
        sources.new_empty(2 * _tap_lanes(volume) + 3),
    )


@torch.library.custom_op("adperception::sparse_convolution", mutates_args=())
def _sparse_convolution(
    features: Tensor,
    weight: Tensor,
    sources: Tensor,
    order: Tensor,
    taps: Tensor,
    counts: Tensor,
    back_sources: Tensor,
    back_order: Tensor,
    back_taps: Tensor,
    back_counts: Tensor,
    pair_rows: Tensor,
    pair_sources: Tensor,
    segments: Tensor,
    submanifold: bool,
    precision: str,
    forward_blocks: Sequence[int],
    backward_blocks: Sequence[int],
    gradient_blocks: Sequence[int],
) -> Tensor:
    output = features.new_empty(sources.shape[1], weight.shape[0])
    return _convolve(
        features,
        weight,
        sources,
        order,
        taps,
        counts,
        output,
        precision,
        forward_blocks,
        transposed=False,
        mirror=False,
    )


@_sparse_convolution.register_fake
def _(features: Tensor, weight: Tensor, sources: Tensor, *rest: Any) -> Tensor:
    return features.new_empty(sources.shape[1], weight.shape[0])


@torch.library.custom_op("adperception::sparse_convolution_input_gradient", mutates_args=())
def _input_gradient(
    gradient: Tensor,
    weight: Tensor,
    sources: Tensor,
    order: Tensor,
    taps: Tensor,
    counts: Tensor,
    submanifold: bool,
    precision: str,
    blocks: Sequence[int],
) -> Tensor:
    output = gradient.new_empty(sources.shape[1], weight.shape[4])
    return _convolve(
        gradient, weight, sources, order, taps, counts, output, precision, blocks, transposed=True, mirror=submanifold
    )


@_input_gradient.register_fake
def _(gradient: Tensor, weight: Tensor, sources: Tensor, *rest: Any) -> Tensor:
    return gradient.new_empty(sources.shape[1], weight.shape[4])


@torch.library.custom_op("adperception::sparse_convolution_weight_gradient", mutates_args=())
def _weight_gradient(
    features: Tensor,
    gradient: Tensor,
    weight: Tensor,
    pair_rows: Tensor,
    pair_sources: Tensor,
    plan: Tensor,
    precision: str,
    blocks: Sequence[int],
) -> Tensor:
    outputs, *size, inputs = weight.shape
    volume = size[0] * size[1] * size[2]
    if not (len(features) and len(gradient)):
        return torch.zeros_like(weight)
    pairs, block_in, block_out, segments, warps, stages = blocks
    taps = _tap_lanes(volume)
    # Every tap may leave one segment that is not full; a small input has fewer than were asked for.
    segments = min(segments, _cut(len(pair_rows), pairs)) + volume
    partial = torch.empty(segments, outputs, inputs, dtype=torch.float32, device=weight.device)
    result = torch.empty_like(weight, memory_format=torch.contiguous_format)
    with _on(features):
        kernels.weight_gradient[segments, _cut(outputs, block_out), _cut(inputs, block_in)](
            features,
            gradient,
            pair_rows,
            pair_sources,
            plan,
            partial,
            IN=inputs,
            OUT=outputs,
            PRECISION=precision,
            TAPS=taps,
            BLOCK_PAIRS=pairs,
            BLOCK_IN=block_in,
            BLOCK_OUT=block_out,
            num_warps=warps,
            num_stages=stages,
        )
        kernels.add_segments[volume, _cut(outputs * inputs, _ROWS)](
            partial, plan, result, IN=inputs, OUT=outputs, VOLUME=volume, TAPS=taps, BLOCK=_ROWS
        )
    return result


@_weight_gradient.register_fake
def _(features: Tensor, gradient: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(weight, memory_format=torch.contiguous_format)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.submanifold, ctx.precision, _, ctx.backward_blocks, ctx.gradient_blocks = inputs
    features, weight, _, _, _, _, *back = tensors
    ctx.save_for_backward(features, weight, *back)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    features, weight, sources, order, taps, counts, pair_rows, pair_sources, segments = ctx.saved_tensors
    gradient = gradient.contiguous()
    for_features: Tensor | None = None
    for_weight: Tensor | None = None
    if ctx.needs_input_grad[0]:
        for_features = torch.ops.adperception.sparse_convolution_input_gradient(
            gradient, weight, sources, order, taps, counts, ctx.submanifold, ctx.precision, ctx.backward_blocks
        )
    if ctx.needs_input_grad[1]:
        for_weight = torch.ops.adperception.sparse_convolution_weight_gradient(
            features, gradient, weight, pair_rows, pair_sources, segments, ctx.precision, ctx.gradient_blocks
        )
    return for_features, for_weight, *(None,) * 16


_sparse_convolution.register_autograd(_backward, setup_context=_remember)


def _convolve(
    features: Tensor,
    weight: Tensor,
    sources: Tensor,
    order: Tensor,
    taps: Tensor,
    counts: Tensor,
    output: Tensor,
    precision: str,
    options: Sequence[int],
    *,
    transposed: bool,
    mirror: bool,
) -> Tensor:
    """Fill ``output`` along the table."""
    blocks = ConvolveBlocks(*options)
    rows, channels = output.shape
    if not rows:
        return output
    if not len(features):
        return output.zero_()
    with _on(features):
        kernels.convolve[_cut(rows, blocks.rows), _cut(channels, blocks.out_channels)](
            features,
            # Rounded once here, and not by autocast: the gradient of a float32 weight stays float32.
            weight.to(features.dtype),
            sources,
            order,
            taps,
            counts,
            output,
            rows,
            IN=features.shape[1],
            OUT=channels,
            VOLUME=sources.shape[0],
            TRANSPOSED=transposed,
            MIRRORED=mirror,
            PRECISION=precision,
            BLOCK_ROWS=blocks.rows,
            BLOCK_IN=blocks.in_channels,
            BLOCK_OUT=blocks.out_channels,
            num_warps=blocks.warps,
            num_stages=blocks.stages,
        )
    return output


def _cut(total: int, block: int) -> int:
    """How many blocks hold ``total``."""
    return -(-total // block)


def _tap_lanes(volume: int) -> int:
    """A power of two above the number of taps."""
    return 1 << volume.bit_length()


def _on(tensor: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Kernels start on the current device, which need not be the tensor's."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
