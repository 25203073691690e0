"""Numbers in, table out."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from adperception.engine.label_efficiency_report import collect_results, markdown_report, write_report
from adperception.engine.results import write_json


def cell(init: str, fraction: float | None, seed: int, value: float | None) -> dict[str, Any]:
    return {
        "kind": "pretrain" if fraction is None else "finetune",
        "init": init,
        "fraction": fraction,
        "seed": seed,
        "metrics": {} if fraction is None else {"ap": value, "other": 1.0},
        "steps": 40,
        "effective_batch": 4,
        "training_frames": 8,
        "training_seconds": 30.0,
        "device": "cpu x86_64",
        "threads": 1,
    }


CELLS = [
    cell("jepa", None, 0, None),
    *(cell("scratch", 0.1, seed, value) for seed, value in enumerate((10.0, 11.0, 12.0))),
    *(cell("jepa", 0.1, seed, value) for seed, value in enumerate((20.0, 21.0, 22.0))),
    *(cell("scratch", 1.0, seed, value) for seed, value in enumerate((50.0, 60.0, 70.0))),
    *(cell("jepa", 1.0, seed, value) for seed, value in enumerate((61.0, 51.0, 71.0))),
]


def collect(cells: list[dict[str, Any]], metric: str = "ap") -> Any:
    return collect_results(
        cells,
        planned=13,
        inits=("scratch", "jepa"),
        fractions=(0.1, 1.0),
        seeds=3,
        metric=metric,
        about={"budget": "x"},
    )


def test_table_tells_a_difference_from_the_spread() -> None:
    results = collect(CELLS)
    assert results.is_complete
    by_cell = {(e.init, e.fraction): e for e in results.entries}
    assert list(by_cell) == [("scratch", 0.1), ("jepa", 0.1), ("scratch", 1.0), ("jepa", 1.0)]
    assert by_cell["jepa", 0.1].against_scratch.verdict == "better"
    assert by_cell["jepa", 1.0].against_scratch.verdict == "not distinguishable"
    assert by_cell["scratch", 1.0].against_scratch is None
    table = markdown_report(results)
    assert "| 10 % | jepa | 21.00 ± 1.00 | 3 | +10.00 [+7.73, +12.27] | better |" in table
    assert "| 100 % | jepa | 61.00 ± 10.00 | 3 | +1.00 [-21.67, +23.67] | not distinguishable |" in table
    assert "13 of 13 runs are finished" in table
    assert "2 intervals are not corrected" in table
    assert "Fine-tuning: 12 runs of 40 steps with 4 frames each, on 8 frames; 6.0 minutes" in table


def test_unfinished_and_undefined_values() -> None:
    results = collect([CELLS[0], CELLS[1], cell("jepa", 0.1, 0, None), cell("jepa", 0.1, 1, 3.0)])
    assert not results.is_complete
    scratch, jepa = results.entries
    assert (scratch.over_seeds.count, jepa.over_seeds.count) == (1, 1)
    assert math.isnan(jepa.values[0])
    assert jepa.against_scratch.verdict == "too few seeds"
    assert collect([]).entries == ()
    without_scratch = collect([cell("jepa", 0.1, 0, 2.0)])
    assert without_scratch.entries[0].against_scratch is None


def test_unknown_metric_names_those_there_are() -> None:
    with pytest.raises(ValueError, match=r'--metric "map" was not measured\. There are ap, other'):
        collect(CELLS, "map")


def test_files(tmp_path: Path) -> None:
    write_report(collect([*CELLS[:7], cell("scratch", 1.0, 0, None)]), tmp_path)
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored["budget"] == "x"
    assert (stored["finished"], stored["planned"]) == (8, 13)
    entry = stored["entries"][1]
    assert entry["values"] == {"0": 20.0, "1": 21.0, "2": 22.0}
    assert entry["over_seeds"] == {"mean": 21.0, "deviation": 1.0, "count": 3}
    assert entry["verdict"] == "better"
    assert stored["entries"][2]["over_seeds"]["mean"] is None
    assert (tmp_path / "results.md").read_text().startswith("# Label efficiency: ap")
    assert (tmp_path / "results.png").stat().st_size > 5000
    write_report(collect([]), tmp_path / "empty")
    assert not (tmp_path / "empty/results.png").exists()
    write_json(tmp_path / "again.json", stored)
