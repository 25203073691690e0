"""The walk-through of docs/datasets.md with ten frames: check, suggest, train on the suggestion."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from adperception.config import load_config
from adperception.datasets.formats.label_table import write_label_table
from adperception.engine.settings import parse_settings
from adperception.registry import DATASETS, EVALUATIONS, MODELS, build
from adperception.structures import Boxes3D


def load_tool(repository: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{name}_tool", repository / f"data_tools/{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def tool(repository: Path) -> ModuleType:
    return load_tool(repository, "folder")


@pytest.fixture
def drives(tmp_path: Path) -> Path:
    """Ten clouds from a sensor at 2 m, intensity 0..255, a car and a pedestrian in nine of them."""
    root = tmp_path / "my_drives"
    (root / "clouds").mkdir(parents=True)
    frames, counts = {}, {}
    for index in range(10):
        rng = np.random.default_rng(index)
        boxes = np.array([[6 + index / 2, 2, -1.2, 4, 1.8, 1.6, 0.3], [-5, -index, -1.1, 0.7, 0.6, 1.8, 1]])
        parts = [rng.uniform((-12, -12, -2.05), (12, 12, -1.95), (2000, 3))]
        for x, y, z, length, width, height, yaw in boxes:
            local = rng.uniform(-0.45, 0.45, (60, 3)) * (length, width, height)
            cos, sin = np.cos(yaw), np.sin(yaw)
            parts.append(local @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) + (x, y, z))
        xyz = np.concatenate(parts)
        np.column_stack([xyz, rng.uniform(0, 255, len(xyz))]).astype(np.float32).tofile(root / f"clouds/{index}.bin")
        labels = Boxes3D(boxes.astype(np.float32), ("Car", "Pedestrian"))
        frames[f"clouds/{index}"] = Boxes3D.empty() if index == 4 else labels
        counts[f"clouds/{index}"] = np.array([60, 60])
    write_label_table(root / "labels.csv", frames, counts)
    (root / "train.txt").write_text("".join(f"clouds/{i}.bin\n" for i in range(8)))
    (root / "val.txt").write_text("clouds/8.bin\nclouds/9.bin\n")
    return root


def test_check(tool: ModuleType, drives: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["check", str(drives), "--labels", "labels.csv", "--intensity-max", "255"]
    assert tool.main([*arguments, "--range", "-8", "-8", "-3", "8", "8", "1"]) == 0
    out = capsys.readouterr().out
    assert f"{drives}: 10 frames (.bin), labels: {drives / 'labels.csv'}" in out
    assert "frames: 10 (10 labelled, 1 of these without an object)" in out
    assert "boxes with their centre inside the range: 66.7%" in out
    assert "Car                    9     100.0%" in out
    assert "points inside the range: 4" in out
    stated = next(line for line in out.splitlines() if line.startswith("boxes with as many points as the labels state"))
    assert stated.endswith("of 18")


def test_check_names_bad_frames(tool: ModuleType, drives: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cloud = drives / "clouds/3.bin"
    cloud.write_bytes(cloud.read_bytes()[:-3])
    shifted = np.fromfile(drives / "clouds/5.bin", dtype=np.float32).reshape(-1, 4) + np.float32([100, 0, 0, 0])
    shifted.tofile(drives / "clouds/5.bin")
    assert tool.main(["check", str(drives), "--labels", "labels.csv"]) == 1
    out = capsys.readouterr().out
    assert f"ERROR: {cloud}: 33,917 bytes are not a whole number of points" in out
    assert "note: clouds/5.bin: 2 of 2 boxes hold no point." in out
    assert "note: clouds/0.bin: Intensity reaches 25" in out  # --intensity-max was forgotten
    (drives / "clouds/3.bin").unlink()
    assert tool.main(["check", str(drives), "--labels", "labels.csv"]) == 1
    assert "labels.csv:8: labels for frame" in capsys.readouterr().err


def test_check_finds_boxes_in_another_frame(tool: ModuleType, drives: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = (drives / "labels.csv").read_text().splitlines()
    turned = [rows[0]]
    for row in rows[1:]:
        values = row.split(",")
        turned.append(",".join([*values[:2], values[3], values[2], *values[4:]]) if values[1] else row)
    (drives / "labels.csv").write_text("\n".join(turned))
    assert tool.main(["check", str(drives), "--labels", "labels.csv", "--intensity-max", "255"]) == 1
    out = capsys.readouterr().out
    assert "ERROR: Data check: only" in out
    assert "swapping (x, y) would give 100%" in out


def test_the_suggested_config_trains(
    tool: ModuleType, drives: Path, repository: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    arguments = ["--split", "train.txt", "--val-split", "val.txt", "--labels", "labels.csv", "--intensity-max", "255"]
    base = (repository / "configs/second/second_folder.py").as_posix()
    assert tool.main(["suggest", str(drives), *arguments, "--base", base]) == 0
    path = tmp_path / "mine.py"
    path.write_text(capsys.readouterr().out)
    narrow = ["model.bev_layers=[1]", "model.bev_filters=[16]", "model.bev_upsample_filters=[16]"]
    config = load_config(path, narrow)
    settings = parse_settings(config.values)
    train, val = build(DATASETS, settings.train_dataset), build(DATASETS, settings.val_dataset)
    assert (len(train), len(val)) == (8, 2)
    assert len(train.transforms) == 4  # of the base
    model = build(MODELS, settings.model)
    assert list(model.class_names) == ["Car", "Pedestrian"]
    assert model.grid.point_cloud_range[2] < -2
    frames = [train.get(i, np.random.default_rng(i)) for i in (0, 4)]  # the second one without an object
    assert [len(frame.boxes) for frame in frames] == [2, 0]
    losses = model(model.collate(training=True)(frames), torch.Generator())
    losses.total.backward()
    assert torch.isfinite(losses.total)
    (evaluation,) = [build(EVALUATIONS, section) for section in settings.evaluations]
    evaluation.bind(val)
    assert evaluation.headline == ("Car_overall_AP", "Pedestrian_overall_AP", "mean_overall_AP")


def test_suggestion_without_labels_and_errors(
    tool: ModuleType, drives: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool.main(["suggest", str(drives / "clouds"), "--intensity-max", "255"]) == 0
    assert 'type="ADLJEPA"' in capsys.readouterr().out
    assert tool.main(["suggest", str(drives), "--channels", "x", "y", "z", "ring", "time"]) == 1
    assert "only 5% of the points fit into a range of 76.8 m" in capsys.readouterr().err  # 4 numbers read as 5
