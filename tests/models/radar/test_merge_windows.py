from __future__ import annotations

import numpy as np
import torch

from adperception.models.radar.merge_windows import flip_range_doppler, foreground, merge_windows
from adperception.models.radar.patch_segmenter import PatchScores
from adperception.models.radar.window_gather import WindowCells, Windows, WindowSize
from adperception.structures import flip_range_doppler_labels

SHAPE = (16, 12, 8)
SIZE = WindowSize(rows=4, dopplers=4, azimuth_gate=2, doppler_gate=1)


def cells(*places: tuple[int, int]) -> WindowCells:
    rows, dopplers = torch.tensor(places).reshape(-1, 2).T
    zeros = torch.zeros_like(rows)
    return WindowCells.of(Windows(zeros, rows, zeros, dopplers, torch.zeros(len(rows), 2)), SIZE, SHAPE)


def probabilities(*values: tuple[float, float]) -> tuple[torch.Tensor, torch.Tensor]:
    """Windows with the same probabilities of two classes everywhere."""
    both = torch.tensor(values).reshape(-1, 2, 1, 1)
    return both.expand(-1, 2, 4, 4), both.expand(-1, 2, 4, 12)


def test_rows_of_both_views() -> None:
    """Rows 8..11 of the cube are rows 16 - 8 .. 16 - 11 of range-Doppler labels."""
    doppler, angle = merge_windows(*probabilities((0.1, 0.8)), cells((10, 1)), 1, SHAPE)
    assert sorted(set(angle[0].nonzero()[:, 0].tolist())) == [8, 9, 10, 11]
    assert set(angle[0, 8].tolist()) == {2}
    assert sorted(set(doppler[0].nonzero()[:, 0].tolist())) == [5, 6, 7, 8]
    assert doppler[0, 6].tolist() == [2, 2, 2, 0, 0, 0, 0, 2]


def test_background_is_one_minus_the_likeliest_class() -> None:
    _, angle = merge_windows(*probabilities((0.45, 0.4)), cells((10, 1)), 1, SHAPE)
    assert not bool(angle.any())
    _, angle = merge_windows(*probabilities((0.55, 0.4)), cells((10, 1)), 1, SHAPE)
    assert int(angle.max()) == 1


def test_largest_probability_wins_where_windows_overlap() -> None:
    _, angle = merge_windows(*probabilities((0.7, 0.0), (0.0, 0.9)), cells((10, 1), (12, 1)), 1, SHAPE)
    assert angle[0, :, 0].tolist() == [0] * 8 + [1, 1] + [2] * 4 + [0, 0]


def test_flip_is_that_of_the_labels() -> None:
    masks = np.random.default_rng(0).integers(0, 4, (3, 16, 8)).astype(np.uint8)
    flipped = flip_range_doppler(torch.from_numpy(masks.astype(np.int64)))
    np.testing.assert_array_equal(flipped.numpy(), flip_range_doppler_labels(masks))


def test_class_decision() -> None:
    pixels = torch.log(torch.tensor([[0.2, 0.5, 0.3]]))[:, :, None, None]
    objects = torch.log(torch.tensor([[0.1, 0.3, 0.6]]))
    found = PatchScores(pixels, pixels, None)
    torch.testing.assert_close(foreground(found, "object")[0].flatten(), torch.tensor([0.5, 0.3]))
    found = PatchScores(pixels, pixels, objects)
    torch.testing.assert_close(foreground(found, "product")[1].flatten(), torch.tensor([0.15, 0.18]))
    torch.testing.assert_close(foreground(found, "object")[0].flatten(), torch.tensor([0.0, 0.8]))
    nothing = PatchScores(pixels, pixels, torch.log(torch.tensor([[0.6, 0.1, 0.3]])))
    assert not bool(foreground(nothing, "object")[0].any())
