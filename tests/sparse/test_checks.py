"""What is refused before any kernel runs, and in which words."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from adperception.sparse import SparseConv3d, SparseTensor, SubMConv3d, checks, set_debug_mode


@pytest.fixture(autouse=True)
def _fresh_counter(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setitem(checks._state, "checked", 0)
    yield
    set_debug_mode(False)


def sites(*rows: tuple[int, int, int, int]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.int32).reshape(-1, 4)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ((0, 0, 0, 8), r"x coordinates span 0\.\.8, but the grid has 8"),
        ((0, -1, 0, 0), r"z coordinates span -1\.\.0"),
        ((0, 0, 6, 0), r"y coordinates span 0\.\.6"),
        ((2, 0, 0, 0), r"batch coordinates span 0\.\.2, but the grid has 2 \(batch size\)"),
    ],
)
def test_coordinates_out_of_the_grid(row: tuple[int, int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SparseTensor(torch.zeros(2, 1), sites((0, 0, 0, 0), row), (4, 6, 8), 2)


def test_values_are_checked_on_the_first_batches_and_in_debug_mode() -> None:
    bad = sites((0, 9, 0, 0))
    for _ in range(checks.CHECKED_INPUTS):
        SparseTensor(torch.zeros(0, 1), sites(), (4, 6, 8), 1)
    SparseTensor(torch.zeros(1, 1), bad, (4, 6, 8), 1)  # past the first batches
    set_debug_mode(True)
    with pytest.raises(ValueError, match="z coordinates span"):
        SparseTensor(torch.zeros(1, 1), bad, (4, 6, 8), 1)


def test_duplicates_are_found_in_debug_mode() -> None:
    rows = sites((0, 1, 2, 3), (0, 1, 2, 3), (0, 0, 0, 0))
    SparseTensor(torch.zeros(3, 1), rows, (4, 6, 8), 1)
    set_debug_mode(True)
    with pytest.raises(ValueError, match=r"1 of 3 coordinates are duplicates, e\.g\. .* \(0, 1, 2, 3\)"):
        SparseTensor(torch.zeros(3, 1), rows, (4, 6, 8), 1)


@pytest.mark.parametrize(
    ("features", "coordinates", "message"),
    [
        (torch.zeros(2, 1), sites((0, 0, 0, 0)), "2 feature rows but 1 coordinate rows"),
        (torch.zeros(1, 1), torch.zeros(1, 3, dtype=torch.int32), r"\(N, 4\) with columns batch, z, y, x"),
        (torch.zeros(1, 1), torch.zeros(1, 4), "coordinates are torch.float32; pass int32"),
        (torch.zeros(1, 1, device="meta"), sites((0, 0, 0, 0)), "features are on meta but coordinates are on cpu"),
    ],
)
def test_malformed_inputs(features: torch.Tensor, coordinates: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SparseTensor(features, coordinates, (4, 6, 8), 1)


def test_model_left_on_another_device() -> None:
    layer = SubMConv3d(1, 1, 3, key="encoder.stage1").to("meta")
    x = SparseTensor(torch.zeros(1, 1), sites((0, 0, 0, 0)), (4, 6, 8), 1)
    with pytest.raises(
        ValueError, match=r'"encoder.stage1": features are on cpu but weights are on meta.*model.to\("cpu"\)'
    ):
        layer(x)


def test_wrong_channel_count() -> None:
    x = SparseTensor(torch.zeros(1, 5), sites((0, 0, 0, 0)), (4, 6, 8), 1)
    with pytest.raises(ValueError, match="input has 5 channels, weights expect 4"):
        SubMConv3d(4, 1, 3)(x)


def test_grid_that_shrinks_to_nothing() -> None:
    x = SparseTensor(torch.zeros(1, 1), sites((0, 0, 0, 0)), (2, 6, 8), 1)
    with pytest.raises(ValueError, match=r"z would shrink from 2 to 0 \(kernel 3, stride 2, padding 0\)"):
        SparseConv3d(1, 1, 3, 2, (0, 1, 1))(x)


def test_even_submanifold_kernel() -> None:
    with pytest.raises(ValueError, match="must be odd"):
        SubMConv3d(1, 1, (3, 2, 3))
