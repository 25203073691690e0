"""What a run leaves behind and says."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest

from adperception.checkpoint.layout import verify
from adperception.config import load_config
from adperception.engine.data import ValidationBatches
from adperception.registry import PREPARATIONS

import toy
from toy_runs import Run, checkpoint_steps


def lines(work_dir: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (work_dir / "log.jsonl").open()]


def test_checkpoint_says_what_it_is(tmp_path: Path, run_toy: Run) -> None:
    run_toy(tmp_path, "train.epochs=1")
    state = verify(tmp_path / "checkpoints/step_00000006")
    assert state["model_config"] == {"type": "ToyModel", "width": 8}
    assert state["kernel_layout"] == "KRSC"
    assert (state["seed"], state["world_size"], state["threads"], state["epoch"], state["total_steps"]) == (
        3,
        1,
        1,
        1,
        6,
    )
    assert state["config"]["train"]["epochs"] == 1
    assert sorted(state["files"]) == ["model.safetensors", "optimizer.safetensors", "rank_00000.safetensors"]


def test_keeps_the_newest_and_the_best(tmp_path: Path, run_toy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.0, 5.0, 1.0, 3.0, 2.0, 4.0])  # the first one is the baseline before training
    monkeypatch.setattr(toy.ToyEvaluation, "__call__", lambda *a, **k: {"val_loss": next(values)})
    trainer = run_toy(tmp_path, "train.epochs=5", 'checkpoint={"every_epochs": 1, "keep": 2, "best": "val_loss"}')
    assert (trainer.progress.best_step, trainer.progress.best_value) == (12, 1.0)
    assert checkpoint_steps(tmp_path) == [12, 24, 30]


def test_larger_can_be_better(tmp_path: Path, run_toy: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    values = iter([0.0, 1.0, 3.0, 2.0])
    monkeypatch.setattr(toy.ToyEvaluation, "__call__", lambda *a, **k: {"val_loss": next(values)})
    assert run_toy(tmp_path, "checkpoint.best_rule=greater").progress.best_step == 12


def test_unknown_best_metric_is_found_before_training(tmp_path: Path, run_toy: Run) -> None:
    with pytest.raises(ValueError, match=r'checkpoint.best="accuracy" is not a metric .* Available: val_loss'):
        run_toy(tmp_path, "checkpoint.best=accuracy")
    assert checkpoint_steps(tmp_path) == []


def test_log_lines_have_units_and_means(tmp_path: Path, run_toy: Run) -> None:
    run_toy(tmp_path, "train.epochs=1", "log.every_steps=1")
    each = [line for line in lines(tmp_path) if line["kind"] == "train"]
    assert [line["step"] for line in each] == [1, 2, 3, 4, 5, 6]
    assert {"loss", "squared", "learning_rate", "gradient_norm", "step_seconds", "data_wait_seconds"} <= each[0].keys()
    assert each[0]["learning_rate"] == pytest.approx(0.001)
    assert 50 < each[0]["peak_memory_mib"] < 20_000
    run_toy(tmp_path / "other", "train.epochs=1", "log.every_steps=3")
    means = [line["loss"] for line in lines(tmp_path / "other") if line["kind"] == "train"]
    losses = [line["loss"] for line in each]
    assert means == pytest.approx([losses[0], np.mean(losses[1:3]), np.mean(losses[3:])])


def test_evaluations_at_start_each_epoch_and_end(tmp_path: Path, run_toy: Run) -> None:
    run_toy(tmp_path, "evaluations.0.every_epochs=2", 'train={"steps": 15, "batch_size": 4}')
    assert [line["step"] for line in lines(tmp_path) if line["kind"] == "evaluation"] == [0, 12, 15]


def test_tensorboard_files(tmp_path: Path, run_toy: Run) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run_toy(tmp_path, "train.epochs=1", "log.every_steps=1")
    board = EventAccumulator(str(tmp_path / "logs"))
    board.Reload()
    assert {"train/loss", "train/learning_rate", "evaluation/val_loss"} <= set(board.Tags()["scalars"])
    assert [event.step for event in board.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]


def test_summary_and_advice_after_20_steps(tmp_path: Path, run_toy: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run_toy(tmp_path, "train.epochs=4", "train_dataset.delay_seconds=0.005")
    printed = capsys.readouterr().out
    assert "after 20 steps: " in printed
    assert "waiting for data, peak memory " in printed
    assert "raise train.workers (now 0)" in printed
    assert printed.count("after 20 steps") == 1


def test_prepare_is_called_before_the_datasets_are_built(
    tmp_path: Path, run_toy: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []

    class ToyPreparation:
        def __init__(self, frames: int) -> None:
            self.frames = frames

        def __call__(self) -> None:
            order.append(f"prepare {self.frames}")

    init = toy.ToyDataset.__init__

    @functools.wraps(init)
    def noted(self: toy.ToyDataset, frames: int) -> None:
        order.append("dataset")
        init(self, frames)

    monkeypatch.setattr(toy.ToyDataset, "__init__", noted)
    monkeypatch.setitem(PREPARATIONS.module_dict, "ToyPreparation", ToyPreparation)
    run_toy(tmp_path, "train.epochs=1", 'prepare={"type": "ToyPreparation", "frames": 7}')
    assert order == ["prepare 7", "dataset", "dataset"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bad_frame_is_reported_without_a_traceback(
    tmp_path: Path, run_toy: Run, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    def bad(self: toy.ToyDataset, index: int, rng: np.random.Generator) -> None:
        raise ValueError(f"frame {index:06d}: 13 bytes is not a whole number of points.")

    monkeypatch.setattr(toy.ToyDataset, "get", bad)
    with pytest.raises(ValueError, match=r"^frame 0000\d\d: 13 bytes is not a whole number of points\.$"):
        run_toy(tmp_path, "train.evaluate_first=False", f"train.workers={workers}")


def test_work_dir_has_the_resolved_config(tmp_path: Path, run_toy: Run) -> None:
    trainer = run_toy(tmp_path, "train.epochs=1")
    assert load_config(tmp_path / "config.py").values == trainer.config.values


def test_validation_batches_repeat_themselves() -> None:
    import torch

    batches = ValidationBatches(toy.ToyDataset(5), 2, 3, toy.collate, 0, torch.device("cpu"))
    first, second = list(batches), list(batches)
    assert len(batches) == len(first) == 3
    assert [b.frame_ids for b in first] == [("000000", "000001"), ("000002", "000003"), ("000004",)]
    assert all(torch.equal(a.features, b.features) for a, b in zip(first, second, strict=True))
