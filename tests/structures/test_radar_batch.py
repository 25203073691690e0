from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from adperception.structures import RadarBatch, RadarFrame, RadarGrid, RadarMasks, RadarObjects, RadarViews

GRID = RadarGrid(6, 5, 4)


def frame(number: int) -> RadarFrame:
    rng = np.random.default_rng(number)
    cubes = rng.gamma(2.0, 30.0, (2, *GRID.shape)).astype(np.float32)
    masks = RadarMasks(rng.integers(0, 4, (6, 4)).astype(np.uint8), rng.integers(0, 4, (6, 5)).astype(np.uint8))
    return RadarFrame(f"sequence/{number:06d}", GRID, cubes, RadarViews.processed(cubes), masks, RadarObjects.empty())


def test_stacks_everything_in_order() -> None:
    frames = [frame(0), frame(1)]
    batch = RadarBatch.from_frames(frames)
    assert len(batch) == 2
    assert batch.frame_ids == ("sequence/000000", "sequence/000001")
    assert batch.cubes is not None
    assert batch.cubes.shape == (2, 2, 6, 5, 4)
    assert batch.range_doppler is not None
    np.testing.assert_array_equal(batch.range_doppler[1].numpy(), frames[1].views.range_doppler)  # type: ignore[union-attr]
    masks = batch.masks(1)
    assert masks is not None
    np.testing.assert_array_equal(masks.range_angle, frames[1].masks.range_angle)  # type: ignore[union-attr]
    moved = batch.to(torch.device("cpu"))
    assert moved.objects == batch.objects
    assert moved.range_angle_mask is not None
    assert moved.range_angle_mask.dtype == torch.int64


def test_what_was_not_loaded_is_not_there() -> None:
    bare = [replace(frame(n), views=None, masks=None, objects=None) for n in range(2)]
    batch = RadarBatch.from_frames(bare)
    assert batch.range_angle is None
    assert batch.objects is None
    assert batch.masks(0) is None


def test_refuses_a_mixture() -> None:
    with pytest.raises(ValueError, match="come from different radars"):
        RadarBatch.from_frames([frame(0), replace(frame(1), grid=RadarGrid(6, 5, 4, range_bin_m=1.0))])
    with pytest.raises(ValueError, match="only one has masks"):
        RadarBatch.from_frames([frame(0), replace(frame(1), masks=None)])
