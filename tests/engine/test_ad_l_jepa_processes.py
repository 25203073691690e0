"""AD-L-JEPA in two gloo processes with the frames that make other trainers hang."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

CONFIG = """
model = dict(
    type="ADLJEPA", point_cloud_range=[0.0, -1.6, -2.0, 3.2, 1.6, 2.0], voxel_size=[0.05, 0.05, 0.1],
    token_mode="learnable",
)
train_dataset = dict(type="Folder", root="{root}")
optimizer = dict(type="AdamW", lr=1e-3)
train = dict(steps=3, batch_size=1)
log = dict(every_steps=1)
"""

pytestmark = pytest.mark.multi_process


def cloud(points: int, seed: int, intensity: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    xyz = rng.uniform([0, -1.6, -2], [2.4, 1.6, 2], (points, 3))
    return np.column_stack([xyz, intensity * rng.uniform(size=points)]).astype(np.float32)


def train_two_processes(folder: Path, repository: Path, clouds: dict[str, np.ndarray]) -> list[tuple[int, str]]:
    (folder / "scans").mkdir()
    for name, points in clouds.items():
        np.save(folder / "scans" / f"{name}.npy", points)
    config = folder / "two.py"
    config.write_text(CONFIG.format(root=folder / "scans"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = []
    for rank in range(2):
        environment = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "tools/train.py", str(config), "--work-dir", str(folder / "run"), "--device", "cpu"]
        processes.append(
            subprocess.Popen(
                command, env=environment, cwd=repository, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
        )
    ended = [(process.communicate(timeout=90)[0], process.returncode) for process in processes]
    return [(code, text) for text, code in ended]


def test_empty_frames_and_frames_with_hardly_a_cell_do_not_stop_anybody(tmp_path: Path, repository: Path) -> None:
    """Six frames, two processes, three steps: each step of DDP needs a gradient of every parameter from both."""
    outside = cloud(50, 0) + np.array([50, 0, 0, 0], dtype=np.float32)
    clouds = {"empty": outside, "one_point": cloud(1, 1), "one_cell": cloud(30, 2) * np.float32(0.1)}
    clouds |= {f"full_{i}": cloud(800, 10 + i) for i in range(3)}
    for code, text in train_two_processes(tmp_path, repository, clouds):
        assert code == 0, text
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert len(losses) == 3
    assert np.isfinite(losses).all()


def test_a_non_finite_loss_on_one_rank_stops_all_with_the_same_message(tmp_path: Path, repository: Path) -> None:
    clouds = {f"full_{i}": cloud(800, i) for i in range(5)} | {"overflow": cloud(800, 9, intensity=3e38)}
    ended = train_two_processes(tmp_path, repository, clouds)
    messages = []
    for code, text in ended:
        assert code != 0, text
        errors = [line for line in text.splitlines() if line.startswith("error:")]
        assert errors, text
        messages.append(errors[-1])
    assert messages[0] == messages[1]
    assert "overflow" in messages[0]
    assert "loss" in messages[0]
