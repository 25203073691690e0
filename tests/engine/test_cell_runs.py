"""What studies share when they carry out their cells."""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from adperception.config import Config
from adperception.engine import cell_runs
from adperception.engine.claims import claimed
from adperception.located_dict import LocatedDict

SECTIONS: dict[str, Any] = {
    "model": {"type": "SECOND"},
    "train_dataset": {"type": "KITTI"},
    "optimizer": {"type": "AdamW", "lr": 0.01},
    "train": {"batch_size": 1, "steps": 1},
    "prepare": {"type": "SimulateKitti", "root": "data/study"},
}


def test_of_several_starts_one_makes_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one waits: both would write the same files. Configs with the same section make them once."""
    made: list[str] = []
    monkeypatch.setattr(cell_runs, "build", lambda registry, section: lambda: made.append(section["root"]))
    configs = [Config(Path(f"{name}.py"), LocatedDict(SECTIONS, {})) for name in "ab"]
    waited: list[int] = []
    with ExitStack() as other:
        assert other.enter_context(claimed(tmp_path / "prepare"))

        def wait(seconds: float) -> None:
            waited.append(len(made))
            if len(waited) == 2:
                other.close()

        monkeypatch.setattr(time, "sleep", wait)
        cell_runs.make_data_once(configs, tmp_path)
    assert waited == [0, 0]
    assert made == ["data/study"]
