"""A run looks at its data before the first step."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

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
