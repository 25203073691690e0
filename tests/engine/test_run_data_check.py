"""A run looks at its data before the first step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from adperception.checkpoint.load import read_metadata
from adperception.config import load_config
from adperception.engine.run import RunOptions, train

CONFIG = """
model = dict(type="ADLJEPA", point_cloud_range=[0.0, -1.6, -2.0, 3.2, 1.6, 2.0], voxel_size=[0.05, 0.05, 0.1])
train_dataset = dict(type="Folder", root="{root}")
optimizer = dict(type="AdamW", lr=1e-3)
train = dict(steps=1, batch_size=1)
"""


def test_range_without_points_stops_before_the_first_step(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    for index in range(3):
        np.save(tmp_path / "scans" / f"{index}.npy", np.full((100, 4), 1000.0, dtype=np.float32))
    config = tmp_path / "run.py"
    config.write_text(CONFIG.format(root=tmp_path / "scans"))
    with pytest.raises(ValueError, match=r"0 of 300 points are inside point_cloud_range.*Check units"):
        train(load_config(config), RunOptions(tmp_path / "run", device="cpu"))
    assert not (tmp_path / "run" / "log.jsonl").exists()


def test_height_of_the_road_is_recorded_and_survives_a_resume(tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    rng = np.random.default_rng(0)
    for index in range(3):
        points = rng.uniform((-12, -12, -1.5, 0), (12, 12, -1.45, 1), size=(20_000, 4)).astype(np.float32)
        np.save(tmp_path / "scans" / f"{index}.npy", points)
    path, work_dir = tmp_path / "run.py", tmp_path / "run"
    path.write_text(CONFIG.format(root=tmp_path / "scans"))
    options = {"work_dir": work_dir, "device": "cpu"}
    train(load_config(path), RunOptions(**options))
    assert read_metadata(work_dir / "weights.safetensors")["ground_height"] == pytest.approx(-1.475, abs=0.01)
    (checkpoint,) = (work_dir / "checkpoints").glob("step_*")
    assert read_metadata(checkpoint)["ground_height"] == pytest.approx(-1.475, abs=0.01)

    for file in (tmp_path / "scans").iterdir():  # the run had other data at its start
        np.save(file, np.load(file) + np.float32([0, 0, 0.7, 0]))
    trainer = train(load_config(path), RunOptions(**options, resume=True))
    assert trainer.progress.ground_height == pytest.approx(-1.475, abs=0.01)
