"""Ground-truth sampling from other layouts, on simulated trees: no difficulties, other channels, intervals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adperception.datasets import ONCE, LidarDataset, Waymo
from adperception.geometry import count_points_in_boxes
from adperception.simulation.simulate_once import SimulateOnce
from adperception.simulation.simulate_waymo import SimulateWaymo

SAMPLING = dict(type="GroundTruthSampling", objects={"Vehicle": 8, "Car": 8, "Pedestrian": 8})


def paste(whole: LidarDataset, part: LidarDataset) -> None:
    """``part`` pastes objects of its own frames only, with their points; they are fewer than those of ``whole``."""
    own = {tuple(b) for i in range(len(part)) for b in part.read(i).boxes.boxes.tolist()}
    (sampling,) = part.transforms
    records = sampling.database.objects
    assert {tuple(b) for b in records["box"].tolist()} <= own
    assert len(records) < len(whole.transforms[0].database)
    pasted = 0
    for seed in range(6):
        plain = part.read(seed % len(part))
        frame = part.get(seed % len(part), np.random.default_rng(seed))
        assert {tuple(b) for b in frame.boxes.boxes.tolist()} <= own
        counts = count_points_in_boxes(frame.cloud.xyz, frame.boxes.boxes)[len(plain.boxes) :]
        assert (counts >= 4).all()  # five of the object, one may fall onto the border
        assert frame.cloud.channels == plain.cloud.channels
        pasted += len(counts)
    assert pasted > 0


def test_waymo(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    root = SimulateWaymo(tmp_path, frames=6, segment_frames=3, columns=240, seed=5, splits={"training": 1.0})()
    whole = Waymo(root, transforms=[SAMPLING])
    paste(whole, Waymo(root, transforms=[SAMPLING], interval=3))
    with pytest.raises(ValueError, match="was built from other frames"):  # other points of the same frames
        Waymo(root, transforms=[SAMPLING], lasers=["TOP"])
    counts = count_points_in_boxes(whole.read(0).cloud.xyz, whole.read(0).boxes.boxes)
    stated = whole.stated_points(0)
    assert len(stated) == len(counts) > 0
    assert np.median(np.abs(counts - stated)) <= 0.05 * np.median(stated) + 1
    assert Waymo(root, labels=False).stated_points(0) is None


def test_once(tmp_path: Path) -> None:
    root = SimulateOnce(tmp_path, frames=12, sequence_frames=3, columns=300, seed=2, splits={"train": 1.0})()
    whole = ONCE(root, transforms=[SAMPLING])
    paste(whole, ONCE(root, transforms=[SAMPLING], fraction=0.25))
    with pytest.raises(ValueError, match="was built from other frames"):
        ONCE(root, transforms=[SAMPLING], native_axes=True)
