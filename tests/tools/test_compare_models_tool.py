"""The command line: arguments to a comparison, errors in one line, exit codes, and a real one on twenty frames."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from adperception.datasets.carrada import CARRADA
from adperception.engine import model_comparison
from adperception.engine.model_comparison_report import ComparisonResults
from adperception.zoo import config_directory

Main = Callable[[Sequence[str]], int]

CONFIGS = [
    str(config_directory() / "erase_net/erase_net_tiny.py"),
    str(config_directory() / "mv_net/mv_net_tiny.py"),
]


@pytest.mark.parametrize(("finished", "code"), [(True, 0), (False, 75)])
def test_arguments_reach_the_comparison(
    tool: Callable[[str], Main], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, finished: bool, code: int
) -> None:
    seen: list[Any] = []

    def run_comparison(comparison: Any, run: Any) -> ComparisonResults:
        seen.extend([comparison, run])
        places: Any = [] if finished else [(None, None)]
        return ComparisonResults(comparison, places, {})

    monkeypatch.setattr(model_comparison, "run_comparison", run_comparison)
    monkeypatch.setattr(
        "adperception.engine.model_comparison_report.markdown_report", lambda results: f"{len(results.places)} cells"
    )
    arguments = ["--seeds", "5", "--samples", "70", "--grid-samples", "30", "--seconds", "8", "--time-limit", "50"]
    arguments += ["--learning-rates", "0.1", "0.2", "0.3", "--work-dir", str(tmp_path), "--select", "mean_iou"]
    arguments += ["--test-split", "Validation", "--workers", "2", "--cfg-options", "train.batch_size=3"]
    assert tool("compare_models")([*CONFIGS, *arguments]) == code
    comparison, run = seen
    assert list(comparison.models) == ["erase_net_tiny", "mv_net_tiny"]
    assert comparison.reference == "mv_net_tiny"
    assert (comparison.seeds, comparison.samples, comparison.grid_samples, comparison.seconds) == (5, 70, 30, 8.0)
    assert (comparison.learning_rates, comparison.select) == ((0.1, 0.2, 0.3), "mean_iou")
    assert comparison.test_split == "Validation"
    assert {config.values["train"]["batch_size"] for config in comparison.models.values()} == {3}
    assert (run.work_dir, run.time_limit_minutes, run.workers) == (tmp_path, 50.0, 2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reference", "tmva_net"], "--reference tmva_net is not compared"),
        (["--seeds", "0"], "--seeds 0 must be positive"),
        (["--cfg-options", "prepare=None", "train_dataset.root=nowhere_at_all"], "nowhere_at_all"),
        ([CONFIGS[0]], "two configs have the same file name"),
    ],
)
def test_errors_are_one_line(
    tool: Callable[[str], Main],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    assert tool("compare_models")([*CONFIGS, *arguments, "--work-dir", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def test_the_tiny_configs_can_be_compared(
    tool: Callable[[str], Main], simulated_radar: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same frames for both although they look at five and three moments; scores of the test split; a table."""
    options = ["prepare=None", f"train_dataset.root={simulated_radar}", f"val_dataset.root={simulated_radar}"]
    arguments = ["--seeds", "1", "--samples", "1", "--learning-rates", "0.001", "--device", "cpu"]
    arguments += ["--work-dir", str(tmp_path), "--cfg-options", *options, "train.batch_size=1"]
    assert tool("compare_models")([*CONFIGS, *arguments]) == 0
    stored = json.loads((tmp_path / "results.json").read_text())
    validated, scored = (len(CARRADA(simulated_radar, split)) for split in ("Validation", "Test"))
    assert stored["test_data"]["frames"] == scored
    finals = {cell["model"]: cell for cell in stored["cells"] if cell["purpose"] == "samples"}
    assert {cell["test"]["frames"] for cell in finals.values()} == {scored}
    assert {cell["validation"]["frames"] for cell in finals.values()} == {validated}
    assert finals["mv_net_tiny"]["parameters"] == 2_375_432
    assert list(stored["multiply_adds"]["erase_net_tiny"]) == ["0 objects", "1 object", "2 objects"]
    assert stored["multiply_adds"]["mv_net_tiny"][""] > 1e9
    out = capsys.readouterr().out
    assert "### Range-angle, test frames, per cent" in out
    assert "| mv_net_tiny | 2,375,432 |" in out
