"""tools/browse.py, visualize.py and test.py with a radar config."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from adperception.config import load_config
from adperception.engine.run import RunOptions, train

import toy_radar


@pytest.fixture
def tool(repository: Path) -> Callable[[str], Callable[[list[str]], int]]:
    def load(name: str) -> Callable[[list[str]], int]:
        spec = importlib.util.spec_from_file_location(f"radar_{name}", repository / "tools" / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.main  # type: ignore[no-any-return]

    return load


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = tmp_path / "toy_radar.py"
    path.write_text(toy_radar.CONFIG, encoding="utf-8")
    return path


def test_browse_draws_training_frames(tool, config_path, tmp_path):
    assert tool("browse")([str(config_path), "--out", str(tmp_path / "out"), "--frames", "2"]) == 0
    assert len(list((tmp_path / "out").glob("00?_toy_*.png"))) == 2


def test_evaluate_then_visualize_and_animate(tool, config_path, tmp_path, capsys):
    train(load_config(config_path), RunOptions(tmp_path / "run", device="cpu"))
    test, out = tmp_path / "test", tmp_path / "out"
    weights = str(tmp_path / "run/weights.safetensors")
    assert tool("test")([str(config_path), "--weights", weights, "--output", str(test), "--device", "cpu"]) == 0
    assert json.loads((test / "results.json").read_text())["metrics"]["frames"] == 6
    predictions = str(test / "predictions.npz")
    assert tool("test")([str(config_path), "--from-predictions", predictions, "--output", str(out)]) == 0
    options = [str(config_path), "--predictions", predictions, "--count", "2", "--out", str(out)]
    assert tool("visualize")(options) == 0
    assert {path.name for path in out.glob("*.png")} == {"toy_000000.png", "toy_000001.png"}
    assert tool("visualize")([*options, "--animate", str(out / "sequence.gif")]) == 0
    with Image.open(out / "sequence.gif") as image:
        assert image.n_frames == 2
    assert tool("visualize")([*options, "--viewer"]) == 1
    assert "--viewer shows LiDAR frames" in capsys.readouterr().err


def test_bad_prediction_files(tool, config_path, tmp_path, capsys):
    path = tmp_path / "predictions.npz"
    assert tool("test")([str(config_path), "--from-predictions", str(path)]) == 1
    path.write_bytes(b"not a zip")
    assert tool("test")([str(config_path), "--from-predictions", str(path)]) == 1
    errors = capsys.readouterr().err.splitlines()
    assert errors[0].endswith("there are no predictions here.")
    assert "not a file of radar predictions" in errors[1]
