from __future__ import annotations

import numpy as np
import pytest

from adperception.datasets.formats.kitti_boxes import from_kitti_camera
from adperception.datasets.formats.kitti_label import DONT_CARE
from adperception.simulation.kitti_labels import draw_calibration, label_objects, occlusion_level
from adperception.simulation.lidar_sensor import LidarSensor
from adperception.simulation.materials import Material
from adperception.simulation.models import CARS, PEDESTRIANS
from adperception.simulation.objects import Model, Placement, box, place
from adperception.simulation.realism import points_in_box
from adperception.simulation.simulate_kitti import SimulatedFrame, simulate_frame

SENSOR = LidarSensor(columns=1000)
GROUND = -1.73


def car(x: float, y: float, yaw: float = 0.3) -> Placement:
    return Placement(CARS[0], (x, y, GROUND), yaw, (4.0, 1.7, 1.5))


def labels(*placements: Placement, seed: int = 0) -> list:
    rng = np.random.default_rng(seed)
    scene = place(
        [*placements, Placement(Model((box((-90, -90, -3), (90, 90, 0), Material.ASPHALT),)), (0, 0, GROUND))]
    )
    sweep = SENSOR.sweep(scene, rng)
    calibration, size = draw_calibration(rng)
    return label_objects(scene.labelled, sweep, calibration, size)


@pytest.fixture(scope="module")
def frames() -> list[SimulatedFrame]:
    return [simulate_frame(i, 11, SENSOR) for i in range(6)]


def test_occlusion_levels() -> None:
    assert [occlusion_level(met, 100) for met in (100, 76, 74, 41, 39, 11)] == [0, 0, 1, 1, 2, 2]
    assert occlusion_level(9, 100) is None
    assert occlusion_level(0, 100) is None
    assert occlusion_level(2, 3) == 3


def test_objects_outside_the_image_are_not_labelled() -> None:
    found = labels(car(15, 0), car(-15, 0), car(5, 20), car(15, -25))
    assert len(found) == 1
    assert found[0].name == "Car"
    assert found[0].location[2] == pytest.approx(15, abs=0.8)


def test_an_object_behind_another_is_occluded_and_a_hidden_one_is_not_labelled() -> None:
    wall = Placement(Model((box((0, -3, 0), (0.2, 3, 2.5), Material.WALL),)), (8, 0, GROUND))
    assert labels(car(20, 0), wall) == []
    half = Placement(Model((box((0, -3, 0), (0.2, 0.0, 2.5), Material.WALL),)), (8, 0, GROUND))
    assert [o.occlusion for o in labels(car(20, 0, 1.57), half)] == [1]
    assert [o.occlusion for o in labels(car(20, 0, 1.57))] == [0]
    sliver = Placement(Model((box((0, -3, 0), (0.2, 0.7, 2.5), Material.WALL),)), (8, 0, GROUND))
    assert [o.name for o in labels(car(20, 0, 1.57), sliver)] == [DONT_CARE]


def test_truncation_is_the_share_of_the_projected_box_outside_the_image() -> None:
    inside, cut = labels(car(20, 0))[0], labels(car(6, 4.2, 0.0))[0]
    assert inside.truncation == 0
    assert 0.1 < cut.truncation <= 0.9
    assert cut.box_2d[0] == 0


def test_labels_give_back_the_placed_boxes() -> None:
    rng = np.random.default_rng(0)
    scene = place([car(20, 3, 0.3), Placement(PEDESTRIANS[0], (12, -3, GROUND), 1.0, (0.8, 0.6, 1.8))])
    sweep = SENSOR.sweep(scene, rng)
    calibration, size = draw_calibration(rng)
    boxes = from_kitti_camera(label_objects(scene.labelled, sweep, calibration, size), calibration)
    assert boxes.names == ("Pedestrian", "Car")
    np.testing.assert_allclose(boxes.boxes[1], [20, 3, GROUND + 0.75, 4.0, 1.7, 1.5, 0.3], atol=0.02)


def test_alpha_and_ranges_of_values(frames: list[SimulatedFrame]) -> None:
    solid = [(f, o) for f in frames for o in f.labels if o.name != DONT_CARE]
    assert len(solid) > 15
    for frame, o in solid:
        expected = o.rotation_y - np.arctan2(o.location[0], o.location[2])
        assert np.cos(o.alpha - expected) == pytest.approx(1, abs=1e-6)
        height, width = frame.image_size
        left, top, right, bottom = o.box_2d
        assert 0 <= left < right <= width - 1
        assert 0 <= top < bottom <= height - 1
        assert o.occlusion in (0, 1, 2, 3)
        assert 0 <= o.truncation <= 0.9


def test_labelled_boxes_hold_points_and_their_2d_boxes_hold_the_projections(frames: list[SimulatedFrame]) -> None:
    for frame in frames:
        boxes = from_kitti_camera(frame.labels, frame.calibration)
        solid = [o for o in frame.labels if o.name != DONT_CARE]
        for o, corners_box in zip(solid, boxes.boxes, strict=True):
            grown = corners_box.copy()
            grown[3:6] += 0.15
            inside = frame.cloud.xyz[points_in_box(frame.cloud.xyz, grown)]
            assert len(inside) > 0
            if o.truncation == 0:
                strictly = frame.cloud.xyz[points_in_box(frame.cloud.xyz, corners_box)]
                pixels, depth = frame.calibration.rect_to_image(frame.calibration.to_rect(strictly))
                assert (depth > 0).all()
                left, top, right, bottom = o.box_2d
                assert ((pixels >= (left - 1, top - 1)) & (pixels <= (right + 1, bottom + 1))).all()
