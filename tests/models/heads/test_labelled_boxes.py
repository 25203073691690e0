from __future__ import annotations

import numpy as np
import pytest
import torch

from adperception.engine.host_reads import HostReads
from adperception.models.heads.labelled_boxes import LabelledBoxes, labelled_boxes
from adperception.structures import Boxes3D, LidarBatch, VoxelGrid, Voxels

GRID = VoxelGrid.create([0, -4, -3, 8, 4, 1], [0.1, 0.1, 0.1])


def batch(*frames: Boxes3D | None) -> LidarBatch:
    voxels = Voxels(torch.zeros(0, 4), torch.zeros(0, 4, dtype=torch.int32), len(frames))
    labelled = [f for f in frames if f is not None]
    ids = tuple(f"{i:06d}" for i in range(len(frames)))
    return LidarBatch(ids, voxels, (), tuple(labelled) if len(labelled) == len(frames) else None)


def boxes(*rows: tuple[str, list[float]]) -> Boxes3D:
    return Boxes3D(np.array([row for _, row in rows], dtype=np.float32).reshape(-1, 7), tuple(n for n, _ in rows))


def test_known_classes_in_range() -> None:
    frame = boxes(
        ("Van", [4, 0, 0, 4, 2, 1, 0]),
        ("Car", [4, 0, 0, 4, 2, 1, 0]),
        ("Pedestrian", [2, 1, 0, 0.5, 0.5, 1.7, 0.3]),
        ("Car", [9, 0, 0, 4, 2, 1, 0]),  # reaches into the range
        ("Car", [11, 0, 0, 4, 2, 1, 0]),  # does not
        ("Car", [4, 0, 9, 4, 2, 1, 0]),  # above
    )
    first, second = labelled_boxes(batch(frame, Boxes3D.empty()), ["Pedestrian", "Car"], GRID)
    assert first.labels.tolist() == [1, 0, 1]
    assert first.boxes[:, 0].tolist() == [4, 2, 9]
    assert len(second) == 0
    assert second.boxes.shape == (0, 7)
    assert second.labels.dtype == torch.int64


def test_labels_are_known_to_the_host_and_nothing_waits_for_the_device() -> None:
    frame = boxes(("Car", [4, 0, 0, 4, 2, 1, 0]), ("Pedestrian", [2, 1, 0, 0.5, 0.5, 1.7, 0.3]))
    labelled = batch(frame, Boxes3D.empty(), frame)
    with HostReads(cuda=False) as reads:
        frames = labelled_boxes(labelled, ["Pedestrian", "Car"], GRID)
        assert [f.host_labels for f in frames] == [(1, 0), (), (1, 0)]
    assert not reads.places
    assert [tuple(f.labels.tolist()) for f in frames] == [(1, 0), (), (1, 0)]
    assert LabelledBoxes(frames[0].boxes, frames[0].labels).host_labels == (1, 0)


def test_unlabelled_batch_names_the_fix() -> None:
    with pytest.raises(ValueError, match=r"frames 000000, 000001: at least one has no labels.*labelled split"):
        labelled_boxes(batch(Boxes3D.empty(), None), ["Car"], GRID)


def test_box_without_volume_is_named() -> None:
    frame = boxes(("Car", [4, 0, 0, 4, 0, 1, 0]))
    with pytest.raises(ValueError, match=r"frame 000000: a Car measures \[4.0, 0.0, 1.0\] m"):
        labelled_boxes(batch(frame), ["Car"], GRID)
