"""Starting the toy training tool in processes of its own, and comparing what runs leave behind."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file

from adperception.engine.trainer import Trainer

TOY = Path(__file__).with_name("toy.py")
Run = Callable[..., Trainer]


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
