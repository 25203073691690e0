"""The command line: arguments to a study, errors in one line, exit codes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from adperception.engine import label_efficiency
from adperception.engine.label_efficiency_report import StudyResults
from adperception.zoo import config_directory


@pytest.fixture
def tool(repository: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("label_efficiency_tool", repository / "tools/label_efficiency.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def call(tool: ModuleType, monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    config = str(config_directory() / "second/second_small.py")
    monkeypatch.setattr(sys, "argv", ["label_efficiency.py", config, *arguments])
    code: int = tool.main()
    return code


@pytest.mark.parametrize(("planned", "code"), [(0, 0), (3, 75)])
def test_arguments_reach_the_study(
    tool: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, planned: int, code: int
) -> None:
    seen: list[Any] = []

    def run_study(study: Any, run: Any) -> StudyResults:
        seen.extend([study, run])
        return StudyResults("ap", (), (), planned)

    monkeypatch.setattr(label_efficiency, "run_study", run_study)
    arguments = ["--fractions", "0.05", "1.0", "--init", "scratch", "bev_mae", "occupancy_mae", "--seeds", "5"]
    arguments += ["--steps", "7", "--time-limit", "50", "--work-dir", str(tmp_path), "--budget", "equal"]
    other = config_directory() / "bev_mae/bev_mae_kitti.py"
    arguments += ["--pretrain", f"bev_mae={other}", "--cfg-options", "train_dataset.root=here"]
    assert call(tool, monkeypatch, *arguments) == code
    study, run = seen
    assert (study.inits, study.fractions, study.seeds) == (("scratch", "bev_mae", "occupancy_mae"), (0.05, 1.0), 5)
    assert (study.steps, study.pretrain_steps, run.time_limit_minutes, run.work_dir) == (7, None, 50.0, tmp_path)
    assert study.pretraining["bev_mae"].values["train_dataset"]["root"] == "data/kitti"  # its own data
    assert study.pretraining["occupancy_mae"].values["train_dataset"]["root"] == "here"  # the detector's


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--init", "scratch", "mae"], 'there is no mae/mae_small.py to go with "second_small"'),
        (["--pretrain", "bev_mae"], "write METHOD=CONFIG"),
        (["--pretrain", "bev_mae=x.py"], "--pretrain names bev_mae, which --init does not ask for"),
        (["--fractions", "2"], "--fractions 2: a share of the labels"),
        (["--cfg-options", "train_dataset.root=nowhere_at_all"], "nowhere_at_all"),
    ],
)
def test_errors_are_one_line(
    tool: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    assert call(tool, monkeypatch, "--work-dir", str(tmp_path), *arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("error: ")
    assert error.count("\n") == 1
