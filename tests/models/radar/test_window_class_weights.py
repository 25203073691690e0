from __future__ import annotations

import dataclasses

import pytest
import torch

from adperception.models.radar.window_class_weights import WindowClassWeights
from adperception.models.radar.window_gather import WindowSize
from tests.models.radar.cube_frames import cube_frame

SIZE = WindowSize(rows=8, dopplers=6, azimuth_gate=4, doppler_gate=2)


def test_inverse_frequencies_in_windows() -> None:
    """An object has 9 of 48 cells of a range-Doppler window, 15 of 256 of a range-angle one."""
    weights = WindowClassWeights(2, "windows", False)
    list(
        weights.observe(
            [cube_frame([(10, 8, 4, 1)]), cube_frame([(20, 8, 4, 1)]), cube_frame([(9, 20, 10, 2)])], SIZE, 0.0
        )
    )
    for view, (object_cells, cells) in zip(weights(), ((9, 48), (15, 256)), strict=True):
        inverse = torch.tensor([1 / (3 * (cells - object_cells)), 1 / (2 * object_cells), 1 / object_cells])
        torch.testing.assert_close(view, inverse / inverse.sum())


def test_clutter_windows_count_as_background() -> None:
    weights = WindowClassWeights(1, "windows", False)
    list(weights.observe([cube_frame([(10, 8, 4, 1)])], SIZE, 0.5))
    inverse = torch.tensor([1 / (48 - 9 + 24), 1 / 9])
    torch.testing.assert_close(weights()[0], inverse / inverse.sum())


def test_given_weights() -> None:
    torch.testing.assert_close(WindowClassWeights(3, "equal", False)()[0], torch.full((4,), 0.25))
    torch.testing.assert_close(WindowClassWeights(1, [1.0, 3.0], False)()[1], torch.tensor([0.25, 0.75]))
    with pytest.raises(ValueError, match="must be 4 positive numbers"):
        WindowClassWeights(3, [1.0, 2.0], False)
    with pytest.raises(ValueError, match='class_weights="train" is unknown'):
        WindowClassWeights(3, "train", False)


def test_unknown_weights_are_refused() -> None:
    with pytest.raises(ValueError, match="which has not happened"):
        WindowClassWeights(3, "windows", False)()
    frame = dataclasses.replace(cube_frame([]), masks=None)
    with pytest.raises(ValueError, match="s/000000 has no masks"):
        list(WindowClassWeights(3, "windows", False).observe([frame], SIZE, 0.0))


def test_objects_are_balanced_by_inverse_frequency() -> None:
    weights = WindowClassWeights(3, "equal", True)
    with pytest.raises(ValueError, match="which has not happened"):
        weights()
    frames = [cube_frame([(10, 8, 4, 1), (20, 8, 4, 1)]), cube_frame([(20, 8, 4, 1), (9, 20, 10, 2)])]
    list(weights.observe(frames, SIZE, 0.0))
    torch.testing.assert_close(weights.objects, torch.tensor([1.0, 4 / (2 * 3), 4 / (2 * 1), 1.0]))
    assert WindowClassWeights(3, "equal", False).objects.tolist() == [1.0] * 4
