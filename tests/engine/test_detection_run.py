"""A detector in the training loop and in tools/test.py: rehearsal, predictions before metrics, results file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from adperception.checkpoint.load import read_metadata, read_tensors
from adperception.config import load_config
from adperception.engine.evaluate import evaluate_predictions, evaluate_weights
from adperception.engine.run import RunOptions, train
from adperception.evaluation.predictions import read_predictions

import toy_detector


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    path = tmp_path / "toy_detector.py"
    path.write_text(toy_detector.CONFIG, encoding="utf-8")
    return path


def test_run_writes_predictions_metrics_and_results(config_path, tmp_path, capsys):
    work_dir = tmp_path / "run"
    trainer = train(load_config(config_path), RunOptions(work_dir, device="cpu"))
    predictions = read_predictions(work_dir / "predictions/ToyCount/step_00000002.jsonl")
    assert [len(p) for p in predictions.values()] == [0, 1, 2]
    assert len(list((work_dir / "predictions/ToyCount").iterdir())) == 1
    results = json.loads((work_dir / "results.json").read_text())
    assert results["metrics"] == {"recall": 1.0, "empty_class": None, "evaluated_mean": pytest.approx(0.00995)}
    assert results["initialised_from"] == "random weights"
    assert results["steps"] == trainer.progress.step == 2
    assert results["training_seconds"] > 0
    assert len(list((work_dir / "panels").glob("detections_frame_*.png"))) == 3
    output = capsys.readouterr().out
    assert "table: recall 1.00" in output
    assert "empty_class n/a" in output
    kinds = [json.loads(line)["kind"] for line in (work_dir / "log.jsonl").read_text().splitlines()]
    assert kinds.count("evaluation") == 1  # the rehearsal of two frames is no result


def test_evaluated_and_given_away_with_statistics_of_the_training_frames(config_path, tmp_path):
    """Running statistics of two steps are still near their initial zeros; every frame has the same features here."""
    config = load_config(config_path, ["train.batch_norm_statistics=re-estimated"])
    trainer = train(config, RunOptions(tmp_path / "run", device="cpu"))
    given = read_tensors(tmp_path / "run/weights.safetensors")
    kept = read_tensors(tmp_path / "run/checkpoints/step_00000002/model.safetensors")
    torch.testing.assert_close(given["norm.running_mean"], torch.full((4,), 0.5))
    assert bool((kept["norm.running_mean"] < 0.02).all())
    metadata = read_metadata(tmp_path / "run/weights.safetensors")
    assert metadata["batch_norm_statistics"] == "re-estimated over 5 training frames"
    assert trainer.progress.metrics["evaluated_mean"] == pytest.approx(0.5)


def test_broken_evaluation_is_found_before_the_first_step(config_path, tmp_path):
    config = load_config(config_path, ["evaluations.0.broken=True"])
    with pytest.raises(ValueError, match="no ground truth"):
        train(config, RunOptions(tmp_path / "run", device="cpu"))
    assert not (tmp_path / "run/checkpoints").exists()


def test_initial_weights_are_recorded_and_survive_a_resume(config_path, tmp_path):
    train(load_config(config_path), RunOptions(tmp_path / "first", device="cpu"))
    weights = tmp_path / "first/weights.safetensors"
    config = load_config(config_path, [f"init.weights={weights}"])
    trainer = train(config, RunOptions(tmp_path / "second", device="cpu"))
    assert trainer.model.state_dict()["bias"] < 1
    results = json.loads((tmp_path / "second/results.json").read_text())
    assert results["initialised_from"]["weights"] == str(weights)
    assert results["initialised_from"]["tensors"] == 4
    (tmp_path / "second/results.json").unlink()
    train(config, RunOptions(tmp_path / "second", device="cpu", resume=True))
    again = json.loads((tmp_path / "second/results.json").read_text())
    assert again["initialised_from"] == results["initialised_from"]


def test_init_needs_one_source(config_path, tmp_path):
    config = load_config(config_path, ["init.expect=all"])
    with pytest.raises(ValueError, match="exactly one of encoder and weights"):
        train(config, RunOptions(tmp_path / "run", device="cpu"))


def test_weights_and_stored_predictions_give_the_same_metrics(config_path, tmp_path, capsys):
    config = load_config(config_path)
    train(config, RunOptions(tmp_path / "run", device="cpu"))
    found = evaluate_weights(config, tmp_path / "run/weights.safetensors", tmp_path / "test", torch.device("cpu"))
    assert found["recall"] == 1.0
    again = evaluate_predictions(config, tmp_path / "test/predictions.jsonl", tmp_path / "again")
    assert again["recall"] == found["recall"]
    assert json.loads((tmp_path / "again/results.json").read_text())["metrics"]["recall"] == 1.0
    assert "3 boxes in 3 frames" in capsys.readouterr().out


def test_predictions_of_another_split_are_refused(config_path, tmp_path):
    config = load_config(config_path)
    path = tmp_path / "predictions.jsonl"
    path.write_text('{"frame_id": "frame_0", "names": [], "scores": [], "boxes": []}\n')
    with pytest.raises(ValueError, match=r"2 validation frames have no predictions in it \(first: frame_1\)"):
        evaluate_predictions(config, path, tmp_path / "test")
    lines = [f'{{"frame_id": "{n}", "names": [], "scores": [], "boxes": []}}\n' for n in (*"abc",)]
    path.write_text("".join(lines))
    with pytest.raises(ValueError, match=r"3 validation frames have no predictions in it"):
        evaluate_predictions(config, path, tmp_path / "test")


def test_an_evaluation_that_fails_on_the_disk_leaves_a_checkpoint(config_path, tmp_path, monkeypatch):
    def full_disk(path, predictions):
        raise OSError("no space left on device")

    monkeypatch.setattr("adperception.evaluation.detection_evaluation.write_predictions", full_disk)
    config_path.write_text(toy_detector.CONFIG + "checkpoint = dict(every_steps=100)\n", encoding="utf-8")
    config = load_config(config_path)
    with pytest.raises(OSError, match="no space left"):
        train(config, RunOptions(tmp_path / "run", device="cpu"))
    assert (tmp_path / "run/checkpoints/step_00000002").is_dir()
