"""A radar model in the training loop and in tools/test.py: results, panels, exact resume, stored predictions."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from adperception.checkpoint.load import read_metadata, read_tensors
from adperception.config import load_config
from adperception.engine.evaluate import evaluate_predictions, evaluate_weights
from adperception.engine.run import RunOptions, train
from adperception.evaluation.radar_predictions import RadarPredictions, RadarPredictionWriter
from adperception.models.radar.base import CARRADA_CLASSES, RadarPrediction
from adperception.structures import RadarMasks

import toy_radar
from toy_radar import TOY_GRID
from toy_runs import assert_equal_checkpoints, forget_after


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = tmp_path / "toy_radar.py"
    path.write_text(toy_radar.CONFIG, encoding="utf-8")
    return path


def test_run_writes_metrics_predictions_weights_and_panels(config_path, tmp_path, capsys):
    work_dir = tmp_path / "run"
    trainer = train(load_config(config_path), RunOptions(work_dir, device="cpu"))
    output = capsys.readouterr().out
    assert "range-doppler (%)" in output
    assert "centres (%)" in output
    assert "ra_label_axis): sin" in output
    results = json.loads((work_dir / "results.json").read_text())
    assert results["metrics"]["frames"] == 6
    assert results["metrics"]["frames_without_object"] == results["metrics"]["empty_frames"] == 2
    assert results["metrics"]["mean_dice"] > 0
    assert trainer.progress.best_step in (4, 8)
    for evaluation in ("RadarSegmentation", "RadarDetection"):
        (stored,) = (work_dir / "predictions" / evaluation).iterdir()
        assert stored.name == "step_00000008.npz"
        assert list(RadarPredictions(stored)) == [f"toy/{number:06d}" for number in range(6)]
    metadata = read_metadata(work_dir / "weights.safetensors")
    assert metadata["radar_grid"] == TOY_GRID.to_dict()
    assert metadata["classes"] == list(CARRADA_CLASSES)
    assert metadata["label_axis"] == "sin"
    tensors = read_tensors(work_dir / "weights.safetensors")
    assert bool(torch.isfinite(tensors["normalization.limits"]).all())
    kinds = [json.loads(line)["kind"] for line in (work_dir / "log.jsonl").read_text().splitlines()]
    assert kinds.count("evaluation") == 2  # the rehearsal of two frames is no result
    panels = sorted(path.name for path in (work_dir / "panels").iterdir())
    assert panels == ["radar_toy_000001.png", "radar_toy_000003.png", "radar_toy_000005.png", "training_curves.png"]


def test_resumed_run_is_equal_to_the_bit(config_path, tmp_path):
    config = load_config(config_path)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    train(config, RunOptions(whole, device="cpu"))
    train(config, RunOptions(stopped, device="cpu"))
    forget_after(stopped, 6)  # in the middle of an epoch
    trainer = train(config, RunOptions(stopped, device="cpu", resume=True))
    assert trainer.progress.step == 8
    assert_equal_checkpoints(whole, stopped, 8)


def test_weights_and_stored_predictions_give_the_metrics_of_the_run(config_path, tmp_path):
    config = load_config(config_path)
    trainer = train(config, RunOptions(tmp_path / "run", device="cpu"))
    expected = {name: value for name, value in trainer.progress.metrics.items() if value == value}
    found = evaluate_weights(config, tmp_path / "run/weights.safetensors", tmp_path / "test", torch.device("cpu"))
    again = evaluate_predictions(config, tmp_path / "test/predictions.npz", tmp_path / "again")
    for metrics in (found, again):
        assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    assert json.loads((tmp_path / "again/results.json").read_text())["frames"] == 6


def test_re_estimated_batch_norm(config_path, tmp_path):
    config = load_config(config_path, ["train.batch_norm_statistics=re-estimated"])
    train(config, RunOptions(tmp_path / "run", device="cpu"))
    metadata = read_metadata(tmp_path / "run/weights.safetensors")
    assert metadata["batch_norm_statistics"] == "re-estimated over 12 training frames"


def write(path: Path, frames: int, classes=CARRADA_CLASSES, grid=TOY_GRID) -> None:
    masks = RadarMasks(np.zeros((16, 8), dtype=np.uint8), np.zeros((16, 24), dtype=np.uint8))
    with RadarPredictionWriter(path, classes, grid) as writer:
        for number in range(frames):
            writer.add(f"toy/{number:06d}", RadarPrediction(masks))


def test_predictions_that_do_not_belong_to_the_dataset_are_refused(config_path, tmp_path):
    config = load_config(config_path)
    path = tmp_path / "predictions.npz"
    write(path, 5)
    with pytest.raises(ValueError, match=r"1 validation frames have no predictions in it \(first: toy/000005\)"):
        evaluate_predictions(config, path, tmp_path / "test")
    write(path, 8)
    with pytest.raises(ValueError, match=r"2 of its frames are not in the validation set \(first: toy/000006\)"):
        evaluate_predictions(config, path, tmp_path / "test")
    write(path, 6, classes=("car",))
    with pytest.raises(ValueError, match="made with classes"):
        evaluate_predictions(config, path, tmp_path / "test")
    write(path, 6)
    with pytest.raises(ValueError, match="only segments"):
        evaluate_predictions(config, path, tmp_path / "test")


def test_wrong_evaluation_is_found_before_the_first_step(config_path, tmp_path):
    config = load_config(config_path, ["evaluations.0.type=OnceAP"])
    with pytest.raises(ValueError, match="OnceAP"):
        train(config, RunOptions(tmp_path / "run", device="cpu"))
    assert not (tmp_path / "run/checkpoints").exists()
