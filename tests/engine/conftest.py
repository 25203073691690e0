"""Runs of the toy model in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from adperception.config import load_config
from adperception.engine.run import RunOptions, train
from adperception.engine.trainer import Trainer

import toy
from toy_runs import Run


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The same sums here and in the processes of ``launch``."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def toy_config(tmp_path: Path) -> Path:
    """The toy config as a file."""
    path = tmp_path / "toy.py"
    path.write_text(toy.CONFIG, encoding="utf-8")
    return path


@pytest.fixture
def run_toy(toy_config: Path) -> Run:
    """Trains the toy model in this process; options are those of ``--cfg-options``."""

    def run(work_dir: Path, *overrides: str, resume: bool = False, allow_config_change: bool = False) -> Trainer:
        options = RunOptions(work_dir, resume=resume, allow_config_change=allow_config_change, device="cpu")
        return train(load_config(toy_config, overrides), options)

    return run
