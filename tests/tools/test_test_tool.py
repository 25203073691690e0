"""tools/test.py on simulated KITTI: weights to predictions to metrics, and metrics again without the model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from adperception.checkpoint.save import write_tensors
from adperception.config import load_config
from adperception.datasets.kitti import KITTI
from adperception.evaluation.predictions import write_predictions
from adperception.registry import MODELS, build
from adperception.simulation.simulate_kitti import SimulateKitti
from adperception.sparse import backends
from adperception.structures import Detections

CONFIG = """
model = dict(
    type="SECOND", point_cloud_range=[0.0, -6.4, -3.0, 12.8, 6.4, 1.0], voxel_size=[0.2, 0.2, 0.1],
    bev_layers=[1, 1], bev_filters=[16, 16], bev_upsample_filters=[16, 16],
    classes=[dict(name="Car", size=[3.9, 1.6, 1.56], bottom=-1.78, matched_iou=0.6, unmatched_iou=0.45)],
)
train_dataset = dict(type="KITTI", root="{root}", split="train")
val_dataset = dict(type="KITTI", root="{root}", split="val")
optimizer = dict(type="AdamW", lr=0.003)
train = dict(steps=2, batch_size=2)
evaluations = [dict(type="KittiAP", classes=["Car"])]
"""


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    splits = {"train": 0.25, "val": 0.75}
    root = SimulateKitti(tmp_path / "kitti", frames=4, columns=300, splits=splits)()
    path = tmp_path / "second.py"
    path.write_text(CONFIG.replace("{root}", str(root)), encoding="utf-8")
    return path


def test_weights_then_stored_predictions(tool, config_path: Path, tmp_path: Path, capsys) -> None:
    model = build(MODELS, load_config(config_path).values["model"])
    weights = tmp_path / "weights.safetensors"
    save_file({name: value.contiguous() for name, value in model.state_dict().items()}, weights)
    arguments = [str(config_path), "--device", "cpu", "--output", str(tmp_path / "out")]
    assert tool("test")([*arguments, "--weights", str(weights)]) == 0
    assert (tmp_path / "out/predictions.jsonl").is_file()
    assert "Car 3d" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["test", "infer"])
def test_an_unknown_sparse_backend_is_refused(tool, name: str, config_path: Path, tmp_path: Path, capsys) -> None:
    model = load_config(config_path).values["model"]
    weights = tmp_path / "weights.safetensors"
    write_tensors(weights, build(MODELS, model).state_dict(), {"model_config": model})
    arguments = [str(config_path) if name == "test" else "scan.npy", "--weights", str(weights), "--sparse-backend"]
    assert tool(name)([*arguments, "tourch"]) == 1
    error = f'sparse backend "tourch" is unknown. Available: {", ".join(backends.NAMES)}.'
    assert error in capsys.readouterr().err
    with backends.use_backend("auto"):
        tool(name)([*arguments, "torch", "--device", "cpu"])
        assert backends.backend_for(torch.device("cpu")) == "torch"
        assert backends._selected == "torch"


def test_labels_as_predictions_find_every_car(tool, config_path: Path, tmp_path: Path) -> None:
    dataset = KITTI(tmp_path / "kitti", split="val")
    frames = [dataset.read(index) for index in range(len(dataset))]
    labels = {f.frame_id: f.boxes for f in frames if f.boxes is not None}
    path = tmp_path / "labels.jsonl"
    write_predictions(path, {n: Detections(b, np.ones(len(b), dtype=np.float32)) for n, b in labels.items()})
    out = tmp_path / "out"
    assert tool("test")([str(config_path), "--from-predictions", str(path), "--output", str(out)]) == 0
    results = json.loads((out / "results.json").read_text())
    assert results["frames"] == len(dataset)
    cars = sum(boxes.names.count("Car") for boxes in labels.values())
    assert results["metrics"]["Car_labels"] == cars > 0
    assert results["metrics"]["Car_best_3d_iou"] == pytest.approx(1, abs=1e-3)


def test_a_missing_file_is_one_sentence(tool, config_path: Path, tmp_path: Path, capsys) -> None:
    missing = tmp_path / "none.jsonl"
    assert tool("test")([str(config_path), "--from-predictions", str(missing)]) == 1
    assert "none.jsonl: there are no predictions here" in capsys.readouterr().err
