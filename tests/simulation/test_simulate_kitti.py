from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from adperception.datasets.formats.image_size import read_image_shapes
from adperception.datasets.formats.kitti_calib import read_calibration
from adperception.datasets.formats.kitti_label import read_labels
from adperception.datasets.formats.point_files import read_points
from adperception.registry import PREPARATIONS, build
from adperception.simulation.simulate_kitti import SimulateKitti
from data_tools import simulate_lidar

SMALL = dict(frames=5, seed=3, columns=200, reduced=True)


def bytes_of(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return SimulateKitti(tmp_path_factory.mktemp("one") / "tree", workers=1, **SMALL)()


@pytest.mark.multi_process
def test_same_seed_gives_the_same_bytes_for_any_number_of_workers(tree: Path, tmp_path: Path) -> None:
    other = SimulateKitti(tmp_path / "tree", workers=3, **SMALL)()
    assert bytes_of(other) == bytes_of(tree)


def test_another_seed_gives_other_scenes(tree: Path, tmp_path: Path) -> None:
    other = SimulateKitti(tmp_path / "tree", **{**SMALL, "seed": 4, "frames": 1})()
    name = "training/velodyne/000000.bin"
    assert (other / name).read_bytes() != (tree / name).read_bytes()


def test_a_longer_recording_begins_with_the_same_frames(tree: Path, tmp_path: Path) -> None:
    other = SimulateKitti(tmp_path / "tree", **{**SMALL, "frames": 2})()
    for name in ("velodyne/000001.bin", "label_2/000001.txt", "calib/000001.txt"):
        assert (other / "training" / name).read_bytes() == (tree / "training" / name).read_bytes()


def test_the_tree_has_kittis_layout_and_is_readable(tree: Path) -> None:
    ids = (tree / "ImageSets/trainval.txt").read_text().split()
    train, val = ((tree / f"ImageSets/{s}.txt").read_text().split() for s in ("train", "val"))
    assert ids == [f"{i:06d}" for i in range(5)]
    assert sorted(train + val) == ids
    assert len(val) == 1
    shapes = read_image_shapes(tree / "image_shapes.csv")
    for frame_id in ids:
        cloud = read_points(tree / f"training/velodyne/{frame_id}.bin")
        reduced = read_points(tree / f"training/velodyne_reduced/{frame_id}.bin")
        calibration = read_calibration(tree / f"training/calib/{frame_id}.txt")
        read_labels(tree / f"training/label_2/{frame_id}.txt")
        height, width = shapes[frame_id]
        pixels, depth = calibration.rect_to_image(calibration.to_rect(reduced.xyz))
        assert (depth >= 0).all()
        assert ((pixels >= -1e-3) & (pixels < np.array([width, height]) + 1e-3)).all()
        assert 0.05 < len(reduced) / len(cloud) < 0.35
        assert len(cloud) > 0.7 * 64 * 200


def test_a_second_run_does_nothing(tree: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in tree.rglob("*")}
    again = SimulateKitti(tree, workers=2, **SMALL)
    assert again() == tree
    assert again.frames_per_second_per_core is None
    assert {p: p.stat().st_mtime_ns for p in tree.rglob("*")} == before


def test_a_tree_of_other_options_is_refused_naming_them(tree: Path) -> None:
    before = bytes_of(tree)
    with pytest.raises(ValueError, match=r"seed: there 3, wanted 7"):
        SimulateKitti(tree, **{**SMALL, "seed": 7})()
    assert bytes_of(tree) == before


def test_a_folder_that_no_simulation_made_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(ValueError, match="not empty"):
        SimulateKitti(tmp_path, **SMALL)()
    assert [p.name for p in tmp_path.iterdir()] == ["precious.txt"]


def test_an_interrupted_tree_is_completed(tree: Path, tmp_path: Path) -> None:
    root = SimulateKitti(tmp_path / "tree", **SMALL)()
    manifest = root / "simulation.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "complete": False}))
    (root / "training/velodyne/000004.bin").write_bytes(b"cut")
    (root / "ImageSets/val.txt").unlink()
    SimulateKitti(root, **SMALL)()
    assert bytes_of(root) == bytes_of(tree)


def test_a_broken_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / "simulation.json").write_text("{")
    with pytest.raises(ValueError, match=r"simulation\.json: not readable"):
        SimulateKitti(tmp_path, **SMALL)()


@pytest.mark.parametrize(
    "options",
    [dict(frames=0), dict(workers=0), dict(seed=-1), dict(splits={"train": 0.5}), dict(splits={"trainval": 1})],
)
def test_options_without_sense_are_refused(tmp_path: Path, options: dict) -> None:
    with pytest.raises(ValueError, match="SimulateKitti"):
        SimulateKitti(tmp_path / "tree", **options)


def test_it_is_a_preparation_that_configs_can_name(tmp_path: Path) -> None:
    built = build(PREPARATIONS, dict(type="SimulateKitti", root=str(tmp_path / "t"), frames=1, columns=50))
    assert built() == tmp_path / "t"
    with pytest.raises(ValueError, match="frames"):
        build(PREPARATIONS, dict(type="SimulateKitti", root="t", frame=1))


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--out", str(tmp_path / "t"), "--frames", "1"]
    assert simulate_lidar.main(arguments) == 0
    captured = capsys.readouterr()
    assert "frames/s per core" in captured.out
    assert "0/1" in captured.err, "the progress bar appears before the first frame is done"
    assert simulate_lidar.main(arguments) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert simulate_lidar.main([*arguments, "--seed", "1"]) == 1
    assert "other options" in capsys.readouterr().err
