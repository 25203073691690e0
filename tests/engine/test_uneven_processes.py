"""Two processes with very different batches: nobody hangs, every parameter gets a gradient, all stop alike."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp

from adperception.config import load_config
from adperception.engine.run import RunOptions, train
from adperception.engine.trainer import StepOutcome, Trainer
from adperception.registry import DATASETS
from adperception.structures import LidarFrame, PointCloud

CONFIG = """
model = dict(
    type="ADLJEPA", point_cloud_range=[0.0, -3.2, -2.0, 6.4, 3.2, 2.4], voxel_size=[0.1, 0.1, 0.1], in_channels=4
)
train_dataset = dict(type="UnevenFrames", kinds=["normal", "normal"])
optimizer = dict(type="AdamW", lr=1e-3)
train = dict(epochs=2, batch_size=1, clip_grad_norm=10.0)
"""
SCENARIOS = {
    "empty frame": ["normal", "empty"],
    "all empty": ["empty", "empty"],
    "one cell": ["normal", "one cell"],
    "empty and one cell": ["empty", "one cell"],
    "non-finite": ["normal", "infinite"],
}


class UnevenFrames:
    """Frames of the given kinds."""

    def __init__(self, kinds: list[str]) -> None:
        self.kinds = kinds
        self.frame_ids = [f"{index}-{kind}" for index, kind in enumerate(kinds)]

    def __len__(self) -> int:
        return len(self.kinds)

    def get(self, index: int, rng: np.random.Generator) -> LidarFrame:
        count = {"normal": 2000, "infinite": 2000, "one cell": 3, "empty": 0}[self.kinds[index]]
        low, high = [0.0, -3.2, -2.0, 0.0], [6.4, 3.2, 2.4, 1.0]
        points = rng.uniform(low, high, (count, 4)).astype(np.float32)
        if self.kinds[index] == "one cell":
            points[:, :3] = 1.0
        if self.kinds[index] == "infinite":
            points[:, 3] = np.inf
        return LidarFrame(self.frame_ids[index], PointCloud(points))


def _work(rank: int, ports: list[int], folder: str, results: object) -> None:
    torch.set_num_threads(1)
    DATASETS.register_module(module=UnevenFrames)
    without_gradient: list[str] = []
    update = Trainer.update

    def checked(self: Trainer, outcome: StepOutcome) -> None:
        parameters = self.model.named_parameters()
        without_gradient.extend(name for name, p in parameters if p.requires_grad and p.grad is None)
        update(self, outcome)

    Trainer.update = checked  # type: ignore[method-assign]
    for (name, kinds), port in zip(SCENARIOS.items(), ports, strict=True):
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        path = Path(folder) / f"config_{rank}.py"
        path.write_text(CONFIG.replace('["normal", "normal"]', repr(kinds)), encoding="utf-8")
        without_gradient.clear()
        try:
            trainer = train(load_config(path), RunOptions(Path(folder) / name, device="cpu"))
            outcome = f"{trainer.progress.step} steps, {without_gradient} without gradient"
        except ValueError as error:
            outcome = str(error)
        results.put((rank, name, outcome))  # type: ignore[attr-defined]


@pytest.mark.multi_process
def test_uneven_batches(tmp_path: Path) -> None:
    probes = [socket.socket() for _ in SCENARIOS]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    queue = mp.get_context("spawn").SimpleQueue()
    mp.spawn(_work, args=(ports, str(tmp_path), queue), nprocs=2)
    found = {}
    for _ in range(2 * len(SCENARIOS)):
        rank, name, outcome = queue.get()
        found[name, rank] = outcome
    for name in SCENARIOS:
        assert found[name, 0] == found[name, 1], name
        if name != "non-finite":
            assert found[name, 0] == "2 steps, [] without gradient", name
    assert "1-infinite" in found["non-finite", 0]
    assert "0-normal" not in found["non-finite", 0]
    assert "The parameters were not changed" in found["non-finite", 0]
