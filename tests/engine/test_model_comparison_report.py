"""Cells in, tables out: spreads, verdicts, and what is missing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from adperception.engine.model_comparison_plan import Cell, Comparison, Planner
from adperception.engine.model_comparison_report import (
    ComparisonResults,
    collect_results,
    markdown_report,
    write_report,
)

from toy_comparison import toy_comparison


def metrics(value: float | None) -> dict[str, float | None]:
    names = [f"{c}_iou" for c in ("background", "pedestrian", "car")]
    names += [f"mean_{m}{end}" for end in ("", "_no_background") for m in ("iou", "dice")]
    return {"mean_dice": value, **{f"{view}_{name}": value for view in ("rd", "ra") for name in names}}


class Cells:
    """Results of finished cells by (purpose, model, seed), or an error message."""

    def __init__(self, test: Mapping[tuple[str, str, int], float | str | None]) -> None:
        self.test = test

    def __call__(self, cell: Cell) -> Mapping[str, Any] | str | None:
        name = (cell.purpose, cell.model, cell.seed)
        if cell.purpose == "grid":
            score = 100 * cell.learning_rate if (cell.purpose, cell.model, 0) not in self.test else None
            return {**self.run(cell), "validation": metrics(score)} if score is not None else "it diverged"
        if name not in self.test:
            return None
        value = self.test[name]
        return value if isinstance(value, str) else {**self.run(cell), "test": metrics(value)}

    @staticmethod
    def run(cell: Cell) -> dict[str, Any]:
        return {
            "model": cell.model,
            "seed": cell.seed,
            "steps": cell.samples // 3,
            "samples": cell.samples,
            "effective_batch": 3,
            "parameters": 1234567,
            "validation": metrics(1.0),
            "clock": "processor seconds",
            "clock_seconds": 30.0 + cell.seed,
            "device": "cpu x86_64",
            "threads": 1,
        }


@pytest.fixture
def study(tmp_path: Path) -> Comparison:
    return toy_comparison(tmp_path, seeds=3, samples=9000, learning_rates=(0.001, 0.01, 0.03), grid_samples=3000)


def collect(study: Comparison, test: Mapping[tuple[str, str, int], float | str | None]) -> ComparisonResults:
    sizes = {"small": {"0 objects": 1.5e9, "1 object": 2e9}, "large": {"": 6.25e9}}
    return collect_results(study, Planner(study), Cells(test), sizes, {"command": ["x"]})


FULL: dict[tuple[str, str, int], float | str | None] = {
    **{("samples", "large", seed): value for seed, value in enumerate((50.0, 52.0, 54.0))},
    **{("samples", "small", seed): value for seed, value in enumerate((60.0, 61.0, 62.0))},
}


def test_spreads_and_verdicts(study: Comparison) -> None:
    results = collect(study, FULL)
    assert results.is_complete
    table = markdown_report(results)
    assert "12 of 12 cells are finished." in table
    assert "| small | 1,234,567 | 1.5 G (0 objects), 2 G (1 object) | 0.03 | 0.10 | 1.00 | **3.00** |" in table
    assert "| large | 1,234,567 | 6.25 G | 0.03 |" in table
    assert "The rate of small lies at the edge of the grid" in table
    assert "| small | 3 of 3 | 9,000 | 3,000 | 31 ± 1 |" in table
    assert "| model | IoU background | IoU pedestrian | IoU car | mIoU | mDice |" in table
    assert f"| large |{' 52.00 ± 2.00 |' * 7}" in table
    assert "| small | range-Doppler | mIoU, no background | +9.00 [+4.84, +13.16] | better |" in table
    close = collect(study, {**FULL, ("samples", "small", 0): 45.0})
    assert "| small | range-angle | mDice | +4.00 [-18.43, +26.43] | not distinguishable |" in markdown_report(close)


def test_what_is_missing_reads_missing(study: Comparison) -> None:
    results = collect(study, {("samples", "small", 0): 60.0, ("samples", "small", 2): None})
    assert not results.is_complete
    table = markdown_report(results)
    assert "8 of 12 cells are finished." in table
    assert "| small | 2 of 3 | 9,000 |" in table
    assert f"| small |{' 60.00 (one seed) |' * 7}" in table
    assert "| large | 0 of 3 | missing | missing | missing |" in table
    assert f"| large |{' missing |' * 7}" in table
    assert "| small | range-Doppler | mIoU | missing | |" in table
    nothing = collect(study, {})
    assert nothing.class_names == []
    assert "| small | missing | missing | missing | missing |" in markdown_report(nothing)


def test_failures_are_listed(study: Comparison) -> None:
    failed = "the loss of step 3\nis not finite"
    results = collect(study, {**FULL, ("samples", "small", 1): failed, ("grid", "large", 0): "x"})
    assert len(results.failures) == 1 + 3
    assert results.choices["large"].all_failed
    table = markdown_report(results)
    assert "- samples: small, seed 1, learning rate 0.03, 9,000 samples: the loss of step 3 is not finite" in table
    assert "| large | missing | 6.25 G | missing | failed | failed | failed |" in table


def test_files(study: Comparison, tmp_path: Path) -> None:
    folder = tmp_path / "results"
    write_report(collect(study, FULL), folder)
    stored = json.loads((folder / "results.json").read_text())
    assert (stored["finished"], stored["planned"], stored["samples"], stored["reference"]) == (12, 12, 9000, "large")
    assert stored["choices"]["small"] == {"scores": {"0.001": 0.1, "0.01": 1.0, "0.03": 3.0}, "learning_rate": 0.03}
    entry = next(e for e in stored["entries"] if (e["model"], e["view"], e["metric"]) == ("small", "ra", "mean_iou"))
    assert entry["values"] == {"0": 60.0, "1": 61.0, "2": 62.0}
    assert entry["over_seeds"] == {"mean": 61.0, "deviation": 1.0, "count": 3}
    assert entry["verdict"] == "better"
    assert stored["command"] == ["x"]
    assert (folder / "results.md").read_text().startswith("# small, large")
    assert (folder / "results.png").stat().st_size > 5000
    write_report(collect(study, {}), tmp_path / "empty")
    assert not (tmp_path / "empty/results.png").exists()
