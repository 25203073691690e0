from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from adperception.datasets.formats import from_kitti_camera, write_labels
from adperception.evaluation.kitti_results import kitti_detections, read_kitti_results, write_kitti_results
from adperception.structures import Boxes3D, Detections, KittiCalibration

CALIBRATION = KittiCalibration(
    p2=np.array([[700.0, 0, 600, 0], [0, 700, 180, 0], [0, 0, 1, 0]]),
    r0_rect=np.eye(3),
    velo_to_cam=np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0]]),
)
FOUND = Detections(
    Boxes3D(np.float32([[15, 2, -0.9, 4, 1.8, 1.6, 0.3], [10, -30, -0.8, 0.8, 0.6, 1.8, -2]]), ("Car", "Pedestrian")),
    np.float32([0.123456, 0.9]),
)


def test_boxes_come_back_from_the_files(tmp_path: Path) -> None:
    objects = kitti_detections(FOUND, CALIBRATION, (375, 1242))
    write_kitti_results(tmp_path / "new", {"000001": objects, "000007": []})
    back = read_kitti_results(tmp_path / "new", ["000001", "000007"])
    assert back["000007"] == []
    boxes = from_kitti_camera(back["000001"], CALIBRATION)
    np.testing.assert_allclose(boxes.boxes, FOUND.boxes.boxes, atol=2e-6)
    assert boxes.names == FOUND.boxes.names
    assert [o.score for o in back["000001"]] == pytest.approx([0.123456, 0.9], abs=1e-6)
    assert all((o.truncation, o.occlusion) == (-1, -1) for o in objects)


def test_2d_boxes_stay_in_the_image() -> None:
    car, pedestrian = kitti_detections(FOUND, CALIBRATION, (375, 1242))
    left, top, right, bottom = car.box_2d
    assert 0 < left < 507 < right < 600
    assert 0 < top < bottom < 374
    assert pedestrian.box_2d[0] == pedestrian.box_2d[2] == 1241  # outside: no width


def test_missing_files_and_labels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"000003\.txt"):
        read_kitti_results(tmp_path, ["000003"])
    objects = kitti_detections(FOUND, CALIBRATION, (375, 1242))
    write_labels(tmp_path / "000003.txt", [objects[0], replace(objects[1], score=None)])
    with pytest.raises(ValueError, match=r"000003\.txt: object 2 \(Pedestrian\) has no score"):
        read_kitti_results(tmp_path, ["000003"])
