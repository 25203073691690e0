"""A model and a dataset that are small but have what makes resuming hard, and a driver that trains them.

``python tests/engine/toy.py CONFIG ...`` is ``tools/train.py`` with these registered.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adperception.models.base import Losses, TrainableModel
from adperception.registry import DATASETS, EVALUATIONS, MODELS

CONFIG = """
model = dict(type="ToyModel", width=8)
train_dataset = dict(type="ToyDataset", frames=22)
val_dataset = dict(type="ToyDataset", frames=5)
optimizer = dict(type="AdamW", lr=0.01, weight_decay=0.01, betas=(0.95, 0.99), eps=1e-8)
schedule = dict(type="OneCycle", start_divisor=10.0, end_divisor=1e4, peak_fraction=0.4, momentum=(0.95, 0.85))
train = dict(epochs=3, batch_size=4, accumulate_steps=1, workers=0, clip_grad_norm=10.0)
evaluations = [dict(type="ToyEvaluation", every_epochs=1)]
checkpoint = dict(every_steps=1, keep=30, best="val_loss", best_rule="less")
log = dict(every_steps=2)
seed = 3
"""


@dataclass(frozen=True)
class ToyBatch:
    frame_ids: tuple[str, ...]
    features: Tensor
    targets: Tensor

    def to(self, device: torch.device, *, non_blocking: bool = False) -> ToyBatch:
        features, targets = (t.to(device, non_blocking=non_blocking) for t in (self.features, self.targets))
        return ToyBatch(self.frame_ids, features, targets)


@DATASETS.register_module()
class ToyDataset:
    """Frames with augmentation noise from the item's generator; ``bad_frame`` holds a NaN."""

    def __init__(self, frames: int, bad_frame: int | None = None, delay_seconds: float = 0.0) -> None:
        self.frame_ids = [f"{index:06d}" for index in range(frames)]
        self.bad_frame = bad_frame
        self.delay_seconds = delay_seconds

    def __len__(self) -> int:
        return len(self.frame_ids)

    def read(self, index: int) -> tuple[str, np.ndarray, float]:
        features = np.sin(np.arange(6) * (index + 1))
        return self.frame_ids[index], features.astype(np.float32), float(np.cos(index))

    def get(self, index: int, rng: np.random.Generator) -> tuple[str, np.ndarray, float]:
        time.sleep(self.delay_seconds)
        features = np.sin(np.arange(6) * (index + 1)) + 0.1 * rng.standard_normal(6)
        if index == self.bad_frame:
            features[2] = np.nan
        return self.frame_ids[index], features.astype(np.float32), float(np.cos(index))


def collate(frames: Sequence[tuple[str, np.ndarray, float]]) -> ToyBatch:
    return ToyBatch(
        tuple(frame[0] for frame in frames),
        torch.from_numpy(np.stack([frame[1] for frame in frames])),
        torch.tensor([frame[2] for frame in frames]),
    )


@MODELS.register_module()
class ToyModel(TrainableModel):
    """Batch norm, random masking from the generator, an averaged copy that follows the global step, and a scale of the
    input that is taken from the training frames before the first step.
    """

    scale: Tensor

    def __init__(self, width: int, batch_norm: bool = True, dropout: float = 0.2) -> None:
        super().__init__()
        norm: nn.Module = nn.BatchNorm1d(width) if batch_norm else nn.Identity()
        self.online = nn.Sequential(nn.Linear(6, width), norm, nn.ReLU(), nn.Linear(width, 1))
        self.average = copy.deepcopy(self.online).requires_grad_(False)
        self.dropout = dropout
        self.register_buffer("scale", torch.ones(6))

    def before_training(self, frames: Iterable[tuple[str, np.ndarray, float]]) -> None:
        self.scale.copy_(torch.from_numpy(np.stack([features for _, features, _ in frames])).abs().mean(0) + 0.1)

    def forward(self, batch: ToyBatch, generator: torch.Generator | None = None) -> Losses:
        keep = torch.rand(batch.features.shape, generator=generator) >= self.dropout
        features = batch.features / self.scale * keep.to(batch.features.device, non_blocking=True)
        prediction = self.online(features)[:, 0]
        with torch.no_grad():
            target = 0.5 * batch.targets + 0.5 * self.average(features)[:, 0]
        squared = (prediction - target).square().mean()
        return Losses(squared + 0.1 * prediction.abs().mean(), {"squared": squared.detach()})

    def collate(self, training: bool) -> Callable[[Sequence[Any]], ToyBatch]:
        return collate

    def after_optimizer_step(self, step: int, total_steps: int, applied: Tensor | None = None) -> None:
        keep = 0.9 + 0.1 * step / total_steps
        with torch.no_grad():
            for average, online in zip(self.average.parameters(), self.online.parameters(), strict=True):
                moved = (average * keep).add_(online, alpha=1 - keep)
                average.copy_(moved if applied is None else torch.where(applied, moved, average))


@EVALUATIONS.register_module()
class ToyEvaluation:
    def __init__(self, every_epochs: int = 1) -> None:
        self.every_epochs = every_epochs
        self.headline: tuple[str, ...] = ()

    def __call__(
        self, model: TrainableModel, batches: Iterable[ToyBatch], *, device: torch.device, step: int
    ) -> dict[str, float]:
        model.eval()
        with torch.no_grad():
            losses = [float(model(b.to(device), torch.Generator().manual_seed(0)).total) for b in batches]
        model.train()
        return {"val_loss": sum(losses) / len(losses)}


_fsync = os.fsync


def disk_full(descriptor: int) -> None:
    """An ``os.fsync`` that finds the disk full in files whose path contains TOY_FULL."""
    if os.environ["TOY_FULL"] in str(Path(f"/proc/self/fd/{descriptor}").readlink()):
        raise OSError(28, "No space left on device")
    _fsync(descriptor)


def _faults_from_environment() -> None:
    """TOY_KILL=<n>: die by SIGKILL between writing and renaming the n-th checkpoint; TOY_FULL: a full disk.

    TOY_KILL_STEP=<process>:<step>: die after that many steps, unless torchrun has started the processes again.
    TOY_SLOW=<process>:<step>:<seconds>: sleep after that many steps.
    """
    from adperception.checkpoint import save
    from adperception.engine.trainer import Trainer

    saves = 0
    sync_directory = save.sync_directory

    def kill_before_rename(path: Path) -> None:
        nonlocal saves
        saves += path.name.endswith(".tmp")
        if saves == int(os.environ["TOY_KILL"]):
            os.kill(os.getpid(), 9)
        sync_directory(path)

    compute = Trainer.compute

    def fail_before_step(trainer: Trainer, *arguments: Any) -> Any:
        place = f"{trainer.processes.rank}:{trainer.progress.step}"
        if place == os.environ.get("TOY_KILL_STEP") and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
            os.kill(os.getpid(), 9)
        slow, _, seconds = os.environ.get("TOY_SLOW", "").rpartition(":")
        if place == slow:
            time.sleep(float(seconds))
        return compute(trainer, *arguments)

    Trainer.compute = fail_before_step  # type: ignore[method-assign]
    if "TOY_KILL" in os.environ:
        save.sync_directory = kill_before_rename
    if "TOY_FULL" in os.environ:
        os.fsync = disk_full


def main() -> int:
    _faults_from_environment()
    path = Path(__file__).resolve().parents[2] / "tools" / "train.py"
    specification = importlib.util.spec_from_file_location("train_tool", path)
    assert specification is not None
    assert specification.loader is not None
    tool = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(tool)
    result: int = tool.main()
    return result


if __name__ == "__main__":
    # Workers that unpickle these classes must find them in a module, not in __main__.
    sys.path.insert(0, str(Path(__file__).parent))
    for registry in (MODELS, DATASETS, EVALUATIONS):
        for name in [name for name in registry.module_dict if name.startswith("Toy")]:
            del registry.module_dict[name]
    import toy

    sys.exit(toy.main())
