"""Measure on a GPU: which sparse backend is the fastest, and which block sizes the Triton kernels should have.

The job is that of training: ``VoxelBackBone8x`` on simulated streets with KITTI's voxels, forward and backward. Results
go to the file that :mod:`adperception.sparse.tuning` reads; models that run never tune.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from adperception.geometry.voxelization import VoxelCollate, Voxelizer
from adperception.models.backbones.voxel_backbone_8x import VoxelBackBone8x
from adperception.simulation.lidar_sensor import LidarSensor
from adperception.simulation.simulate_kitti import simulate_frame
from adperception.sparse import SparseConvolution, SparseTensor, use_backend
from adperception.sparse.precision import float32_precision
from adperception.sparse.tuning import (
    ConvolveBlocks,
    DeviceTuning,
    WeightGradientBlocks,
    as_options,
    block_key,
    convolve_blocks,
    weight_gradient_blocks,
    write_tuning,
)
from adperception.structures import LidarFrame, PointCloud, VoxelGrid, Voxels

if TYPE_CHECKING:  # needs Triton
    from adperception.sparse.triton_table import TapTable

__all__ = ["PRECISIONS", "Tuned", "measure_backends", "street_voxels", "tune_blocks"]

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

RANGE, VOXEL, MAX_VOXELS = [0.0, -40.0, -3.0, 70.4, 40.0, 1.0], [0.05, 0.05, 0.1], 16_000


@dataclass(frozen=True)
class Tuned:
    """What came out for one kernel.

    Attributes:
        key: kernel, precision, channels, taps and size class.
        before: milliseconds with the blocks that were in use.
        after: milliseconds with the best ones.
        blocks: these.
    """

    key: str
    before: float
    after: float
    blocks: ConvolveBlocks | WeightGradientBlocks


def street_voxels(frames: int, device: torch.device, *, columns: int = 2083) -> tuple[VoxelGrid, Voxels]:
    """A batch of simulated streets, seen by a LiDAR of KITTI's kind, in KITTI's voxels.

    Args:
        frames: frames of the batch; at most four different ones, the rest are mirrored copies.
        device: where the voxels go.
        columns: firings of a turn of the sensor.
    """
    sensor = LidarSensor(columns=columns)
    clouds = [simulate_frame(number, 0, sensor).cloud.points for number in range(min(frames, 4))]
    grid = VoxelGrid.create(RANGE, VOXEL)
    batch = []
    for number in range(frames):
        side = -1.0 if number // len(clouds) % 2 else 1.0
        points = clouds[number % len(clouds)] * np.array([1.0, side, 1.0, 1.0], dtype=np.float32)
        batch.append(LidarFrame(str(number), PointCloud(points)))
    voxels = VoxelCollate(Voxelizer(grid, 5, MAX_VOXELS), 4)(batch).voxels
    return grid, voxels.to(device)


def measure_backends(
    device: torch.device, backends: Sequence[str], precisions: Sequence[str], *, frames: int = 4, repeats: int = 10
) -> dict[str, dict[str, float]]:
    """Milliseconds of one forward and backward pass of the encoder, rulebooks and map included.

    The backends take turns, so that a change of the machine's speed hits all of them.

    Args:
        device: a device that all ``backends`` run on.
        backends: names of sparse backends.
        precisions: of ``PRECISIONS``; the lower ones under autocast.
        frames: frames of the batch.
        repeats: timed passes of each, after two that are not.

    Returns:
        Medians by precision and backend.
    """
    grid, voxels = street_voxels(frames, device)
    torch.manual_seed(0)
    encoder = VoxelBackBone8x(4, grid).to(device)

    def step(precision: str) -> None:
        encoder.zero_grad(set_to_none=True)
        with torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "float32"):
            output = encoder(voxels)
        output.sum().backward()

    times: dict[str, dict[str, list[float]]] = {p: {b: [] for b in backends} for p in precisions}
    for turn, precision, backend in itertools.product(range(repeats + 2), precisions, backends):
        with use_backend(backend):
            seconds = _seconds(partial(step, precision), device)
        if turn >= 2:
            times[precision][backend].append(1e3 * seconds)
    return {p: {b: statistics.median(t) for b, t in row.items()} for p, row in times.items()}


def tune_blocks(
    device: torch.device,
    precisions: Sequence[str],
    batch_sizes: Sequence[int],
    *,
    seconds: float,
    repeats: int = 15,
    voxels_of: Callable[[int, torch.device], tuple[VoxelGrid, Voxels]] = street_voxels,
) -> Iterator[Tuned]:
    """Try block sizes for every kernel of the encoder, at the sizes of these batches, and keep the best.

    Every result is written to the file as soon as it is there.

    Args:
        device: the GPU.
        precisions: of ``PRECISIONS``.
        batch_sizes: frames per batch.
        seconds: stop beginning new kernels after this long.
        repeats: timed launches of each candidate.
        voxels_of: makes the batch.
    """
    end = time.perf_counter() + seconds
    done: set[str] = set()
    for batch_size, precision in itertools.product(batch_sizes, precisions):
        grid, voxels = voxels_of(batch_size, device)
        encoder = VoxelBackBone8x(4, grid).to(device)
        for layer, features, table in _layers(encoder, voxels, PRECISIONS[precision]):
            for job in (_forward_job, _backward_job, _gradient_job):
                key, current, candidates, run = job(layer, features, table, precision)
                if key in done:
                    continue
                if time.perf_counter() > end:
                    return
                done.add(key)
                tuned = _best(key, current, candidates, run, device, repeats)
                write_tuning(device, DeviceTuning(blocks={key: as_options(tuned.blocks)}))
                yield tuned


_Job = tuple[str, Any, list[Any], Callable[[Any], object]]


def _layers(
    encoder: VoxelBackBone8x, voxels: Voxels, dtype: torch.dtype
) -> Iterator[tuple[SparseConvolution, Tensor, TapTable]]:
    """Every convolution of the encoder with the features and the table that it meets, sizes met before left out."""
    met: list[tuple[SparseConvolution, SparseTensor]] = []

    def remember(module: SparseConvolution, inputs: tuple[SparseTensor, ...]) -> None:
        met.append((module, inputs[0]))

    handles = [m.register_forward_pre_hook(remember) for m in encoder.modules() if isinstance(m, SparseConvolution)]
    with torch.no_grad(), use_backend("triton"):
        encoder(voxels)
    for handle in handles:
        handle.remove()
    for layer, x in met:
        yield layer, x.features.to(dtype), x.cache.tables[str(layer.key)]


def _forward_job(layer: SparseConvolution, features: Tensor, table: TapTable, precision: str) -> _Job:
    from adperception.sparse import backend_triton

    volume, rows = layer.kernel.volume, len(table.coordinates)
    shape = (layer.in_channels, layer.out_channels, volume, rows)
    current = convolve_blocks(precision, *shape, features.device)
    output = features.new_empty(rows, layer.out_channels)

    def run(blocks: ConvolveBlocks) -> object:
        return backend_triton.convolve(
            features, layer.weight, table, output, blocks, float32=float32_precision(), backwards=False
        )

    return block_key("convolve", precision, *shape), current, _convolve_candidates(current), run


def _backward_job(layer: SparseConvolution, features: Tensor, table: TapTable, precision: str) -> _Job:
    from adperception.sparse import backend_triton

    volume, rows = layer.kernel.volume, table.sites
    shape = (layer.out_channels, layer.in_channels, volume, rows)
    current = convolve_blocks(precision, *shape, features.device)
    gradient = features.new_zeros(len(table.coordinates), layer.out_channels).normal_()
    output = features.new_empty(rows, layer.in_channels)

    def run(blocks: ConvolveBlocks) -> object:
        return backend_triton.convolve(
            gradient, layer.weight, table, output, blocks, float32=float32_precision(), backwards=True
        )

    return block_key("convolve", precision, *shape), current, _convolve_candidates(current), run


def _gradient_job(layer: SparseConvolution, features: Tensor, table: TapTable, precision: str) -> _Job:
    shape = (layer.in_channels, layer.out_channels, layer.kernel.volume, len(table.coordinates))
    current = weight_gradient_blocks(precision, *shape, features.device)
    gradient = features.new_zeros(len(table.coordinates), layer.out_channels).normal_()

    def run(blocks: WeightGradientBlocks) -> object:
        pairs = table.pairs(blocks.segments, blocks.pairs)
        operator = torch.ops.adperception.sparse_convolution_weight_gradient
        precision32 = float32_precision()
        return operator(features, gradient, layer.weight, *pairs, precision32, list(astuple(blocks)))

    options = itertools.product((32, 64, 128), (256, 512, 1024), (4,), (3, 4))
    candidates = [
        WeightGradientBlocks(pairs, current.in_channels, current.out_channels, segments, warps, stages)
        for pairs, segments, warps, stages in options
    ]
    return block_key("weight_gradient", precision, *shape), current, candidates, run


def _convolve_candidates(current: ConvolveBlocks) -> list[ConvolveBlocks]:
    options = ((32, 4, 3), (64, 4, 3), (64, 4, 4), (128, 4, 2), (128, 4, 3), (128, 4, 4), (128, 8, 3), (256, 8, 3))
    return [
        ConvolveBlocks(rows, current.in_channels, current.out_channels, warps, stages)
        for rows, warps, stages in options
    ]


def _best(
    key: str, current: Any, candidates: list[Any], run: Callable[[Any], object], device: torch.device, repeats: int
) -> Tuned:
    times: dict[Any, float] = {}
    for blocks in dict.fromkeys([current, *candidates]):
        try:
            run(blocks)  # compiles, and builds what depends on the blocks
        except RuntimeError:  # more shared memory or registers than the device has
            continue
        times[blocks] = 1e3 * statistics.median(_seconds(partial(run, blocks), device) for _ in range(repeats))
    best = min(times, key=times.__getitem__)
    return Tuned(key, times.get(current, float("inf")), times[best], best)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Time of ``work`` on its device."""
    if device.type != "cuda":
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    new_event: Any = torch.cuda.Event  # not typed
    begin, end = new_event(enable_timing=True), new_event(enable_timing=True)
    begin.record()
    work()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3
