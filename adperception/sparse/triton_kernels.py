"""Triton kernels of the sparse convolution: lookup of neighbours, implicit matrix products, weight gradients.

Every kernel writes each of its outputs once and adds in a fixed order (no atomic operations), so equal inputs give
equal bits. ``sparse/reference.py`` and the ``torch`` backend are their readable twins. Importing this needs Triton.

Shape legend: N sites that are read, M rows that are computed, K taps (z-major, x fastest), I input and O output
channels of the product at hand, P pairs of a row and a site it reads.
"""

from __future__ import annotations

import triton
import triton.language as tl

__all__ = [
    "add_segments",
    "block_taps",
    "convolve",
    "count_pairs",
    "find_sources",
    "invert_sources",
    "plan_segments",
    "tap_masks",
    "weight_gradient",
    "write_pairs",
]


@triton.jit(do_not_specialize=["key_count", "rows", "search_steps", "depth", "height", "width"])
def find_sources(
    keys,
    positions,
    coordinates,
    sources,
    key_count,
    rows,
    search_steps,
    depth,
    height,
    width,
    STRIDE_Z: tl.constexpr,
    STRIDE_Y: tl.constexpr,
    STRIDE_X: tl.constexpr,
    PADDING_Z: tl.constexpr,
    PADDING_Y: tl.constexpr,
    PADDING_X: tl.constexpr,
    SIZE_Y: tl.constexpr,
    SIZE_X: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """``sources[k, m]``: position of the site that row m reads at tap k, or -1. Grid: (blocks of rows, K / SIZE_X).

    ``keys`` (N,) are the sorted linear keys of the sites, ``positions`` (N,) where each of them stands in the input,
    ``coordinates`` (M, 4) the rows' cells (batch, z, y, x). One binary search serves the taps of a kernel row, because
    neighbours along x stand next to each other in the order of the keys.
    """
    lanes = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    present = lanes < rows
    kernel_row = tl.program_id(1)
    batch = tl.load(coordinates + lanes * 4, mask=present, other=0)
    z = tl.load(coordinates + lanes * 4 + 1, mask=present, other=0)
    y = tl.load(coordinates + lanes * 4 + 2, mask=present, other=0)
    x = tl.load(coordinates + lanes * 4 + 3, mask=present, other=0)
    z = z * STRIDE_Z - PADDING_Z + kernel_row // SIZE_Y
    y = y * STRIDE_Y - PADDING_Y + kernel_row % SIZE_Y
    x = x * STRIDE_X - PADDING_X
    inside = present & (z >= 0) & (z < depth) & (y >= 0) & (y < height)

    key_type = keys.dtype.element_ty
    wanted = ((batch.to(key_type) * depth + z) * height + y) * width + x
    low = tl.zeros((BLOCK,), tl.int32)
    high = tl.zeros((BLOCK,), tl.int32) + key_count
    for _ in range(search_steps):
        middle = (low + high) // 2
        searching = low < high
        found = tl.load(keys + middle, mask=searching, other=0)
        smaller = searching & (found < wanted)
        low = tl.where(smaller, middle + 1, low)
        high = tl.where(searching & (found >= wanted), middle, high)

    for step in range(SIZE_X):
        in_keys = low < key_count
        found = tl.load(keys + low, mask=in_keys, other=0)
        equal = in_keys & (found == wanted)
        # A cell beside the grid has the key of a cell in the next row: it moves the search on but is no neighbour.
        hit = equal & inside & (x >= 0) & (x < width)
        position = tl.load(positions + low, mask=hit, other=-1)
        tap = kernel_row * SIZE_X + step
        tl.store(sources + tap.to(tl.int64) * rows + lanes, position, mask=present)
        low = low + equal.to(tl.int32)
        wanted = wanted + 1
        x = x + 1


@triton.jit(do_not_specialize=["rows", "sites"])
def invert_sources(sources, order, targets, rows, sites, BLOCK: tl.constexpr):
    """``targets[k, n] = m`` for every pair: which row reads site n at tap k. Grid: (blocks of rows, K).

    ``sources`` (K, M) is in the order ``order`` (M,); ``targets`` (K, N) must hold -1. A tap reads a site once at most.
    """
    lanes = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    present = lanes < rows
    tap = tl.program_id(1).to(tl.int64)
    source = tl.load(sources + tap * rows + lanes, mask=present, other=-1)
    row = tl.load(order + lanes, mask=present, other=0)
    tl.store(targets + tap * sites + source, row, mask=source >= 0)


@triton.jit(do_not_specialize=["rows"])
def tap_masks(sources, masks, rows, VOLUME: tl.constexpr, BLOCK: tl.constexpr):
    """``masks[m]``: bit k is set if row m reads a site at tap k. Grid: blocks of rows. K <= 31."""
    lanes = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    present = lanes < rows
    mask = tl.zeros((BLOCK,), tl.int32)
    for tap in range(VOLUME):
        source = tl.load(sources + tl.cast(tap, tl.int64) * rows + lanes, mask=present, other=-1)
        mask = mask | ((source >= 0).to(tl.int32) << tap)
    tl.store(masks + lanes, mask, mask=present)


@triton.jit(do_not_specialize=["rows"])
def block_taps(sources, taps, counts, rows, VOLUME: tl.constexpr, BLOCK: tl.constexpr):
    """The taps at which any row of a block reads a site: ``taps[block, :counts[block]]``. Grid: blocks of rows."""
    block = tl.program_id(0)
    lanes = block * BLOCK + tl.arange(0, BLOCK)
    count = 0
    for tap in range(VOLUME):
        source = tl.load(sources + tl.cast(tap, tl.int64) * rows + lanes, mask=lanes < rows, other=-1)
        hit = tl.max(source, axis=0) >= 0
        tl.store(taps + block * VOLUME + count, tap, mask=hit)
        count += hit.to(tl.int32)
    tl.store(counts + block, count)


@triton.jit(do_not_specialize=["rows"])
def convolve(
    features,
    weight,
    sources,
    order,
    taps,
    tap_counts,
    output,
    rows,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    VOLUME: tl.constexpr,
    TRANSPOSED: tl.constexpr,
    MIRRORED: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
):
    """``output[order[m]] = sum over k of features[sources[k, m]] @ matrix(k)``. Grid: (blocks of rows, blocks of O).

    The implicit matrix product of the forward pass, with ``weight`` (O, K, I), and of the input gradient, where
    ``TRANSPOSED`` takes ``weight`` as (I, K, O); ``MIRRORED`` takes tap K - 1 - k for k, which is how a submanifold
    convolution is read backwards. Rows are ordered so that those of a block use the same taps; ``taps`` lists these.
    Sums are float32.
    """
    block = tl.program_id(0)
    lanes = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    present = lanes < rows
    row = tl.load(order + lanes, mask=present, other=0)
    out_channel = tl.program_id(1) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
    out_present = out_channel < OUT
    chunks: tl.constexpr = (IN + BLOCK_IN - 1) // BLOCK_IN
    total = tl.zeros((BLOCK_ROWS, BLOCK_OUT), tl.float32)
    # One flat loop over taps and chunks of channels, so that the next step's loads overlap with this one's product.
    for step in range(tl.load(tap_counts + block) * chunks):
        tap = tl.load(taps + block * VOLUME + step // chunks)
        in_channel = (step % chunks) * BLOCK_IN + tl.arange(0, BLOCK_IN)
        source = tl.load(sources + tap.to(tl.int64) * rows + lanes, mask=present, other=-1)
        a_present = (source >= 0)[:, None]
        b_present = out_present[None, :]
        if IN % BLOCK_IN != 0:
            a_present = a_present & (in_channel < IN)[None, :]
            b_present = b_present & (in_channel < IN)[:, None]
        a = tl.load(features + source[:, None].to(tl.int64) * IN + in_channel[None, :], mask=a_present, other=0.0)
        weight_tap = VOLUME - 1 - tap if MIRRORED else tap
        if TRANSPOSED:
            b_place = (in_channel[:, None] * VOLUME + weight_tap) * OUT + out_channel[None, :]
        else:
            b_place = (out_channel[None, :] * VOLUME + weight_tap) * IN + in_channel[:, None]
        b = tl.load(weight + b_place, mask=b_present, other=0.0)
        total = tl.dot(a, b, total, input_precision=PRECISION)
    place = output + row[:, None].to(tl.int64) * OUT + out_channel[None, :]
    tl.store(place, total.to(output.dtype.element_ty), mask=present[:, None] & out_present[None, :])


@triton.jit(do_not_specialize=["rows", "blocks"])
def count_pairs(sources, counts, rows, blocks, BLOCK: tl.constexpr):
    """``counts[k, block]``: how many rows of a block read a site at tap k. Grid: (blocks of rows, K)."""
    lanes = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tap = tl.program_id(1).to(tl.int64)
    source = tl.load(sources + tap * rows + lanes, mask=lanes < rows, other=-1)
    tl.store(counts + tap * blocks + tl.program_id(0), tl.sum((source >= 0).to(tl.int32), axis=0))


@triton.jit(do_not_specialize=["rows", "blocks"])
def write_pairs(sources, order, ends, pair_rows, pair_sources, rows, blocks, BLOCK: tl.constexpr):
    """Lists the pairs of each tap, tap after tap. Grid: (blocks of rows, K).

    ``ends`` (K, blocks) is the running sum of ``count_pairs``.
    """
    lanes = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    present = lanes < rows
    tap = tl.program_id(1).to(tl.int64)
    source = tl.load(sources + tap * rows + lanes, mask=present, other=-1)
    row = tl.load(order + lanes, mask=present, other=0)
    hit = (source >= 0).to(tl.int32)
    end = tl.load(ends + tap * blocks + tl.program_id(0))
    place = end - tl.sum(hit, axis=0) + tl.cumsum(hit, axis=0) - 1
    tl.store(pair_rows + place, row, mask=source >= 0)
    tl.store(pair_sources + place, source, mask=source >= 0)


@triton.jit(do_not_specialize=["blocks", "wanted", "least"])
def plan_segments(ends, segments, blocks, wanted, least, VOLUME: tl.constexpr, TAPS: tl.constexpr):
    """Cuts each tap's list of pairs into segments of one length, about ``wanted`` in all. One program.

    ``segments`` (2, TAPS + 1) becomes: where each tap's list begins (and, last, ends), and the number of its first
    segment; ``segments[2 * (TAPS + 1)]`` the length. TAPS is a power of two above K; taps from K on are empty.
    """
    tap = tl.arange(0, TAPS)
    end = tl.load(ends + (tap + 1) * blocks - 1, mask=tap < VOLUME, other=0)
    begin = tl.load(ends + tap * blocks - 1, mask=(tap > 0) & (tap < VOLUME), other=0)
    pairs = tl.max(end, axis=0)
    begin = tl.where(tap < VOLUME, begin, pairs)
    count = tl.where(tap < VOLUME, end - begin, 0)
    length = tl.maximum((pairs + wanted - 1) // wanted, 1)
    length = (length + least - 1) // least * least
    number = (count + length - 1) // length
    tl.store(segments + tap, begin)
    tl.store(segments + TAPS, pairs)
    tl.store(segments + TAPS + 1 + tap, tl.cumsum(number, axis=0) - number)
    tl.store(segments + 2 * TAPS + 1, tl.sum(number, axis=0))
    tl.store(segments + 2 * TAPS + 2, length)


@triton.jit
def weight_gradient(
    features,
    gradient,
    pair_rows,
    pair_sources,
    segments,
    partial,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    PRECISION: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK_PAIRS: tl.constexpr,
    BLOCK_IN: tl.constexpr,
    BLOCK_OUT: tl.constexpr,
):
    """``partial[segment] = sum over its pairs of gradient[row]^T features[source]``, (O, I) float32.

    Grid: (most segments, blocks of O, blocks of I). ``segments`` as ``plan_segments`` gives it.
    """
    segment = tl.program_id(0)
    first_of_tap = tl.load(segments + TAPS + 1 + tl.arange(0, TAPS))
    if segment < tl.load(segments + 2 * TAPS + 1):
        tap = tl.sum((first_of_tap <= segment).to(tl.int32), axis=0) - 1
        length = tl.load(segments + 2 * TAPS + 2)
        begin = tl.load(segments + tap) + (segment - tl.load(segments + TAPS + 1 + tap)) * length
        end = tl.minimum(begin + length, tl.load(segments + tap + 1))
        out_channel = tl.program_id(1) * BLOCK_OUT + tl.arange(0, BLOCK_OUT)
        in_channel = tl.program_id(2) * BLOCK_IN + tl.arange(0, BLOCK_IN)
        out_present, in_present = out_channel < OUT, in_channel < IN
        total = tl.zeros((BLOCK_OUT, BLOCK_IN), tl.float32)
        for start in range(begin, end, BLOCK_PAIRS):
            pair = start + tl.arange(0, BLOCK_PAIRS)
            present = pair < end
            row = tl.load(pair_rows + pair, mask=present, other=0).to(tl.int64)
            source = tl.load(pair_sources + pair, mask=present, other=0).to(tl.int64)
            g = tl.load(
                gradient + row[None, :] * OUT + out_channel[:, None],
                mask=out_present[:, None] & present[None, :],
                other=0.0,
            )
            x = tl.load(
                features + source[:, None] * IN + in_channel[None, :],
                mask=present[:, None] & in_present[None, :],
                other=0.0,
            )
            total = tl.dot(g, x, total, input_precision=PRECISION)
        place = (segment.to(tl.int64) * OUT + out_channel[:, None]) * IN + in_channel[None, :]
        tl.store(partial + place, total, mask=out_present[:, None] & in_present[None, :])


@triton.jit
def add_segments(
    partial,
    segments,
    result,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    VOLUME: tl.constexpr,
    TAPS: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """``result[o, k, i]``: the sum over the segments of tap k, in their order. Grid: (K, blocks of O * I)."""
    tap = tl.program_id(0)
    element = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    present = element < OUT * IN
    total = tl.zeros((BLOCK,), tl.float32)
    for segment in range(tl.load(segments + TAPS + 1 + tap), tl.load(segments + TAPS + 2 + tap)):
        total += tl.load(partial + tl.cast(segment, tl.int64) * (OUT * IN) + element, mask=present, other=0.0)
    place = (element // IN * VOLUME + tap) * IN + element % IN
    tl.store(result + place, total.to(result.dtype.element_ty), mask=present)
