"""Runs of the toy model, in this process and in several."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from adperception.config import Config, load_config
from adperception.engine.run import RunOptions, train
from adperception.engine.trainer import Trainer

import toy

TOY = Path(__file__).with_name("toy.py")
Run = Callable[..., Trainer]


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

    def run(
        work_dir: Path,
        *overrides: str,
        resume: bool = False,
        allow_config_change: bool = False,
        config: str | None = None,
    ) -> Trainer:
        if config is not None:
            toy_config.write_text(config, encoding="utf-8")
        options = RunOptions(work_dir, resume=resume, allow_config_change=allow_config_change, device="cpu")
        return train(load_config(toy_config, overrides), options)

    return run


@pytest.fixture
def load_toy(toy_config: Path) -> Callable[..., Config]:
    """The toy config with overrides."""
    return lambda *overrides: load_config(toy_config, overrides)


def launch(
    processes: int, arguments: Sequence[str], timeout: float = 100.0, **environment: str
) -> list[subprocess.CompletedProcess[str]]:
    """Start the toy training tool in several processes, as torchrun would, and wait for them."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for rank in range(processes):
        variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        if processes > 1:
            variables |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
            variables |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        started.append(
            subprocess.Popen(
                [sys.executable, str(TOY), *arguments],
                env=variables,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    finished = []
    for process in started:
        out, err = process.communicate(timeout=timeout)
        finished.append(subprocess.CompletedProcess(process.args, process.returncode, out, err))
    return finished


def checkpoint_steps(work_dir: Path) -> list[int]:
    """Steps of the checkpoints on disk."""
    return sorted(int(path.name.removeprefix("step_")) for path in (work_dir / "checkpoints").glob("step_*"))


def assert_equal_checkpoints(first: Path, second: Path, step: int) -> None:
    """Model and optimizer tensors of two runs are the same to the bit after ``step`` steps."""
    for name in ("model.safetensors", "optimizer.safetensors"):
        one, two = (load_file(work_dir / "checkpoints" / f"step_{step:08d}" / name) for work_dir in (first, second))
        assert one.keys() == two.keys()
        different = [key for key in one if not torch.equal(one[key], two[key])]
        assert not different, f"{name}: {different}"


def forget_after(work_dir: Path, step: int) -> None:
    """Remove the checkpoints after ``step``, as if the run had been killed then."""
    for path in (work_dir / "checkpoints").glob("step_*"):
        if int(path.name.removeprefix("step_")) > step:
            shutil.rmtree(path)
