"""Probes on a small simulated tree: the same for the same seed, for every kind of encoder file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from adperception.checkpoint.save import write_tensors
from adperception.config import Config, load_config
from adperception.engine.probe import ProbeOptions, probe_data, probe_encoder
from adperception.models.pretrain.bev_mae import BEVMAE
from adperception.simulation.simulate_kitti import SimulateKitti

GEOMETRY = {"point_cloud_range": [0.0, -6.4, -3.0, 25.6, 6.4, 1.0], "voxel_size": [0.2, 0.2, 0.1], "in_channels": 4}
CONFIG = """
model = dict(
    type="SECOND", point_cloud_range=[0.0, -6.4, -3.0, 25.6, 6.4, 1.0], voxel_size=[0.2, 0.2, 0.1], in_channels=4,
    classes=[dict(name="Car", size=[3.9, 1.6, 1.56], bottom=-1.78, matched_iou=0.6, unmatched_iou=0.45)],
)
train_dataset = dict(
    type="KITTI", root="ROOT", split="train", points="velodyne", crop_to_image=True, classes=["Car", "Pedestrian"],
    transforms=[dict(type="RandomWorldFlip")],
)
val_dataset = dict(type="KITTI", root="ROOT", split="val", points="velodyne", crop_to_image=True)
optimizer = dict(type="AdamW", lr=0.003)
train = dict(steps=2, batch_size=4)
"""
SMALL = ProbeOptions(train_frames=8, val_frames=4, features_per_class=200, statistics_batches=2)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    splits = {"train": 0.7, "val": 0.3}
    return SimulateKitti(tmp_path_factory.mktemp("data") / "kitti", frames=12, columns=600, splits=splits)()


@pytest.fixture
def config(root: Path, tmp_path: Path) -> Config:
    path = tmp_path / "detector.py"
    path.write_text(CONFIG.replace("ROOT", str(root)), encoding="utf-8")
    return load_config(path)


def test_random_and_stored_encoders(config: Config, tmp_path: Path) -> None:
    data = probe_data(config, SMALL, torch.device("cpu"))
    assert data.class_names == ("Car", "Pedestrian")
    assert (len(data.bank.frames), len(data.queries.frames)) == (8, 4)
    random = probe_encoder(data, "random", SMALL)
    assert random == pytest.approx(probe_encoder(data, "random", SMALL), nan_ok=True)
    for probe in ("knn", "linear"):
        assert {f"{probe}_{name}" for name in ("Car", "Pedestrian", "background", "mean")} <= random.keys()
    assert random["knn_mean"] > 1 / 3  # even random filters see shape
    assert 1 <= random["effective_rank"] <= 128
    assert random["off_diagonal_covariance"] >= 0

    torch.manual_seed(5)
    model = BEVMAE(**GEOMETRY)  # type: ignore[arg-type]
    path = tmp_path / "weights.safetensors"
    write_tensors(path, model.state_dict(), {"model_config": {"type": "BEVMAE", **GEOMETRY}})
    stored = probe_encoder(data, path, SMALL)
    assert stored != random
    # Only the encoder counts.
    with torch.no_grad():
        model.points_head.weight.zero_()
    write_tensors(path, model.state_dict(), {"model_config": {"type": "BEVMAE", **GEOMETRY}})
    assert probe_encoder(data, path, SMALL) == pytest.approx(stored, nan_ok=True)


def test_classes_and_val_frames_are_needed(config: Config) -> None:
    bare = load_config(config.path)
    del bare.values["val_dataset"]
    with pytest.raises(ValueError, match="need a val_dataset"):
        probe_data(bare, SMALL, torch.device("cpu"))
    nameless = load_config(config.path, ["train_dataset.classes=[]", "model.classes=[]"])
    with pytest.raises(ValueError, match="which classes should the probes tell apart"):
        probe_data(nameless, SMALL, torch.device("cpu"))
