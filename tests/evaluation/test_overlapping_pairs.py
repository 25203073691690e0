from __future__ import annotations

import numpy as np
import pytest
import torch

from adperception.evaluation import overlapping_pairs
from adperception.evaluation.overlapping_pairs import BoxTable, near_pairs, overlaps, same_frame_pairs
from adperception.geometry.rotated_iou import rotated_iou_3d, rotated_iou_3d_pairs
from adperception.structures import Boxes3D


def boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    xyz = rng.uniform(-12, 12, (count, 3)) * (1, 1, 0.1)
    return np.column_stack([xyz, rng.uniform(1, 6, (count, 3)), rng.uniform(-4, 4, count)])


def test_pairs_of_frames_that_the_other_side_lacks() -> None:
    i, j = same_frame_pairs(np.array([0, 0, 2, 3]), np.array([0, 1, 3, 3]))
    assert list(zip(i, j, strict=True)) == [(0, 0), (1, 0), (3, 2), (3, 3)]


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_no_overlapping_pair_is_missed(monkeypatch: pytest.MonkeyPatch, block: int) -> None:
    monkeypatch.setattr(overlapping_pairs, "_BLOCK", block)
    rng = np.random.default_rng(0)
    a, b = boxes(rng, 40), boxes(rng, 60)
    a_frames, b_frames = np.sort(rng.integers(5, size=40)), np.sort(rng.integers(5, size=60))
    i, j = near_pairs(a, a_frames, b, b_frames)
    found = np.zeros((40, 60))
    found[i, j] = overlaps(rotated_iou_3d_pairs, a[i], b[j])
    expected = rotated_iou_3d(torch.from_numpy(a), torch.from_numpy(b)).numpy()
    expected[a_frames[:, None] != b_frames] = 0
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert (expected > 0).sum() > 20
    assert len(i) < 40 * 60 / 5
    assert (np.diff(i) >= 0).all()


def test_table_of_frames() -> None:
    frames = [
        Boxes3D(np.ones((2, 7), np.float32), ("Car", "Bus")),
        Boxes3D.empty(),
        Boxes3D(np.zeros((1, 7), np.float32), ("Car",)),
    ]
    table = BoxTable.of(frames)
    assert table.frames.tolist() == [0, 0, 2]
    assert table.names.tolist() == ["Car", "Bus", "Car"]
    np.testing.assert_allclose(table.distances(), [3**0.5, 3**0.5, 0])
    assert table.select(table.names == "Car").frames.tolist() == [0, 2]
    assert len(BoxTable.of([])) == 0


def test_table_refuses_rows_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="must ascend"):
        BoxTable(np.array([1, 0]), np.array(["a", "b"]), np.zeros((2, 7)))
    with pytest.raises(ValueError, match="do not belong together"):
        BoxTable(np.array([0, 1]), np.array(["a"]), np.zeros((2, 7)))
