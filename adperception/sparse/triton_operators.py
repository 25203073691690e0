"""Torch operators around the Triton kernels: tables of neighbours, products along them, gradients.

Each operator has a function that computes and one that only says the shapes, for tracing; both know every size from
their arguments, so none waits for the device. They are registered when this module is imported.

Shape legend: N input sites, M output sites, K taps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from adperception.sparse import triton_kernels as kernels
from adperception.sparse.tuning import ConvolveBlocks

__all__ = ["TABLE_ROWS", "run_convolve"]

TABLE_ROWS = 256
"""Rows per program of the kernels that build tables."""


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
            kernels.find_sources[_cut(rows, TABLE_ROWS), size[0] * size[1]](
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
                BLOCK=TABLE_ROWS,
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
            kernels.invert_sources[_cut(rows, TABLE_ROWS), volume](
                sources, order, inverse, rows, sites, BLOCK=TABLE_ROWS
            )
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
            kernels.tap_masks[_cut(rows, TABLE_ROWS),](sources, masks, rows, VOLUME=volume, BLOCK=TABLE_ROWS)
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
        blocks = _cut(rows, TABLE_ROWS)
        counts = sources.new_empty(volume, blocks)
        with _on(sources):
            kernels.count_pairs[blocks, volume](sources, counts, rows, blocks, BLOCK=TABLE_ROWS)
            ends = counts.flatten().cumsum(0, dtype=torch.int32)
            kernels.write_pairs[blocks, volume](
                sources, order, ends, pair_rows, pair_sources, rows, blocks, BLOCK=TABLE_ROWS
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
    return run_convolve(
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
    return run_convolve(
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
        kernels.add_segments[volume, _cut(outputs * inputs, TABLE_ROWS)](
            partial, plan, result, IN=inputs, OUT=outputs, VOLUME=volume, TAPS=taps, BLOCK=TABLE_ROWS
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


def run_convolve(
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
