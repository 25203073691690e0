"""A config as a task of a study of optimisers: its model, data and optimizer; scored by the loss on held-out frames."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from adperception.config import Config
from adperception.engine.cells import bare_dataset, data_version
from adperception.engine.data import FrameDataset
from adperception.engine.optimizers import build_optimizer
from adperception.engine.randomness import item_rng, step_generator
from adperception.engine.sampling import SampleOrder
from adperception.engine.settings import parse_settings
from adperception.engine.study_task import Metric, Sharding, Split
from adperception.models.base import TrainableModel
from adperception.registry import DATASETS, MODELS, build

__all__ = ["ConfigTask"]

GRID_RATE = 0.1
"""The learning rate in the methods' grids that stands for the one of the config."""

_HELD_OUT_FRAMES = 16
_STATISTICS_FRAMES = 16


class ConfigTask:
    """Train a config's model with several optimisers. The data must be there.

    Model, data order, augmentation, optimizer and gradient clipping (every worker clips its own gradient) are the
    config's; the schedule is the study's. Of the frames of ``val_dataset`` those at even places are for validation,
    those at odd places for the test, 16 of each at most. The loss on them is measured in evaluation mode, after batch
    norm has been recalibrated on the first training batches.

    Args:
        config: of a run.

    Raises:
        ValueError: for a config that is no such task.
    """

    metric = Metric("held-out loss", higher_is_better=False, tolerance=0.0, decimals=4)
    shardings: Sequence[Sharding] = ("dealt",)
    recalibration_batches = 2

    def __init__(self, config: Config) -> None:
        settings = parse_settings(config.values)
        if settings.val_dataset is None:
            raise ValueError(f"{config.path}: a study of optimisers needs a val_dataset, to measure the loss on.")
        if settings.init is not None:
            raise ValueError(f"{config.path}: every method starts from random weights; take out the init section.")
        if settings.train.accumulate_steps != 1:
            raise ValueError(f"{config.path}: train.accumulate_steps has to be 1 in a study of optimisers.")
        if settings.train.amp != "off":
            raise ValueError(f'{config.path}: train.amp has to be "off" in a study of optimisers.')
        self._config, self._settings = config, settings
        self.name = config.path.stem
        self.batch_size = settings.train.batch_size
        self.rate_scale = float(settings.optimizer["lr"]) / GRID_RATE

    def identity(self) -> dict[str, Any]:
        """Model, datasets, optimizer, and which frames these are."""
        values = self._config.values
        kept = {name: values[name] for name in ("model", "train_dataset", "val_dataset", "optimizer")}
        clip = self._settings.train.clip_grad_norm
        return {"task": self.name, "config": kept, "clip_grad_norm": clip, "data": data_version(self._config)}

    def build_model(self, seed: int) -> nn.Module:
        """The config's model, on the CPU."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: TrainableModel = build(MODELS, self._settings.model)
        model.before_training(self._statistics_frames())
        return model

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """The config's optimizer."""
        return build_optimizer(self._settings.optimizer, model)

    def batches(self, workers: int, seed: int, sharding: Sharding, batch_size: int, steps: int) -> _ConfigBatches:
        """In the order of the engine, which deals the frames of an epoch to the workers."""
        order = SampleOrder(len(self._training_data), batch_size, 1, workers, seed, drop_last=True)
        return _ConfigBatches(self._training_data, order, self._settings.train.clip_grad_norm)

    @torch.no_grad()
    def score(self, model: nn.Module, split: Split) -> float:
        """Mean loss."""
        assert isinstance(model, TrainableModel)
        dataset, collate = self._held_out_data, model.collate(training=False)
        frames = range(0 if split == "validation" else 1, len(dataset), 2)
        frames = frames[:: -(-len(frames) // _HELD_OUT_FRAMES)]
        total = 0.0
        for number in range(0, len(frames), self.batch_size):
            chosen = frames[number : number + self.batch_size]
            batch = collate([dataset.get(index, item_rng(0, 0, index)) for index in chosen])
            total += len(chosen) * float(model(batch, step_generator(0, number, 0)).total)
        return total / len(frames) if len(frames) else math.nan

    @cached_property
    def _training_data(self) -> FrameDataset:
        dataset: FrameDataset = build(DATASETS, self._settings.train_dataset)
        return dataset

    @cached_property
    def _held_out_data(self) -> FrameDataset:
        # Labels as in training (classes, cropping), without augmentation.
        assert self._settings.val_dataset is not None
        dataset: FrameDataset = bare_dataset({**self._settings.train_dataset, **self._settings.val_dataset})
        return dataset

    def _statistics_frames(self) -> Iterator[Any]:
        total = len(self._training_data)
        for index in range(0, total, -(-total // _STATISTICS_FRAMES)):
            yield self._training_data.read(index)


class _ConfigBatches:
    """Mini-batches in the engine's order."""

    def __init__(self, dataset: FrameDataset, order: SampleOrder, clip: float | None) -> None:
        self._dataset, self._order, self._clip = dataset, order, clip

    def loss(self, model: nn.Module, worker: int, step: int) -> Tensor:
        assert isinstance(model, TrainableModel)
        (micro_batch,) = self._order.micro_batches(step, worker)
        frames = [
            self._dataset.get(index, item_rng(self._order.seed, epoch, index)) for epoch, index in micro_batch.items
        ]
        batch = model.collate(training=True)(frames)
        total: Tensor = model(batch, step_generator(self._order.seed, step, worker)).total
        return total

    def before_step(self, model: nn.Module) -> None:
        if self._clip is not None:
            nn.utils.clip_grad_norm_([p for p in model.parameters() if p.grad is not None], self._clip)

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        assert isinstance(model, TrainableModel)
        model.after_optimizer_step(step, steps)
