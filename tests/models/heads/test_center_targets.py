from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from adperception.models.heads.center_targets import CenterTargets, center_targets, draw_peaks, peak_radius
from adperception.models.heads.labelled_boxes import LabelledBoxes
from adperception.structures import VoxelGrid

GRID = VoxelGrid.create([0, -4.8, -3, 12.8, 4.8, 1], [0.1, 0.1, 0.1])  # 12 x 16 cells of 0.8 m
SHAPE = (12, 16)


def targets_of(frames: list[LabelledBoxes], class_count: int) -> CenterTargets:
    pending = center_targets(frames, class_count, GRID, SHAPE)
    return pending.known(int(pending.reach))


def draw_by_loop(maps: np.ndarray, channel: int, x: int, y: int, radius: int) -> None:
    """The readable twin: one cell after the other."""
    sigma = (2 * radius + 1) / 6
    for row in range(max(0, y - radius), min(maps.shape[1], y + radius + 1)):
        for column in range(max(0, x - radius), min(maps.shape[2], x + radius + 1)):
            value = math.exp(-((row - y) ** 2 + (column - x) ** 2) / (2 * sigma**2))
            maps[channel, row, column] = max(maps[channel, row, column], value)


@pytest.mark.parametrize(("seed", "reach"), [(0, 6), (1, 6), (2, 9)])
def test_drawing_equals_the_loop(seed: int, reach: int) -> None:
    rng = np.random.default_rng(seed)
    count = 25
    channel = rng.integers(0, 3, count)
    cell = np.stack([rng.integers(0, 16, count), rng.integers(0, 12, count)], axis=1)
    radius = rng.integers(2, 7, count)
    expected = np.zeros((3, *SHAPE))
    for k, (x, y), r in zip(channel, cell, radius, strict=True):
        draw_by_loop(expected, int(k), int(x), int(y), int(r))
    maps = torch.zeros(3, *SHAPE)
    draw_peaks(maps, *(torch.from_numpy(a) for a in (channel, cell, radius)), reach=reach)
    assert maps.numpy() == pytest.approx(expected, abs=1e-6)
    tops = {(int(k), *c) for k, c in zip(channel, map(tuple, cell.tolist()), strict=True)}
    assert int((maps == 1).sum()) == len(tops)


def test_radius_by_hand() -> None:
    """For a square of side s at overlap 0.1 the third case is the smallest: (-0.4 s + sqrt(0.16 + 1.44) s) / 2."""
    side = torch.tensor([10.0])
    assert float(peak_radius(side, side)) == pytest.approx(5 * (math.sqrt(1.6) - 0.4))


def test_codes_and_cells() -> None:
    box = torch.tensor([[4.2, -1.0, -0.5, 4.0, 2.0, 1.5, 2.5]])
    nothing = LabelledBoxes(torch.zeros(0, 7), torch.zeros(0, dtype=torch.int64))
    targets = targets_of([nothing, LabelledBoxes(box, torch.tensor([1]))], 2)
    # (4.2 - 0) / 0.8 = 5.25 cells, (-1 + 4.8) / 0.8 = 4.75 cells
    assert targets.cells.tolist() == [(1 * 12 + 4) * 16 + 5]
    assert targets.codes[0].tolist() == pytest.approx(
        [0.25, 0.75, -0.5, math.log(4), math.log(2), math.log(1.5), math.cos(2.5), math.sin(2.5)], abs=1e-5
    )
    assert float(targets.heatmaps[1, 1, 4, 5]) == 1.0
    assert not bool(targets.heatmaps[0].any())
    assert not bool(targets.heatmaps[1, 0].any())
    # The smallest radius, 2: a square of 5 x 5 cells.
    assert int((targets.heatmaps > 0).sum()) == 25


def test_centre_outside_the_range_goes_to_the_border() -> None:
    boxes = torch.tensor([[13.5, 0.1, 0, 4.0, 2.0, 1.5, 0.0], [-0.5, 9.0, 0, 4.0, 2.0, 1.5, 0.0]])
    targets = targets_of([LabelledBoxes(boxes, torch.tensor([0, 0]))], 1)
    assert targets.cells.tolist() == [6 * 16 + 15, 11 * 16 + 0]
    assert targets.codes[:, :2].flatten().tolist() == pytest.approx([0.5, 0.125, 0.0, 0.5], abs=1e-5)


def test_no_object_at_all() -> None:
    nothing = LabelledBoxes(torch.zeros(0, 7), torch.zeros(0, dtype=torch.int64))
    targets = targets_of([nothing, nothing], 3)
    assert targets.heatmaps.shape == (2, 3, *SHAPE)
    assert not bool(targets.heatmaps.any())
    assert targets.codes.shape == (0, 8)
