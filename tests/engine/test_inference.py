from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import adperception
from adperception.checkpoint.layout import CheckpointError
from adperception.checkpoint.save import write_tensors
from adperception.engine.inference import Detector, infer
from adperception.geometry.voxelization import VoxelCollate, Voxelizer
from adperception.models.base import DetectionModel, Losses
from adperception.models.pretrain.ad_l_jepa import ADLJEPA
from adperception.registry import MODELS, build
from adperception.structures import Boxes3D, Detections, LidarBatch, VoxelGrid

GROUND = -1.7
CLASSES = [dict(name="Car", size=[4.0, 2.0, 1.5], bottom=GROUND, matched_iou=0.6, unmatched_iou=0.45)]


@MODELS.register_module()
class BrightestPoint(DetectionModel):
    """Finds a car, with the score of its intensity, at the point that reflects most; needs no training."""

    class_names = ("Car",)

    def __init__(self, classes: Sequence[Any], in_channels: int = 4) -> None:
        super().__init__()
        self.grid = VoxelGrid((0.0, -20.0, -3.0, 40.0, 20.0, 1.0), (0.5, 0.5, 0.5))
        self.in_channels = in_channels
        self.size = torch.nn.Parameter(torch.tensor([4.0, 2.0, 1.5]))

    def forward(self, batch: LidarBatch, generator: torch.Generator | None = None) -> Losses:
        raise NotImplementedError

    def collate(self, training: bool) -> Callable[[Sequence[Any]], Any]:
        return VoxelCollate(Voxelizer(self.grid, None, None), self.in_channels)

    def predict(self, batch: LidarBatch) -> list[Detections]:
        found = []
        for points in batch.points:
            if not len(points):
                found.append(Detections.empty())
                continue
            best = points[points[:, 3].argmax()].numpy()
            box = np.float32([[*best[:3], *self.size.detach().numpy(), 0.5]])
            found.append(Detections(Boxes3D(box, ("Car",)), best[3:4]))
        return found


def weights(folder: Path, **metadata: Any) -> Path:
    config = {"type": "BrightestPoint", "classes": CLASSES}
    path = folder / "detector.safetensors"
    write_tensors(path, build(MODELS, config).state_dict(), {"model_config": config, **metadata})
    return path


def scan(ground: float = GROUND, intensity_max: float = 1.0) -> np.ndarray:
    """A road with one bright point 1 m above it, 10 m ahead and 2 m to the left."""
    rng = np.random.default_rng(0)
    xy = rng.uniform(-25, 25, size=(30_000, 2))
    road = np.column_stack([xy, np.full(len(xy), ground), rng.uniform(0, 0.3, len(xy))])
    points = np.concatenate([road, [[10.0, 2.0, ground + 1.0, 0.9]]]).astype(np.float32)
    points[:, 3] *= intensity_max
    return points


def test_one_call_finds_the_object_where_it_is(tmp_path: Path) -> None:
    result = adperception.infer(scan(), weights(tmp_path))
    assert result.detections.boxes.names == ("Car",)
    np.testing.assert_allclose(result.detections.boxes.boxes, [[10, 2, GROUND + 1, 4, 2, 1.5, 0.5]], rtol=1e-6)
    assert result.detections.scores.tolist() == pytest.approx([0.9])
    assert result.warnings == ()
    header, row = result.table().splitlines()
    assert header.split()[:5] == ["class", "score", "x", "y", "z"]
    assert row.split() == ["Car", "0.90", "10.00", "2.00", "-0.70", "4.00", "2.00", "1.50", "29"]


def test_eight_bit_intensity_from_a_file(tmp_path: Path) -> None:
    points = scan(intensity_max=255)
    points[0, 3] = 0
    points.tofile(tmp_path / "scan.bin")
    result = infer(tmp_path / "scan.bin", weights(tmp_path))
    assert result.frame_id == "scan.bin"
    assert "dividing by 255" in result.reading
    assert result.detections.scores.tolist() == pytest.approx([0.9])


def test_a_sensor_at_another_height_is_noticed_and_put_right(tmp_path: Path) -> None:
    detector = Detector(weights(tmp_path), "cpu")
    lost = detector(scan(ground=-4.9))
    (height, nothing) = lost.warnings
    assert height == "median ground height -4.9 m; the model was trained at -1.7 m: pass --sensor-height 4.9"
    assert nothing.startswith(
        "nothing found: 0 of 30,001 points lie in the model's range [0, -20, -3, 40, 20, 1] (points"
    )
    assert lost.table() == "no object found"

    found = detector(scan(ground=-4.9), sensor_height=4.9)
    assert found.warnings == ()
    np.testing.assert_allclose(found.detections.boxes.boxes[0, :3], [10, 2, -3.9], atol=1e-5)  # the scan's own frame
    np.testing.assert_allclose(found.point_cloud_range, [0, -20, -6.2, 40, 20, -2.2], atol=1e-6)
    np.testing.assert_array_equal(found.cloud.points, scan(ground=-4.9))


def test_nothing_found_is_a_result_with_a_hint(tmp_path: Path) -> None:
    result = infer(scan(), weights(tmp_path), min_score=0.95)
    assert len(result.detections) == 0
    assert result.warnings[0].endswith("a result like any other if none of Car is there and reached a score of 0.95.")
    empty = infer(np.zeros((0, 4), dtype=np.float32), weights(tmp_path))
    assert "0 of 0 points" in empty.warnings[0]


def test_channels_are_those_of_the_training_data(tmp_path: Path) -> None:
    path = weights(tmp_path, channel_names=["x", "y", "z", "ring"])
    assert Detector(path, "cpu").channels == ("x", "y", "z", "ring")
    with pytest.raises(ValueError, match=r"no ring. --fill-missing 0"):
        infer(scan(), path, channels=["x", "y", "z", "intensity"])


def test_height_of_training_from_the_dataset_or_not_at_all(tmp_path: Path) -> None:
    for dataset, expected in (({"type": "Waymo"}, 0.0), ({"type": "KITTI"}, -1.73), ({"type": "Folder"}, None)):
        config = {"type": "BrightestPoint", "classes": ["Car"]}
        path = tmp_path / "a.safetensors"
        write_tensors(path, build(MODELS, config).state_dict(), {"model_config": config, "dataset": dataset})
        assert Detector(path, "cpu").ground_height == expected
    with pytest.raises(ValueError, match="does not say at which height its model was trained"):
        infer(scan(), path, sensor_height=2.0)


def test_recorded_height_of_training_counts_most(tmp_path: Path) -> None:
    """More than the anchors say, and more than what is known of the dataset."""
    dataset = {"type": "KITTI"}
    assert Detector(weights(tmp_path, ground_height=-0.4, dataset=dataset), "cpu").ground_height == -0.4
    assert Detector(weights(tmp_path, ground_height=0.0, dataset=dataset), "cpu").ground_height == 0.0
    assert Detector(weights(tmp_path, ground_height=None, dataset=dataset), "cpu").ground_height == GROUND


def test_other_weights_are_refused(tmp_path: Path) -> None:
    config = {"type": "ADLJEPA", "point_cloud_range": (0, -1.6, -2, 3.2, 1.6, 2), "voxel_size": (0.05, 0.05, 0.1)}
    model = ADLJEPA(config["point_cloud_range"], config["voxel_size"])  # type: ignore[arg-type]
    write_tensors(tmp_path / "pre.safetensors", model.state_dict(), {"model_config": config})
    with pytest.raises(CheckpointError, match=r"holds a ADLJEPA, which finds no objects. Fine-tune a detector"):
        infer(scan(), tmp_path / "pre.safetensors")


def test_importing_the_package_stays_quick(repository: Path) -> None:
    code = "import adperception, sys; assert 'torch' not in sys.modules; assert callable(adperception.infer)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=repository)
    with pytest.raises(AttributeError, match="no attribute 'inferr'"):
        adperception.inferr  # noqa: B018
