"""What the simulators of drives have in common, and the two layouts' own rules."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from adperception.datasets.formats.waymo_parquet import COMPONENTS, schema_of
from adperception.registry import PREPARATIONS, build
from adperception.simulation.drive import Pose, draw_drive
from adperception.simulation.lidar_sensor import LidarSensor
from adperception.simulation.materials import Material
from adperception.simulation.objects import Model, Placement, box, cylinder, ellipsoid, place
from adperception.simulation.simulate_once import SimulateOnce
from adperception.simulation.simulate_waymo import SimulateWaymo, car_lasers, simulate_segment
from data_tools import simulate_lidar

WAYMO = dict(frames=3, segment_frames=2, columns=120, seed=1)
ONCE = dict(frames=5, sequence_frames=2, columns=120, seed=1)


def bytes_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.mark.multi_process
@pytest.mark.parametrize(("simulator", "options"), [(SimulateWaymo, WAYMO), (SimulateOnce, ONCE)])
def test_same_seed_same_bytes_for_any_number_of_workers(simulator: type, options: dict, tmp_path: Path) -> None:
    trees = [simulator(tmp_path / str(workers), workers=workers, **options)() for workers in (1, 2)]
    assert bytes_of(trees[0]) == bytes_of(trees[1])
    again = simulator(trees[0], **options)
    again()
    assert again.frames_per_second_per_core is None
    with pytest.raises(ValueError, match="seed: there 1, wanted 2"):
        simulator(trees[0], **{**options, "seed": 2})()
    with pytest.raises(ValueError, match="_frames=0 must be at least 1"):
        simulator(tmp_path / "x", **{**options, next(k for k in options if k.endswith("_frames")): 0})


def test_a_tree_of_another_layout_is_not_taken_for_ones_own(tmp_path: Path) -> None:
    SimulateOnce(tmp_path / "t", **ONCE)()
    with pytest.raises(ValueError, match="layout: there 'once', wanted 'waymo'"):
        SimulateWaymo(tmp_path / "t", **WAYMO)()


def test_waymo_files_have_waymos_columns(tmp_path: Path) -> None:
    root = build(
        PREPARATIONS, dict(type="SimulateWaymo", root=str(tmp_path / "t"), splits={"training": 1.0}, **WAYMO)
    )()
    names = {component: sorted((root / "training" / component).glob("*.parquet")) for component in COMPONENTS}
    assert {len(files) for files in names.values()} == {2}
    for component, files in names.items():
        for path in files:
            assert path.name == names["lidar"][files.index(path)].name
            assert pq.read_schema(path).equals(schema_of(component))
    lidar = pq.read_table(names["lidar"][0]).to_pylist()
    assert [row["key.laser_name"] for row in lidar[:5]] == [1, 2, 3, 4, 5]
    assert lidar[0]["[LiDARComponent].range_image_return1.shape"] == [64, 120, 4]
    assert {row["key.laser_name"] for row in pq.read_table(names["lidar_pose"][0]).to_pylist()} == {1}
    calibration = pq.read_table(names["lidar_calibration"][0]).to_pylist()
    tables = [row["[LiDARCalibrationComponent].beam_inclination.values"] for row in calibration]
    assert len(tables[0]) == 64
    assert np.all(np.diff(tables[0]) > 0), "lowest beam first"
    assert tables[1:] == [None] * 4, "short-range beams are evenly spread"


def test_once_files_have_onces_keys(tmp_path: Path) -> None:
    splits = {"train": 0.67, "raw_small": 0.33}
    root = build(PREPARATIONS, dict(type="SimulateOnce", root=str(tmp_path / "t"), splits=splits, **ONCE))()
    for split, annotated in (("train", [True, False]), ("raw_small", [False, False])):
        for sequence in (root / f"ImageSets/{split}.txt").read_text().split():
            content = json.loads((root / f"data/{sequence}/{sequence}.json").read_text())
            assert set(content) == {"meta_info", "calib", "frames"}
            assert len(content["calib"]) == 7
            assert ["annos" in frame for frame in content["frames"]] == annotated[: len(content["frames"])]
            for frame in content["frames"]:
                assert len(frame["pose"]) == 7
                assert (root / f"data/{sequence}/lidar_roof/{frame['frame_id']}.bin").stat().st_size % 16 == 0
    # The front camera looks along ONCE's -y.
    assert np.allclose(np.array(content["calib"]["cam01"]["cam_to_velo"])[:3, 2], [0, -1, 0])


def test_an_object_keeps_its_place_in_the_world_while_the_car_drives() -> None:
    first, last = list(simulate_segment(3, 0, 4, car_lasers(60)))[::3]
    common = sorted(set(first.object_ids) & set(last.object_ids))
    assert len(common) > 3
    places = []
    for frame in (first, last):
        at = [frame.object_ids.index(name) for name in common]
        centres = np.concatenate([frame.boxes.boxes[at, :3], np.ones((len(at), 1))], axis=1)
        places.append(centres @ frame.vehicle_pose.T)
    np.testing.assert_allclose(places[0], places[1], atol=1e-4)
    driven = np.linalg.norm(first.vehicle_pose[:3, 3] - last.vehicle_pose[:3, 3])
    assert 0.3 < driven < 4


def test_poses_are_rigid_and_the_car_stays_clear_of_the_vehicle_ahead() -> None:
    points = np.random.default_rng(0).normal(size=(10, 3))
    pose = Pose(3.0, -2.0, 0.7)
    np.testing.assert_allclose(pose.from_street(pose.to_street(points)), points, atol=1e-12)
    np.testing.assert_allclose(pose.to_street(np.array([[1.0, 0, 5]])), [[3 + np.cos(0.7), -2 + np.sin(0.7), 5]])
    for seed in range(20):
        drive = draw_drive(np.random.default_rng(seed), 5.0)
        for seconds in (0.0, 2.5, 5.0):
            here = drive.pose(seconds)
            for item in drive.parts.labelled:
                distance = np.hypot(item.position[0] - here.x, item.position[1] - here.y)
                assert distance > 2.0, (seed, seconds)


def test_a_scene_seen_from_elsewhere_is_the_same_scene() -> None:
    """Rays cast from another place meet the surfaces where they are, whatever the parts' kind."""
    block = Model((box((-1, -0.5, 0), (1, 0.5, 2), Material.METAL),), "Car")
    ball = Model((ellipsoid((0, 0, 1), (1.5, 0.8, 1.0), Material.METAL),))
    post = Model((cylinder(0, 0, 0.4, 0, 3, Material.METAL),))
    scene = place(
        [Placement(block, (8, 3, -1), 0.4), Placement(ball, (9, -4, -1), 1.1), Placement(post, (6, 0, -1.5), 0.2)]
    )
    sensor = LidarSensor(tuple(np.linspace(8, -8, 40)), 720, range_noise_m=0.0, half_signal=1e-12, own_vehicle=())
    moved = scene.seen_from(1.0, -2.0, 0.3, 0.5)
    assert moved.labelled[0].yaw == pytest.approx(-0.1)
    returns = sensor.returns(moved, sensor.grid(), np.random.default_rng(0))
    xyz = returns.positions(sensor.grid()).astype(float)
    cos, sin = np.cos(0.5), np.sin(0.5)
    there = np.stack([cos * xyz[:, 0] - sin * xyz[:, 1] + 1, sin * xyz[:, 0] + cos * xyz[:, 1] - 2, xyz[:, 2] + 0.3], 1)
    for part, (centre, yaw) in enumerate((((8, 3, -1), 0.4), ((9, -4, -1), 1.1), ((6, 0, -1.5), 0.2))):
        mine = there[returns.part == part] - centre
        along = mine[:, 0] * np.cos(yaw) + mine[:, 1] * np.sin(yaw)
        across = mine[:, 1] * np.cos(yaw) - mine[:, 0] * np.sin(yaw)
        assert len(mine) > 50
        if part == 0:
            off = np.maximum(np.abs(along) - 1, np.maximum(np.abs(across) - 0.5, np.abs(mine[:, 2] - 1) - 1))
        elif part == 1:
            off = (along / 1.5) ** 2 + (across / 0.8) ** 2 + (mine[:, 2] - 1) ** 2 - 1
        else:
            off = np.hypot(along, across) - 0.4
        assert np.median(np.abs(off)) < 0.03  # the metal's roughness
        assert np.abs(off).max() < 0.2


def test_a_turn_cast_in_parts_meets_what_the_whole_turn_meets() -> None:
    block = Model((box((-1, -0.5, 0), (1, 0.5, 2), Material.METAL),), "Car")
    scene = place([Placement(block, (8, 0, -1), 0.4), Placement(block, (-8, 1, -1), 0.4)])  # one across column 0
    sensor = LidarSensor((2.0, 0.0, -2.0), 360, range_noise_m=0.0, half_signal=1e-12, own_vehicle=())
    grid = sensor.grid()
    whole = sensor.returns(scene, grid, np.random.default_rng(0))
    parts = [sensor.returns(scene, grid, np.random.default_rng(0), columns=c) for c in ((0, 7), (7, 200), (200, 360))]
    for name in ("rays_alone", "rays_met"):
        np.testing.assert_array_equal(sum(getattr(p, name) for p in parts), getattr(whole, name))
    assert sorted({c for p in parts for c in p.column.tolist()}) == sorted(set(whole.column.tolist()))
    assert all(0 <= c < 7 for c in parts[0].column.tolist())


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    once = ["--format", "once", "--out", str(tmp_path / "once"), "--frames", "3", "--drive-frames", "1"]
    assert simulate_lidar.main([*once, "--raw-share", "0.4", "--val-share", "0.3"]) == 0
    assert sorted(p.stem for p in (tmp_path / "once/ImageSets").iterdir()) == ["raw_small", "train", "val"]
    waymo = ["--format", "waymo", "--out", str(tmp_path / "waymo"), "--frames", "1"]
    assert simulate_lidar.main(waymo) == 0
    assert (tmp_path / "waymo/training/lidar").is_dir()
    assert simulate_lidar.main([*waymo, "--val-share", "1.5"]) == 1
    assert "must be shares that sum to 1" in capsys.readouterr().err
