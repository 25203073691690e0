"""The command line: arguments to a study, errors in one line, exit codes, a plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

Main = Callable[[Sequence[str]], int]


def test_a_small_study_from_arguments_to_tables(
    tool: Callable[[str], Main], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--methods", "LSGD", "--sharding", "skewed", "--workers", "3", "--seeds", "1", "--steps", "4"]
    arguments += ["--sync-every", "2", "--batch-size", "8", "--configurations", "1", "--bandwidth", "1e8"]
    arguments += ["--work-dir", str(tmp_path)]
    assert tool("compare_optimizers")(arguments) == 0
    printed = capsys.readouterr().out
    assert "5 cells, 0 done" in printed
    assert "3 workers, 4 steps of 3 x 8 samples (96), rounds every 2 steps; 1 settings tried" in printed
    assert "links of 0.1 Gbit/s with 0.1 ms, 2 ms of computing per step" in printed
    assert tool("compare_optimizers")([*arguments, "--time-limit", "0"]) == 0  # nothing was left to do
    assert tool("compare_optimizers")([*arguments, "--seeds", "2", "--time-limit", "0"]) == 75
    assert "3 cells are left; the same command goes on from here" in capsys.readouterr().out


def test_a_plan_needs_no_training(tool: Callable[[str], Main], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--plan", "1000000", "--methods", "DataParallel", "LSGD", "--workers", "8", "16"]
    assert tool("compare_optimizers")([*arguments, "--bandwidth", "1e9", "1e10", "--step-seconds", "0.1"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("| workers | 8 | 16 |") == 3
    assert "| LSGD | 0.219 | 0.234 |" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "letters"], "--task letters"),
        (["--task", "nowhere.py"], "nowhere.py"),
        (["--methods", "Adam"], "--methods Adam is unknown"),
        (["--seeds", "0"], "--seeds 0 must be 1 or more"),
        (["--workers", "2000"], "--workers 2000: there are 1079 training samples"),
        (["--sharding", "skewed", "--workers", "512"], "Use fewer workers"),
        (["--bandwidth", "0"], "bandwidth_bits_per_second: 0.0 is not a positive number"),
        (["--plan", "1000", "--methods", "Adam"], "--methods Adam is unknown"),
    ],
)
def test_errors_are_one_line(
    tool: Callable[[str], Main],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: Sequence[str],
    message: str,
) -> None:
    assert tool("compare_optimizers")([*arguments, "--work-dir", str(tmp_path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_help_loads_no_torch(tool: Callable[[str], Main], capsys: pytest.CaptureFixture[str]) -> None:
    main: Any = tool("compare_optimizers")
    with pytest.raises(SystemExit) as end:
        main(["--help"])
    assert end.value.code == 0
    assert "--plan" in capsys.readouterr().out
