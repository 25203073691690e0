from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
import torch

from adperception.datasets import KITTI, Argoverse2, Folder, LidarDataset
from adperception.datasets.suggestions import _best_overlap, suggest_model
from adperception.geometry import Voxelizer
from adperception.models.backbones.voxel_backbone_8x import VoxelBackBone8x
from adperception.models.heads.anchors import make_anchors, parse_anchor_classes
from adperception.registry import MODELS, build
from adperception.structures import Boxes3D, LidarFrame, PointCloud, VoxelGrid


class Drives(LidarDataset):
    """Cars and people of given sizes at random places, 20 points in each."""

    labelled = True

    def __init__(self, low: tuple[float, float], high: tuple[float, float], ground: float, frames: int = 12) -> None:
        super().__init__([str(i) for i in range(frames)])
        self.low, self.high, self.ground = low, high, ground

    def read(self, index: int) -> LidarFrame:
        rng = np.random.default_rng(index)
        count = 40
        names = ("Car", "Person") * (count // 2)
        sizes = np.array([(4.4, 1.9, 1.6), (0.7, 0.6, 1.8)] * (count // 2)) * rng.normal(1, 0.05, (count, 1))
        xy = rng.uniform(self.low, self.high, (count, 2))
        yaw = rng.choice([0, np.pi / 2, np.pi], count) + rng.normal(0, 0.1, count)
        boxes = np.column_stack([xy, self.ground + sizes[:, 2] / 2, sizes, yaw]).astype(np.float32)
        points = np.repeat(boxes[:, :3], 20, axis=0) + rng.normal(0, 0.05, (count * 20, 3))
        points = np.column_stack([points, rng.uniform(size=len(points))]).astype(np.float32)
        return LidarFrame(str(index), PointCloud(points), Boxes3D(boxes, names))


def values_of(fragment: str) -> dict[str, object]:
    """Top-level names of a fragment, read as a config would be: only dict(...) and literals."""

    def value(node: ast.expr) -> object:
        if isinstance(node, ast.Call):
            assert isinstance(node.func, ast.Name)
            assert node.func.id == "dict"
            return {k.arg: value(k.value) for k in node.keywords}
        return [value(e) for e in node.elts] if isinstance(node, ast.List) else ast.literal_eval(node)

    return {s.targets[0].id: value(s.value) for s in ast.parse(fragment).body}


@pytest.mark.parametrize(
    ("low", "high", "ground", "voxel", "expected"),
    [
        ((0, -30), (60, 30), -1.7, 0.05, (0, -32, 61, 32)),  # only ahead, as KITTI's labels
        ((-60, -60), (60, 60), 0.0, 0.1, (-64, -64, 64, 64)),  # all around, the sensor's height taken off
        ((-12, -12), (12, 12), -4.9, 0.05, (-14, -14, 14, 14)),  # a yard, the sensor on a mast
        ((-20, 5), (20, 70), -1.7, 0.05, (-24, 0, 24, 73)),  # nuScenes' axes: y ahead
    ],
)
def test_range_and_voxels_fit_data_and_encoder(
    low: tuple[float, float], high: tuple[float, float], ground: float, voxel: float, expected: tuple[float, ...]
) -> None:
    suggestion = suggest_model(Drives(low, high, ground))
    grid = suggestion.grid
    assert grid.voxel_size[:2] == (voxel, voxel)
    np.testing.assert_allclose([grid.point_cloud_range[i] for i in (0, 1, 3, 4)], expected, atol=2.5)
    assert ground - 0.6 <= grid.point_cloud_range[2] < ground
    assert ground + 1.9 < grid.point_cloud_range[5] < ground + 3
    assert VoxelBackBone8x(4, grid).bev_channels == 256  # refuses what it cannot take
    assert all(n % 8 == 0 for n in grid.size_xyz[:2])
    car, person = suggestion.classes
    np.testing.assert_allclose(car.size, (4.4, 1.9, 1.6), atol=0.1)
    assert car.bottom == person.bottom == pytest.approx(ground, abs=0.02)
    assert (car.matched_iou, car.unmatched_iou) == (0.6, 0.45)
    assert (person.matched_iou == 0.3) == (voxel == 0.1)  # coarse cells leave people little overlap


def test_the_fragment_builds_the_model() -> None:
    suggestion = suggest_model(Drives((-12, -12), (12, 12), -1.8))
    fragment = suggestion.fragment(train_dataset=dict(type="Folder", root='a "b"', split=None, channels=("x", "ü")))
    values = values_of(fragment)
    assert values["train_dataset"] == dict(type="Folder", root='a "b"', split=None, channels=["x", "ü"])
    model = build(MODELS, values["model"], bev_layers=[1], bev_filters=[16], bev_upsample_filters=[16])
    assert list(model.class_names) == ["Car", "Person"]
    assert model.grid == suggestion.grid
    assert [c["name"] for c in values["evaluations"][0]["classes"]] == ["Car", "Person"]
    frame = Drives((-12, -12), (12, 12), -1.8).read(0)
    voxels, _ = Voxelizer(suggestion.grid, 5, suggestion.max_voxels)(torch.from_numpy(frame.cloud.points))
    assert 0 < len(voxels) < suggestion.max_voxels


@pytest.mark.parametrize("size", [(4.4, 1.9), (0.7, 0.6)])
def test_typical_overlap_is_that_of_the_anchors_of_the_head(size: tuple[float, float]) -> None:
    grid = VoxelGrid.create((-12.8, -6.4, -3, 12.8, 6.4, 1), (0.1, 0.1, 0.1))
    rng = np.random.default_rng(0)
    boxes = rng.uniform((-13, -7, -1, 0.5, 0.5, 1.5, -9), (13, 7, -1, 5, 2.2, 1.6, 9), (200, 7))
    anchor = dict(name="Car", size=[*size, 1.5], bottom=-1.7, matched_iou=0.6, unmatched_iou=0.45)
    anchors = make_anchors(parse_anchor_classes("test", [anchor]), grid, (16, 32)).numpy().reshape(-1, 7)
    turned = np.abs(np.sin(anchors[:, 6])) > 0.5
    sides = np.where(turned[:, None], anchors[:, [4, 3]], anchors[:, 3:5])
    for box, overlap in zip(boxes, _best_overlap(boxes, size, grid), strict=True):
        mine = box[[4, 3]] if np.abs(np.sin(box[6])) > np.sqrt(0.5) else box[3:5]
        low = np.maximum(anchors[:, :2] - sides / 2, box[:2] - mine / 2)
        high = np.minimum(anchors[:, :2] + sides / 2, box[:2] + mine / 2)
        shared = np.maximum(high - low, 0).prod(axis=1)
        assert overlap == pytest.approx((shared / (sides.prod(axis=1) + mine.prod() - shared)).max(), abs=1e-5)


def test_unlabelled_clouds_get_a_pretraining_model(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(0, (20, 20, 0.5, 1), (20_000, 4)).astype(np.float32)
    points.tofile(tmp_path / "a.bin")
    suggestion = suggest_model(Folder(tmp_path))
    model = values_of(suggestion.fragment())["model"]
    assert model["type"] == "ADLJEPA"
    assert "classes" not in model
    assert build(MODELS, model).grid.point_cloud_range[0] == pytest.approx(-20 * 2.33, abs=3)
    np.zeros((0, 4), dtype=np.float32).tofile(tmp_path / "a.bin")
    with pytest.raises(ValueError, match="hold no point"):
        suggest_model(Folder(tmp_path))
    with pytest.raises(ValueError, match="max_range=500 must be 1 to 160"):
        suggest_model(Folder(tmp_path), max_range=500)


def test_far_objects_do_not_blow_up_the_voxels() -> None:
    suggestion = suggest_model(Drives((-140, -140), (140, 140), 0.0))
    assert suggestion.grid.point_cloud_range[:2] == (-76.8, -76.8)
    assert suggestion.grid.voxel_size[0] == 0.1
    assert "480 of 480 boxes hold 5 points or more" in suggestion.remarks[1]
    wide = suggest_model(Drives((-140, -140), (140, 140), 0.0), max_range=150)
    assert wide.grid.voxel_size[0] == 0.2
    assert "small for cells of 1.6 m" in wide.fragment()


def test_chosen_and_rare_classes() -> None:
    dataset = Drives((-12, -12), (12, 12), 0.0)
    dataset.classes = ("Person", "Tram")
    suggestion = suggest_model(dataset)
    assert [c.name for c in suggestion.classes] == ["Person"]
    assert suggestion.remarks[-1] == "Fewer than 3 such boxes, so no anchor: Tram (0)."


@pytest.mark.real_data
def test_recordings(real_data: Path) -> None:
    kitti = suggest_model(KITTI(real_data / "lidar/kitti", "trainval_reduced", "velodyne_reduced"))
    anchors = {c.name: c for c in kitti.classes}
    np.testing.assert_allclose(anchors["Car"].size, (3.9, 1.6, 1.56), atol=0.25)  # published: from 3,712 frames
    assert (anchors["Car"].matched_iou, anchors["Car"].unmatched_iou) == (0.6, 0.45)
    assert kitti.grid.voxel_size == (0.05, 0.05, 0.1)  # the published voxels
    assert kitti.grid.point_cloud_range[0] == 0
    pytest.importorskip("pyarrow")
    av2 = suggest_model(Argoverse2(real_data / "lidar/av2", "val", class_map="coarse"))
    assert av2.grid.voxel_size == (0.1, 0.1, 0.2)
    build(MODELS, values_of(av2.fragment())["model"], bev_layers=[1], bev_filters=[16], bev_upsample_filters=[16])
