from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from adperception.compression.resize import zero_count
from adperception.config import Config, load_config
from adperception.engine.cells import with_sections
from adperception.engine.compression import CompressionRun, run_compression
from adperception.engine.compression_plan import Compression, Method
from adperception.engine.compression_report import CompressionResults, differences, markdown_report, write_report
from adperception.engine.run import RunOptions, train
from adperception.engine.trainer import Trainer
from adperception.zoo import load_model

import toy_radar

CONFIG = """
model = dict(type="MVNet", moments=2, shared_blocks=False)
train_dataset = dict(type="ToyRadarFrames", frames=6, moments=2)
val_dataset = dict(type="ToyRadarFrames", frames=3, moments=2, seed=1)
optimizer = dict(type="Adam", lr=0.001)
train = dict(steps=1, batch_size=2)
evaluations = [dict(type="RadarSegmentation")]
seed = 3
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    assert toy_radar.TOY_GRID.shape == (16, 24, 8)
    path = tmp_path_factory.mktemp("compression") / "mv_net.py"
    path.write_text(CONFIG, encoding="utf-8")
    return load_config(path)


@pytest.fixture(scope="module")
def weights(config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    train(config, RunOptions(folder, device="cpu"))
    return folder / "weights.safetensors"


def study(config: Config, weights: Path, method: Method = "structured", steps: int = 1) -> Compression:
    return Compression(config, (weights,), method, (0.3, 0.6), steps=steps, rate=1e-4)


def test_rounds_of_pruning_and_fine_tuning(config: Config, weights: Path, tmp_path: Path) -> None:
    run = CompressionRun(tmp_path, device="cpu")
    results = run_compression(study(config, weights), run)
    assert results.is_complete
    whole, first, second = sorted(results.cells, key=lambda cell: cell["share"])
    assert whole["removed"] == 0
    assert [first["removed"], second["removed"]] == pytest.approx([0.3, 0.6], abs=0.005)
    assert second["multiply_adds"][""] < first["multiply_adds"][""] < whole["multiply_adds"][""]
    assert all("rd_mean_iou_no_background" in cell["metrics"] for cell in results.cells)
    (file,) = tmp_path.glob("network_0/removed_60_*/weights.safetensors")
    small = load_model(file)  # the file alone says what it is
    assert sum(p.numel() for p in small.parameters()) == second["parameters"]
    assert {path.name for path in tmp_path.iterdir()} >= {"results.json", "results.md", "results.png"}

    def never(*_: Any, **__: Any) -> Trainer:
        raise AssertionError("a finished cell was trained again")

    again = run_compression(study(config, weights), run, train=never)
    assert again.cells == results.cells


def test_masks_hold_through_rounds(config: Config, weights: Path, tmp_path: Path) -> None:
    results = run_compression(study(config, weights, "unstructured"), CompressionRun(tmp_path, device="cpu"))
    cells = sorted(results.cells, key=lambda cell: cell["share"])
    assert [cell["removed"] for cell in cells] == pytest.approx([0, 0.3, 0.6], abs=1e-5)
    assert len({cell["multiply_adds"][""] for cell in cells}) == 1
    (file,) = tmp_path.glob("network_0/removed_60_*/weights.safetensors")
    model = load_model(file)
    total = sum(p.numel() for p in model.parameters())
    assert zero_count(model) == total - cells[2]["parameters"]
    (source,) = tmp_path.glob("network_0/removed_60_*/pruned.safetensors")
    assert any(not torch.equal(a, b) for a, b in zip(model.parameters(), load_model(source).parameters(), strict=True))


def test_a_pruned_run_resumes_bit_equal(config: Config, weights: Path, tmp_path: Path) -> None:
    run_compression(study(config, weights, steps=0), CompressionRun(tmp_path / "study", device="cpu"))
    (pruned,) = (tmp_path / "study").glob("network_0/removed_30_*/pruned.safetensors")
    tuning = with_sections(
        config,
        init={"weights": str(pruned)},
        train={"steps": 2, "batch_size": 2},
        checkpoint={"every_steps": 1, "keep": 2},
        evaluations=None,
    )
    train(tuning, RunOptions(tmp_path / "whole", device="cpu"))
    shutil.copytree(tmp_path / "whole", tmp_path / "stopped")
    shutil.rmtree(tmp_path / "stopped/checkpoints/step_00000002")
    pruned.unlink()  # a run goes on from its own files
    train(tuning, RunOptions(tmp_path / "stopped", resume=True, device="cpu"))
    files = [tmp_path / name / "checkpoints/step_00000002/model.safetensors" for name in ("whole", "stopped")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shares": (0.4, 0.2)}, r"--steps 0\.4 0\.2: give ascending shares"),
        ({"shares": (0.4, 1.0)}, r"--steps 1: a share .* lies below 1"),
        ({"steps": 3, "epochs": 3}, "exactly one of --finetune-steps"),
        ({"steps": -1}, "must not be negative"),
        ({"rate": 0.0}, "--lr 0 must be positive"),
        ({"weights": ()}, "--weights: give the weights"),
    ],
)
def test_what_cannot_be_done(config: Config, changes: dict[str, Any], message: str) -> None:
    options = {"weights": (Path("w"),), "method": "structured", "shares": (0.2,), "steps": 1, **changes}
    with pytest.raises(ValueError, match=message):
        Compression(config, **options)


def test_too_large_a_share_is_said_before_anything_runs(config: Config, weights: Path, tmp_path: Path) -> None:
    wanted = Compression(config, (weights,), "structured", (0.2, 0.9999), steps=1)
    with pytest.raises(ValueError, match="are needed with 4 channels in every layer"):
        run_compression(wanted, CompressionRun(tmp_path, device="cpu"))
    assert not list(tmp_path.glob("network_0/*"))


def cell(network: int, share: float, value: float) -> dict[str, Any]:
    metrics = {f"{v}_mean_{m}{b}": value for v in ("rd", "ra") for m in ("iou", "dice") for b in ("", "_no_background")}
    return {
        "network": network,
        "weights": f"{network}.safetensors",
        "share": share,
        "removed": share,
        "parameters": 1000 * (1 - share),
        "multiply_adds": {"0 objects": 1e9, "2 objects": 2e9 * (1 - share)},
        "metrics": {**metrics, "mean_dice": value, "ra_mean_iou_no_background": None},
        "training_seconds": 7.0,
    }


def test_differences_are_paired_by_network(tmp_path: Path) -> None:
    cells = [cell(n, s, 10.0 * n + (-2.0 - 0.1 * n) * s) for n in range(3) for s in (0.0, 0.5)]
    del cells[0]  # network 0 has no value to compare with
    results = CompressionResults("net", "structured", tuple(cells), 6)
    found = differences(results, 0.5, "mean_dice")
    # -1.05 and -1.1, deviation 0.0354, t = 12.706 with one degree of freedom: far less than between networks.
    assert found.value == pytest.approx(-1.075)
    assert found.high - found.value == pytest.approx(12.7062 * 0.0353553 / math.sqrt(2), rel=1e-4)
    report = markdown_report(results)
    assert "5 of 6 cells are finished" in report
    assert "multiply-adds (G), 0 / 2 objects" in report
    assert "| 50.0 % | 500 | 1 / 1 |" in report
    assert "[-1.39, -0.76], worse" in report
    assert "n/a" in report
    write_report(results, tmp_path / "a")
    # Trained on without pruning, each network loses 0.5 as well, and network 0 counts again.
    trained_on = [cell(n, s, 10.0 * n - s) for n in range(3) for s in (0.0, 0.5)]
    control = CompressionResults("net", "none", tuple(trained_on), 6)
    assert differences(results, 0.5, "mean_dice", control).value == pytest.approx(-0.5 - 0.05)
    write_report(control, tmp_path / "control")
    write_report(results, tmp_path / "a", beside=[tmp_path / "control/results.json"])
    assert "trained on as long with nothing removed" in (tmp_path / "a/results.md").read_text()
    write_report(results, tmp_path / "a")
    assert "trained on as long" not in (tmp_path / "a/results.md").read_text()
    other = CompressionResults("other", "none", tuple(cells), 6)
    write_report(other, tmp_path / "b", beside=[tmp_path / "a/results.json"])
    assert (tmp_path / "b/results.png").stat().st_size > (tmp_path / "a/results.png").stat().st_size
    assert (
        json.loads((tmp_path / "a/results.json").read_text())["differences"]["0.5"]["mean_dice"]["verdict"] == "worse"
    )
    (tmp_path / "c.json").write_text("{}")
    with pytest.raises(ValueError, match="is no results file of"):
        write_report(other, tmp_path / "b", beside=[tmp_path / "c.json"])
