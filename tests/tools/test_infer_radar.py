"""tools/infer.py with a radar model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adperception.checkpoint.save import write_tensors
from adperception.models.radar.erase_net import ERASENet
from adperception.structures import RadarGrid

GRID = RadarGrid(32, 32, 16, range_bin_m=1.0, doppler_bin_mps=1.0)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    config = dict(moments=2, cube_shape=list(GRID.shape), normalization="carrada_tvt", score_threshold=0.01)
    path = tmp_path / "radar.safetensors"
    described = {"model_config": {"type": "ERASENet", **config}, "radar_grid": GRID.to_dict()}
    write_tensors(path, ERASENet(**config).state_dict(), described)
    return path


def test_moments_become_json_masks_pictures_and_an_animation(
    weights: Path, tmp_path: Path, tool: Callable[[str], Callable[[list[str]], int]], capsys: pytest.CaptureFixture[str]
) -> None:
    cubes = np.random.default_rng(0).rayleigh(30, (3, *GRID.shape)).astype(np.float32)
    cubes[:, 10:12, 20, 5] += 5000
    files = [tmp_path / f"{number:06d}.npy" for number in range(3)]
    for file, cube in zip(files, cubes, strict=True):
        np.save(file, cube)
    out, animation = tmp_path / "out", tmp_path / "sequence.gif"
    arguments = [*map(str, files), "--weights", str(weights), "--out", str(out), "--device", "cpu"]
    assert tool("infer")([*arguments, "--animate", str(animation)]) == 0
    assert sorted(path.name for path in out.iterdir()) == sorted(
        f"{number:06d}.npy.{suffix}" for number in (1, 2) for suffix in ("json", "npz", "png")
    )
    objects = json.loads((out / "000002.npy.json").read_text())["objects"]
    assert {"class", "score", "range_m", "azimuth_deg", "velocity_mps", "cell"} == set(objects[0])
    with Image.open(animation) as image:
        assert image.n_frames == 2
    assert "range (m)" in capsys.readouterr().out
    assert tool("infer")([*arguments[:1], *arguments[3:], "--objects-only"]) == 0
    assert "looks at 2 moments, 1 given" in capsys.readouterr().out


def test_options_of_the_other_sensor_are_refused(
    weights: Path, tool: Callable[[str], Callable[[list[str]], int]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert tool("infer")(["cube.npy", "--weights", str(weights), "--channels", "x"]) == 1
    assert "--channels does not apply" in capsys.readouterr().err
