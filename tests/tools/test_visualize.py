from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adperception.evaluation.predictions import write_predictions
from adperception.structures import Boxes3D, Detections

Tool = Callable[[str], Callable[[list[str]], int]]
FOUND = Detections(Boxes3D(np.float32([[14.7, -1.1, -0.7, 3.7, 1.6, 1.5, -0.3]]), ("Car",)), np.float32([0.9]))


@pytest.mark.real_data
def test_pictures_of_the_frames_with_predictions(
    tool: Tool, repository: Path, real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    predictions, out = tmp_path / "predictions.jsonl", tmp_path / "out"
    write_predictions(predictions, {"000008": FOUND, "000010": Detections.empty()})
    options = [str(repository / "configs/second/second_kitti_overfit.py"), "--predictions", str(predictions)]
    options += ["--out", str(out), "--cfg-options", f"val_dataset.root={real_data / 'lidar/kitti'}"]
    assert tool("visualize")(options) == 0
    assert sorted(path.name for path in out.iterdir()) == ["000008.png", "000010.png"]
    capsys.readouterr()

    write_predictions(predictions, {"other": FOUND})
    assert tool("visualize")(options) == 1
    assert "none of its 1 frames is in the val dataset" in capsys.readouterr().err
    assert tool("visualize")([*options, "--frames", "999999"]) == 1
    assert capsys.readouterr().err == "error: --frames 999999: the val dataset has no such frame.\n"
