"""The radar quickstart as a stranger starts it, two steps long and on twenty frames."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from adperception.zoo import config_directory

Main = Callable[[], int]


def test_simulates_trains_measures_and_draws(
    tool: Callable[[str], Main], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = [
        *("prepare.frames=20", "prepare.sequence_frames=10", "prepare.workers=1"),
        "prepare.splits={'Train': 0.5, 'Validation': 0.5}",
        *("train.steps=2", "train.batch_size=2", "train.workers=0"),
    ]
    config = str(config_directory() / "quickstart_radar.py")
    monkeypatch.setattr(sys, "argv", ["train.py", config, "--device", "cpu", "--cfg-options", *options])
    assert tool("train")() == 0

    assert (tmp_path / "data/quickstart_radar/Carrada/data_seq_ref.json").is_file()
    work_dir = tmp_path / "work_dirs/quickstart_radar"
    results = json.loads((work_dir / "results.json").read_text())
    assert results["steps"] == 2
    assert results["training_frames"] == 6
    assert results["metrics"]["frames"] == 6
    for name in ("rd_mean_iou", "rd_mean_iou_no_background", "ra_mean_dice", "ra_mean_dice_no_background"):
        assert 0 <= results["metrics"][name] <= 100
    assert "mean_center_AP" in results["metrics"]
    out = capsys.readouterr().out
    assert out.count("mean, no background") == 2
    assert "mean AP, all centres" in out
    assert len(list((work_dir / "panels").glob("*.png"))) >= 2
    assert (work_dir / "weights.safetensors").is_file()
