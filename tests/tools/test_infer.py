from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adperception.checkpoint.save import write_tensors
from adperception.registry import MODELS, build

Tool = Callable[[str], Callable[[list[str]], int]]
SECOND = {
    "type": "SECOND",
    "point_cloud_range": [0.0, -6.4, -3.0, 12.8, 6.4, 1.0],
    "voxel_size": [0.1, 0.1, 0.1],
    "classes": [dict(name="Car", size=[4.0, 2.0, 1.5], bottom=-1.7, matched_iou=0.6, unmatched_iou=0.45)],
    "bev_filters": [16, 16],
    "bev_upsample_filters": [16, 16],
}


def test_nothing_found_is_no_error(tool: Tool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A real detector without training, on a road."""
    weights, scan, out = tmp_path / "second.safetensors", tmp_path / "scan.npy", tmp_path / "out"
    write_tensors(weights, build(MODELS, SECOND).state_dict(), {"model_config": SECOND})
    xy = np.random.default_rng(0).uniform((0, -6), (12, 6), size=(3000, 2))
    np.save(scan, np.column_stack([xy, np.full(3000, -1.7), np.full(3000, 0.3)]))
    assert tool("infer")(["--weights", str(weights), str(scan), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{scan}: read 3,000 points, channels x y z intensity"
    assert lines[1].startswith("note: nothing found: 3,000 of 3,000 points lie in the model's range")
    assert lines[2] == "no object found"
    assert lines[3] == f"wrote {out / 'scan.npy.json'} and {out / 'scan.npy.png'}"
    record = json.loads((out / "scan.npy.json").read_text())
    assert record == {"frame_id": "scan.npy", "names": [], "scores": [], "boxes": []}
    assert (out / "scan.npy.png").read_bytes().startswith(b"\x89PNG")


def test_errors_are_one_line(tool: Tool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool("infer")(["--weights", str(tmp_path / "w"), "a/scan.npy", "b/scan.npy"]) == 1
    assert capsys.readouterr().err.startswith("error: two files are called scan.npy; their results would overwrite")
    assert tool("infer")(["--weights", str(tmp_path / "w.safetensors"), "scan.npy"]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'w.safetensors'}: there is no checkpoint here.\n"
