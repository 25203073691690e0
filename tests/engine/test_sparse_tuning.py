"""Measuring backends and block sizes; figures mean nothing here, but what is kept must be what was best."""

from __future__ import annotations

import subprocess
import sys
from itertools import islice
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from adperception.engine import sparse_tuning
from adperception.engine.sparse_tuning import measure_backends, street_voxels, tune_blocks
from adperception.sparse import tuning
from adperception.sparse.tuning import ConvolveBlocks, WeightGradientBlocks
from adperception.structures import VoxelGrid, Voxels

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    tuning.forget_tuning()


def few_voxels(frames: int, device: torch.device) -> tuple[VoxelGrid, Voxels]:
    grid = VoxelGrid.create([0.0, -1.6, -3.0, 3.2, 1.6, 1.0], [0.1, 0.1, 0.1])
    coordinates = (torch.rand(frames, *grid.shape_zyx) < 0.001).nonzero().int()
    return grid, Voxels(torch.randn(len(coordinates), 4), coordinates, frames).to(device)


def test_streets_are_of_training_size_and_differ() -> None:
    _, voxels = street_voxels(2, DEVICE, columns=300)
    counts = torch.bincount(voxels.coordinates[:, 0].long()).tolist()
    assert len(counts) == 2
    assert all(1000 < count <= sparse_tuning.MAX_VOXELS for count in counts)
    assert counts[0] != counts[1]


def test_backends_are_measured_by_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sparse_tuning, "street_voxels", few_voxels)
    times = measure_backends(DEVICE, ["torch"], ["float32", "bfloat16"], frames=1, repeats=1)
    assert times.keys() == {"float32", "bfloat16"}
    assert all(row["torch"] > 0 for row in times.values())


def test_the_fastest_blocks_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is replaced: the candidate that is made the fastest has to be found and written."""
    best_rows, best_pairs = 16, 32
    written = []

    def seconds(work: object, device: torch.device) -> float:
        (blocks,) = work.args  # type: ignore[attr-defined]
        work()  # type: ignore[operator]
        chosen = blocks.rows == best_rows if isinstance(blocks, ConvolveBlocks) else blocks.pairs == best_pairs
        return 1.0 if chosen else 2.0

    def candidates(current: ConvolveBlocks) -> list[ConvolveBlocks]:
        return [ConvolveBlocks(best_rows, current.in_channels, current.out_channels)]

    monkeypatch.setattr(sparse_tuning, "_seconds", seconds)
    monkeypatch.setattr(sparse_tuning, "_convolve_candidates", candidates)
    monkeypatch.setattr(sparse_tuning, "write_tuning", lambda device, entry: written.append(dict(entry.blocks)))
    monkeypatch.setattr(sparse_tuning.itertools, "product", _few(sparse_tuning.itertools.product))
    found = list(islice(tune_blocks(DEVICE, ["float32"], [1], seconds=1000.0, repeats=1, voxels_of=few_voxels), 3))
    assert [tuned.key.partition(" ")[0] for tuned in found] == ["convolve", "convolve", "weight_gradient"]
    assert [tuned.after for tuned in found] == [1e3, 1e3, 1e3]
    assert [tuned.before for tuned in found[:2]] == [2e3, 2e3]
    kinds = (ConvolveBlocks, ConvolveBlocks, WeightGradientBlocks)
    assert [type(tuned.blocks) for tuned in found] == list(kinds)
    assert written == [{tuned.key: tuning.as_options(tuned.blocks)} for tuned in found]


def _few(product: object) -> object:
    """Fewer combinations of the weight gradient's options: the interpreter takes its time."""

    def combinations(*options: tuple[object, ...]) -> object:
        return product(*(o[:1] if isinstance(o, tuple) else o for o in options))  # type: ignore[operator]

    return combinations


def test_no_new_kernel_after_the_time_is_over() -> None:
    assert list(tune_blocks(DEVICE, ["float32"], [1], seconds=-1.0, voxels_of=few_voxels)) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_the_tool_needs_a_gpu(repository: Path) -> None:
    done = subprocess.run(
        [sys.executable, repository / "tools/tune_sparse.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stderr == "error: cuda:0: there is nothing to tune without a CUDA device.\n"
