"""Measured block sizes and where they are kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from adperception.sparse import tuning
from adperception.sparse.tuning import ConvolveBlocks, DeviceTuning, WeightGradientBlocks

GPU = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    monkeypatch.setattr(
        tuning, "device_key", lambda device: f"some GPU {device.index}, kernels {tuning.KERNEL_VERSION}"
    )
    tuning.forget_tuning()
    yield tmp_path / "adperception"
    tuning.forget_tuning()


def test_measured_blocks_come_back_for_their_size_class_only(folder: Path) -> None:
    key = tuning.block_key("convolve", "bfloat16", 64, 64, 27, 100_000)
    measured = ConvolveBlocks(256, 32, 64, 8, 2)
    path = tuning.write_tuning(GPU, DeviceTuning(blocks={key: tuning.as_options(measured)}))
    assert path.parent == folder
    assert tuning.convolve_blocks("bfloat16", 64, 64, 27, 70_000, GPU) == measured
    for other in (
        tuning.convolve_blocks("bfloat16", 64, 64, 27, 60_000, GPU),
        tuning.convolve_blocks("float16", 64, 64, 27, 100_000, GPU),
        tuning.convolve_blocks("bfloat16", 64, 64, 27, 100_000, torch.device("cuda", 1)),
    ):
        assert other != measured
    key = tuning.block_key("weight_gradient", "float32", 16, 32, 27, 5000)
    measured_gradient = WeightGradientBlocks(16, 16, 32, 64, 2, 2)
    tuning.write_tuning(GPU, DeviceTuning(blocks={key: tuning.as_options(measured_gradient)}))
    assert tuning.weight_gradient_blocks("float32", 16, 32, 27, 5000, GPU) == measured_gradient
    assert tuning.convolve_blocks("bfloat16", 64, 64, 27, 70_000, GPU) == measured  # the first stays


def test_backends_by_speed() -> None:
    times = {"torch": 3.0, "triton": 1.0, "spconv": 2.0}
    tuning.write_tuning(GPU, DeviceTuning(backends={"float32": times}))
    assert tuning.read_tuning(GPU).fastest("float32") == ("triton", "spconv", "torch")
    assert tuning.read_tuning(GPU).fastest("float16") == ()


def test_a_running_process_keeps_what_it_read(folder: Path) -> None:
    """Another process may write while this one trains; its kernels stay what they are."""
    before = tuning.convolve_blocks("float32", 16, 16, 27, 5000, GPU)
    key = tuning.block_key("convolve", "float32", 16, 16, 27, 5000)
    path = folder / "sparse_tuning.json"
    folder.mkdir()
    entry = {tuning.device_key(GPU): {"blocks": {key: tuning.as_options(ConvolveBlocks(16, 16, 16, 1, 1))}}}
    path.write_text(json.dumps({"version": tuning.FORMAT_VERSION, "devices": entry}))
    assert tuning.convolve_blocks("float32", 16, 16, 27, 5000, GPU) == before
    tuning.forget_tuning()
    assert tuning.convolve_blocks("float32", 16, 16, 27, 5000, GPU) == ConvolveBlocks(16, 16, 16, 1, 1)


@pytest.mark.parametrize(
    "content", ["", "[1, 2", '{"version": 0, "devices": {"some GPU 0, kernels 1": {"backends": 3}}}']
)
def test_an_unreadable_or_older_file_counts_as_none(content: str, folder: Path) -> None:
    folder.mkdir()
    (folder / "sparse_tuning.json").write_text(content)
    assert tuning.read_tuning(GPU) == DeviceTuning()
    tuning.write_tuning(GPU, DeviceTuning(backends={"float32": {"torch": 1.0}}))
    assert tuning.read_tuning(GPU).fastest("float32") == ("torch",)


@pytest.mark.parametrize("rows", [0, 1, 1000, 2**15, 10**6])
@pytest.mark.parametrize("channels", [(4, 16), (5, 16), (64, 128), (200, 300)])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_default_blocks_are_powers_of_two_that_a_product_takes(
    rows: int, channels: tuple[int, int], precision: str
) -> None:
    convolve = tuning.convolve_blocks(precision, *channels, 27, rows, torch.device("cpu"))
    gradient = tuning.weight_gradient_blocks(precision, *channels, 27, rows, torch.device("cpu"))
    sizes = (convolve.rows, convolve.in_channels, convolve.out_channels)
    sizes += (gradient.pairs, gradient.in_channels, gradient.out_channels)
    assert all(size >= 16 and size & (size - 1) == 0 for size in sizes)
