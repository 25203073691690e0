from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from adperception.datasets import KITTI, Folder, LidarDataset
from adperception.datasets.object_database import ObjectDatabase, build_object_database
from adperception.datasets.transforms import GroundTruthSampling
from adperception.geometry import bev_collisions, count_points_in_boxes
from adperception.structures import Boxes3D, LidarFrame, PointCloud

MakeTree = Callable[..., Path]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def tree(make_tree: MakeTree) -> Path:
    """Eight frames; a car on a line 3 m wide and 16 m long, a pedestrian beside it."""
    return make_tree(frames=8)


@pytest.fixture
def database(tree: Path, tmp_path: Path) -> ObjectDatabase:
    return build_object_database(KITTI(tree), tmp_path / "objects")


def empty_road() -> LidarFrame:
    points = rng().uniform((5, -5, -1.75, 0), (40, 5, -1.0, 1), (4000, 4)).astype(np.float32)
    return LidarFrame("road", PointCloud(points), Boxes3D.empty())


def test_the_database_holds_the_points_of_the_boxes(tree: Path, database: ObjectDatabase) -> None:
    assert sorted(database.classes) == ["Car", "Pedestrian"]
    assert len(database) == 16
    dataset = KITTI(tree)
    box = dataset.read(3).boxes.boxes[0]
    position = next(i for i in range(16) if np.allclose(database.objects["box"][i], box))
    points = database.points(position)
    assert len(points) == database.objects["num_points"][position] >= 118
    whole = dataset.read_cloud(3)[0].points
    moved = points + np.float32([*box[:3], 0])
    assert all((np.abs(whole - p).max(axis=1) < 1e-5).any() for p in moved)
    assert count_points_in_boxes(moved[:, :3], box[None])[0] >= len(points) - 1


def test_objects_are_cut_from_whole_clouds(tree: Path, database: ObjectDatabase, tmp_path: Path) -> None:
    narrow = KITTI(tree, image_size=(375, 500))  # this camera would see only a part of the objects
    assert len(narrow.read(0).cloud) < len(KITTI(tree).read(0).cloud)
    again = build_object_database(narrow, tmp_path / "narrow")
    np.testing.assert_array_equal(again.objects["num_points"], database.objects["num_points"])


def test_the_database_is_mapped_not_loaded(database: ObjectDatabase) -> None:
    assert isinstance(database.objects, np.memmap)
    assert len(pickle.dumps(database)) < 2_000
    assert len(pickle.loads(pickle.dumps(database)).points(3)) > 0


def test_candidates_need_points_and_a_difficulty(tree: Path, tmp_path: Path) -> None:
    label = tree / "training/label_2/000000.txt"
    car, pedestrian = label.read_text().splitlines()
    label.write_text(car.replace("Car 0.00 0", "Car 0.90 3") + "\n" + pedestrian + "\n")  # harder than hard
    database = build_object_database(KITTI(tree), tmp_path / "objects")
    assert len(database) == 16
    assert len(database.candidates("Car", min_points=5)) == 7
    assert len(database.candidates("Car", min_points=500)) == 0
    assert len(database.candidates("Tram", min_points=0)) == 0


def test_built_on_first_use_then_reused(tree: Path) -> None:
    first = KITTI(tree, transforms=[dict(type="GroundTruthSampling", objects={"Car": 3})])
    folder = tree / "object_database_training_velodyne_train"
    made = (folder / "points.npy").stat().st_mtime_ns
    second = KITTI(tree, transforms=[dict(type="GroundTruthSampling", objects={"Car": 3})])
    assert (folder / "points.npy").stat().st_mtime_ns == made
    assert not list(tree.glob(".object_database*"))
    pairs = [(first.get(0, rng(i)), second.get(0, rng(i))) for i in range(10)]
    for a, b in pairs:
        np.testing.assert_array_equal(a.cloud.points, b.cloud.points)
    assert {a.boxes.names.count("Car") for a, _ in pairs} >= {1, 2}


def test_a_database_of_other_frames_is_refused(tree: Path) -> None:
    config = dict(type="GroundTruthSampling")
    KITTI(tree, transforms=[config])
    (tree / "ImageSets/train.txt").write_text("000001\n")
    with pytest.raises(ValueError, match=r"built from other frames .*Delete the folder"):
        KITTI(tree, transforms=[config])
    index = tree / "object_database_training_velodyne_train/index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "version": 0}))
    with pytest.raises(ValueError, match="has version 0"):
        KITTI(tree, transforms=[config])


def test_pasted_objects_keep_their_points_and_clear_the_scene(database: ObjectDatabase) -> None:
    sampling = GroundTruthSampling({"Car": 20, "Pedestrian": 15})
    sampling.use(database)
    frame = empty_road()
    pasted = removed = 0
    for seed in range(20):
        out = sampling(frame, rng(seed))
        pasted += len(out.boxes)
        collisions = bev_collisions(out.boxes.boxes, out.boxes.boxes)
        assert collisions.sum() == len(out.boxes)  # each only with itself
        counts = count_points_in_boxes(out.cloud.xyz, out.boxes.boxes)
        stored = {
            tuple(b): n for b, n in zip(database.objects["box"].tolist(), database.objects["num_points"], strict=True)
        }
        expected = [stored[tuple(b)] for b in out.boxes.boxes.tolist()]
        assert np.abs(counts - expected).max(initial=0) <= 1  # no point of the road is left inside
        removed += 4000 + sum(expected) - len(out.cloud)
        road = out.cloud.points[sum(expected) :]  # pasted points come first, then what is left of the scene
        assert {p.tobytes() for p in road} <= {p.tobytes() for p in frame.cloud.points}
    assert pasted > 0
    assert removed > 100
    assert len(frame.cloud) == 4000


def test_never_into_present_objects_of_any_class(database: ObjectDatabase) -> None:
    blocked = Boxes3D(np.array([[20, 0, -1, 60, 20, 2, 0]], dtype=np.float32), ("Van",))
    sampling = GroundTruthSampling({"Car": 20, "Pedestrian": 15})
    sampling.use(database)
    out = sampling(replace(empty_road(), boxes=blocked), rng())
    assert out.boxes.names == ("Van",)


def test_tops_up_to_the_number_wanted(database: ObjectDatabase) -> None:
    far = np.array([[100 + 10 * i, 50, -1, 4, 2, 2, 0] for i in range(3)], dtype=np.float32)
    frame = replace(empty_road(), boxes=Boxes3D(far, ("Car",) * 3))
    for wanted, most in ((3, 0), (2, 0), (4, 1)):
        sampling = GroundTruthSampling({"Car": wanted})
        sampling.use(database)
        added = [len(sampling(frame, rng(i)).boxes) - 3 for i in range(10)]
        assert max(added) == most


def test_without_topping_up_the_present_objects_do_not_count(database: ObjectDatabase) -> None:
    """OpenPCDet's LIMIT_WHOLE_SCENE: False."""
    far = np.array([[100 + 10 * i, 50, -1, 4, 2, 2, 0] for i in range(3)], dtype=np.float32)
    frame = replace(empty_road(), boxes=Boxes3D(far, ("Car",) * 3))
    for top_up, most in ((True, 0), (False, 1)):
        sampling = GroundTruthSampling({"Car": 1}, top_up=top_up)
        sampling.use(database)
        assert max(len(sampling(frame, rng(i)).boxes) - 3 for i in range(5)) == most


def test_the_least_number_of_points_may_differ_by_class(database: ObjectDatabase) -> None:
    sampling = GroundTruthSampling({"Car": 1, "Pedestrian": 1}, min_points={"Car": 5, "Pedestrian": 10_000})
    sampling.use(database)
    names = [n for i in range(5) for n in sampling(empty_road(), rng(i)).boxes.names]
    assert set(names) == {"Car"}
    with pytest.raises(ValueError, match="min_points names Tram, objects names Car"):
        GroundTruthSampling({"Car": 9}, min_points={"Tram": 5})


def test_a_class_that_no_object_has_is_said_aloud(database: ObjectDatabase, caplog: pytest.LogCaptureFixture) -> None:
    GroundTruthSampling({"car": 9, "Car": 1}).use(database)
    assert [r.getMessage() for r in caplog.records] == [
        f'GroundTruthSampling: {database.path} has no "car" (it has Car, Pedestrian): none will be pasted.'
    ]


def boxes_of(dataset: LidarDataset) -> set[tuple[float, ...]]:
    return {tuple(b) for i in range(len(dataset)) for b in dataset.read(i).boxes.boxes.tolist()}


@pytest.mark.parametrize(("subset", "frames"), [({"fraction": 0.25}, [0, 1]), ({"interval": 5}, [0, 5])])
def test_no_object_of_a_frame_outside_the_subset_is_ever_pasted(
    tree: Path, subset: dict[str, float], frames: list[int]
) -> None:
    config = dict(type="GroundTruthSampling", objects={"Car": 20, "Pedestrian": 20})
    whole = KITTI(tree, transforms=[config])  # its database lies there already and must not be taken
    dataset = KITTI(tree, transforms=[config], **subset)
    allowed = boxes_of(KITTI(tree, split=[f"{i:06d}" for i in frames]))
    assert len(allowed) == 4
    (sampling,) = dataset.transforms
    assert {tuple(b) for b in sampling.database.objects["box"].tolist()} == allowed
    seen = {tuple(b) for i in range(40) for b in dataset.get(i % 2, rng(i)).boxes.boxes.tolist()}
    assert seen == allowed
    assert {tuple(b) for i in range(40) for b in whole.get(i % 8, rng(i)).boxes.boxes.tolist()} > allowed
    kept = whole.transforms[0].database.path
    with pytest.raises(ValueError, match="would bring in objects that this dataset must not know"):
        KITTI(tree, transforms=[{**config, "database": str(kept)}], **subset)


class Towed(LidarDataset):
    """Any labelled dataset: no difficulties, other channels, every second frame empty, the last one unlabelled."""

    labelled = True

    def __init__(self, root: Path, **options: object) -> None:
        self.root, self.split = root, None
        super().__init__([f"drive/{i}" for i in range(5)], **options)
        self.bind_transforms()

    def read(self, index: int) -> LidarFrame:
        boxes = np.array([[10 + 10 * index, 0, -1, 4, 2, 2, 0.1]], dtype=np.float32)
        points = rng(index).uniform((-1, -0.5, -0.5, 0, 0), (1, 0.5, 0.5, 1, 9), (30, 5)).astype(np.float32)
        points[:, :3] += boxes[0, :3]
        cloud = PointCloud(points, ("x", "y", "z", "intensity", "ring"))
        found = Boxes3D(boxes, ("Trailer",)) if index % 2 else Boxes3D.empty()
        return LidarFrame(self.frame_ids[index], cloud, None if index == 4 else found)


def test_any_labelled_dataset_will_do(tmp_path: Path) -> None:
    dataset = Towed(tmp_path, transforms=[dict(type="GroundTruthSampling", objects={"Trailer": 2}, min_points=30)])
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("object_database_frames_")
    frame = dataset.get(0, rng())
    assert frame.boxes.names == ("Trailer", "Trailer")
    assert sorted(frame.boxes.boxes[:, 0]) == [20, 40]
    assert len(frame.cloud) == 90
    expected = sum(dataset.read(i).cloud.points[:, 4].sum() for i in (1, 3))
    assert frame.cloud.points[:60, 4].sum() == pytest.approx(expected)  # pasted points come first


def test_objects_stand_on_the_road_plane(database: ObjectDatabase) -> None:
    plane = np.array([-0.05, 0.02, 1.0, 1.9])
    plane /= np.linalg.norm(plane[:3])
    sampling = GroundTruthSampling({"Pedestrian": 4})
    sampling.use(database)
    out = sampling(replace(empty_road(), road_plane=plane), rng(2))
    assert len(out.boxes) > 0
    bottom = out.boxes.boxes[:, :3].copy()
    bottom[:, 2] -= out.boxes.boxes[:, 5] / 2
    np.testing.assert_allclose(bottom @ plane[:3] + plane[3], 0, atol=1e-5)
    assert count_points_in_boxes(out.cloud.xyz, out.boxes.boxes).min() >= 118  # the points moved along


def test_needs_labels_and_matching_channels(tree: Path, database: ObjectDatabase, tmp_path: Path) -> None:
    sampling = GroundTruthSampling()
    with pytest.raises(ValueError, match="no database yet"):
        sampling(empty_road(), rng())
    sampling.use(database)
    with pytest.raises(ValueError, match="frame road has no labels"):
        sampling(replace(empty_road(), boxes=None), rng())
    cloud = PointCloud(np.zeros((2, 3), dtype=np.float32), ("x", "y", "z"))
    with pytest.raises(ValueError, match="database has the channels"):
        sampling(replace(empty_road(), cloud=cloud), rng())
    with pytest.raises(ValueError, match="no labels to cut objects from"):
        KITTI(tree, labels=False, transforms=[sampling])
    with pytest.raises(ValueError, match="no labels to cut objects from"):
        Folder(tree / "training/velodyne", transforms=[sampling])
    with pytest.raises(ValueError, match="objects"):
        GroundTruthSampling({"Car": -1})
    with pytest.raises(FileNotFoundError, match=r"index\.json"):
        ObjectDatabase.open(tmp_path / "nothing")


def test_boxes_without_points_cannot_make_a_database(tree: Path, tmp_path: Path) -> None:
    for path in (tree / "training/velodyne").iterdir():
        path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"no labelled box .* holds a point"):
        build_object_database(KITTI(tree), tmp_path / "objects")
    assert not (tmp_path / "objects").exists()
    assert not list(tmp_path.glob(".objects*"))


@pytest.mark.real_data
def test_real_objects(real_data: Path, tmp_path: Path) -> None:
    dataset = KITTI(
        real_data / "lidar/kitti",
        split="train_reduced",
        points="velodyne_reduced",
        transforms=[dict(type="GroundTruthSampling", database=str(tmp_path / "objects"))],
    )
    before = sum(len(dataset.read(i).boxes) for i in range(len(dataset)))
    after = 0
    for i in range(len(dataset)):
        frame = dataset.get(i, rng(i))
        after += len(frame.boxes)
        counts = count_points_in_boxes(frame.cloud.xyz, frame.boxes.boxes)
        assert (counts[len(dataset.read(i).boxes) :] >= 5).all()
    assert after > before + 10
