"""The comparison as a whole: real runs of toy models, skipping, going on, failing cells, several starts."""

from __future__ import annotations

import json
import os
import signal
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch

from adperception.checkpoint.load import load_weights
from adperception.config import Config, load_config
from adperception.engine import model_comparison
from adperception.engine.claims import claimed
from adperception.engine.hooks.run_report import RunReport
from adperception.engine.model_comparison import ComparisonRun, run_comparison
from adperception.engine.model_comparison_plan import Comparison, Planner
from adperception.engine.run import RunOptions, train
from adperception.engine.trainer import StepOutcome, Trainer
from adperception.registry import MODELS, build

from toy_comparison import toy_comparison


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of single runs, which take longer than the runs do here; ``test_run_report.py`` looks at them."""
    monkeypatch.setattr(RunReport, "_pictures", lambda *_: [])


@pytest.fixture
def study(tmp_path: Path) -> Comparison:
    return toy_comparison(tmp_path)


class Counted:
    """``train``, remembering what it was asked to do; from ``fail_at`` a rate fails; a SIGTERM in run ``stop_at``."""

    def __init__(self, fail_at: float | None = None, stop_at: int | None = None) -> None:
        self.calls: list[tuple[str, int, float, bool]] = []
        self.fail_at, self.stop_at = fail_at, stop_at

    def __call__(self, config: Config, options: RunOptions) -> Trainer:
        values = config.values
        assert values["train"]["workers"] == 0
        rate = values["optimizer"]["lr"]
        self.calls.append((config.name, values["seed"], rate, options.resume))
        if self.fail_at is not None and rate >= self.fail_at:
            raise ValueError("the loss of step 3 is not finite")
        if len(self.calls) - 1 == self.stop_at:
            with patch.object(Trainer, "update", update_and_stop):
                return train(config, options)
        return train(config, options)


def update_and_stop(self: Trainer, outcome: StepOutcome, update: Any = Trainer.update) -> None:
    update(self, outcome)
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_whole_comparison(study: Comparison, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    work_dir = tmp_path / "work"
    whole = replace(study, seeds=1, seconds=0.02)
    counted = Counted()
    results = run_comparison(whole, ComparisonRun(work_dir, "cpu", command=["python", "x"]), counted)
    assert results.is_complete
    assert len(results.places) == 4 + 2 + 2
    assert len(counted.calls) <= 6  # the first seed at the chosen rate was run by the grid already
    assert [call[:3] for call in counted.calls[:4]] == [
        ("small", 0, 0.001),
        ("small", 0, 0.03),
        ("large", 0, 0.001),
        ("large", 0, 0.03),
    ]
    stored = json.loads((work_dir / "results.json").read_text())
    assert (stored["finished"], stored["planned"], stored["failed"]) == (8, 8, [])
    assert stored["command"] == ["python", "x"]
    assert stored["test_data"]["frames"] == 8
    by_purpose = {p: [c for c in stored["cells"] if c["purpose"] == p] for p in ("grid", "samples", "seconds")}
    assert {c["samples"] for c in by_purpose["samples"]} == {9}
    assert all("test" not in c for c in by_purpose["grid"])
    final = next(c for c in by_purpose["samples"] if c["model"] == "large")
    assert final["test"]["frames"] == 8
    assert final["validation"]["frames"] == 6
    assert final["learning_rate"] == stored["choices"]["large"]["learning_rate"]
    assert 0 < final["clock_seconds"] < 60

    # What is called parameters and test score is that of the weights in the folder.
    planner = Planner(whole)
    model = build(MODELS, whole.models["large"].values["model"])
    assert final["parameters"] == sum(p.numel() for p in model.parameters())
    (folder,) = (p for p in (work_dir / "large").glob(f"9_lr_{final['learning_rate']:g}_seed_0_*") if p.is_dir())
    load_weights(model, folder / "weights.safetensors")
    assert not (folder / "checkpoints").exists()
    assert "step 3/3  loss" in (folder / "console.txt").read_text()
    out = capsys.readouterr().out
    assert "8 cells, 0 done" in out
    assert "cell 1 of 8 done: 3 steps in" in out
    assert "mean_dice validation" in out
    assert planner.test_data == stored["test_data"]
    assert (work_dir / "results.png").is_file()

    again = Counted()
    assert run_comparison(whole, ComparisonRun(work_dir, "cpu"), again).is_complete
    assert not again.calls
    more = Counted()
    assert run_comparison(study, ComparisonRun(work_dir, "cpu"), more).is_complete
    assert [call[:2] for call in more.calls] == [("small", 1), ("large", 1)]


def test_a_failing_cell_is_recorded_and_the_others_go_on(
    study: Comparison, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work_dir = tmp_path / "work"
    results = run_comparison(study, ComparisonRun(work_dir, "cpu"), Counted(fail_at=0.03))
    assert not results.is_complete
    assert len(results.failures) == 2
    assert results.finished == 6
    assert results.choices["small"].best == 0.001
    text = (work_dir / "results.md").read_text()
    assert "6 of 8 cells are finished, 2 failed" in text
    assert "- grid: small, seed 0, learning rate 0.03, 9 samples: the loss of step 3 is not finite" in text
    assert "| failed |" in text
    assert "failed: ValueError: the loss of step 3 is not finite" in capsys.readouterr().out
    (failure,) = work_dir.glob("small/9_lr_0.03_seed_0_*/failed.json")
    assert "Traceback" in json.loads(failure.read_text())["traceback"]

    # The next start tries again.
    os.utime(failure, (1, 1))
    retried = Counted()
    run_comparison(study, ComparisonRun(work_dir, "cpu"), retried)
    assert ("small", 0, 0.03, False) in retried.calls
    assert not failure.exists()


def test_a_model_whose_grid_fails_altogether_ends_the_comparison(study: Comparison, tmp_path: Path) -> None:
    results = run_comparison(study, ComparisonRun(tmp_path / "work", "cpu"), Counted(fail_at=0.0))
    assert (results.finished, len(results.failures)) == (0, 4)
    assert results.choices["small"].all_failed


def test_an_interrupted_cell_goes_on_and_gives_the_same(study: Comparison, tmp_path: Path) -> None:
    small = replace(study, learning_rates=(0.03,), seeds=1)
    whole = run_comparison(small, ComparisonRun(tmp_path / "whole", "cpu"), Counted())
    work_dir = tmp_path / "stopped"
    first = run_comparison(small, ComparisonRun(work_dir, "cpu"), Counted(stop_at=1))
    assert not first.is_complete
    assert first.runs("samples", "small")
    assert "| large | 0 of 1 | missing |" in (work_dir / "results.md").read_text()
    rest = Counted()
    results = run_comparison(small, ComparisonRun(work_dir, "cpu"), rest)
    assert results.is_complete
    assert rest.calls == [("large", 0, 0.03, True)]
    for model in small.models:
        a, b = (r.values("samples", model, "mean_dice") for r in (whole, results))
        assert a == b


def test_another_start_waits_for_what_is_held(
    study: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One holds the only runnable cell: the other one neither runs it nor gives up."""
    small = replace(study, learning_rates=(0.03,), seeds=1)
    planner = Planner(small)
    held = planner.grid("small")[0.03].folder
    counted = Counted()
    with ExitStack() as other:
        assert other.enter_context(claimed(tmp_path / "work" / held))
        seen: list[list[str]] = []

        def wait(seconds: float) -> None:
            seen.append([call[0] for call in counted.calls])
            other.close()

        monkeypatch.setattr(time, "sleep", wait)
        assert run_comparison(small, ComparisonRun(tmp_path / "work", "cpu"), counted).is_complete
    assert seen == [["large"]]
    assert [call[0] for call in counted.calls] == ["large", "small"]


def test_test_scores_of_other_frames_are_made_anew(
    study: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(study, learning_rates=(0.03,), seeds=1)
    work_dir = tmp_path / "work"
    scored: list[str] = []

    def evaluate(config: Config, weights: Path, folder: Path, device: torch.device, workers: int) -> dict[str, float]:
        assert weights.is_file()
        scored.append(config.values["val_dataset"]["split"])
        return {"mean_dice": 12.5}

    assert run_comparison(small, ComparisonRun(work_dir, "cpu"), Counted(), evaluate).is_complete
    again = Counted()
    other = replace(small, test_split="Validation")
    assert run_comparison(other, ComparisonRun(work_dir, "cpu"), again, evaluate).is_complete
    assert not again.calls
    assert scored == ["Test", "Test", "Validation", "Validation"]


def test_a_misspelt_option_is_found_before_the_first_cell(study: Comparison, tmp_path: Path) -> None:
    wrong = load_config(study.models["small"].path, ["model.widht=3"])
    counted = Counted()
    with pytest.raises(ValueError, match='"widht" is not an option of ToyRadarModel'):
        run_comparison(
            replace(study, models={**study.models, "small": wrong}), ComparisonRun(tmp_path / "work"), counted
        )
    assert not counted.calls


def test_several_processes_are_refused(study: Comparison, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="without torchrun"):
        model_comparison.run_comparison(study, ComparisonRun(tmp_path))
