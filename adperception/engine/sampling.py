"""Which frames an optimizer step sees, by arithmetic: step -> epoch and position -> frame indices.

One optimizer step takes ``batch_size * world_size * accumulate_steps`` consecutive frames of the epoch's permutation,
cut into micro-batches (one forward pass on every process). The last step of an epoch takes what is left; it is spread
evenly over the processes, and each loss counts by its share of frames, so the update is always the mean over frames.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from adperception.engine.randomness import epoch_order

__all__ = ["Item", "MicroBatch", "SampleOrder", "StepBatchSampler"]

Item = tuple[int, int]
"""Epoch and frame index."""


@dataclass(frozen=True)
class MicroBatch:
    """One forward pass of one process.

    Attributes:
        items: epoch and index of its frames; never empty.
        share: its part of the frames of the whole optimizer step; 0 if its frame only keeps the process busy, because
            the rest of the epoch has fewer frames than there are processes.
    """

    items: tuple[Item, ...]
    share: float


@dataclass(frozen=True)
class SampleOrder:
    """The visiting order of a whole run.

    Attributes:
        frames: number of training frames.
        batch_size: frames per process and forward pass.
        accumulate_steps: forward passes per optimizer step.
        world_size: number of processes.
        seed: the run's seed.
        drop_last: leave out the incomplete last step of an epoch.
    """

    frames: int
    batch_size: int
    accumulate_steps: int
    world_size: int
    seed: int
    drop_last: bool

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ValueError("the training dataset has no frames.")
        if self.steps_per_epoch < 1:
            raise ValueError(
                f"the training dataset has {self.frames} frames, less than one effective batch of "
                f"{self.effective_batch}, and drop_last=True leaves nothing. Use drop_last=False or a smaller batch."
            )

    @property
    def effective_batch(self) -> int:
        """Frames per optimizer step."""
        return self.batch_size * self.accumulate_steps * self.world_size

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps per pass over the frames."""
        if self.drop_last:
            return self.frames // self.effective_batch
        return math.ceil(self.frames / self.effective_batch)

    def micro_batches(self, step: int, rank: int) -> list[MicroBatch]:
        """The forward passes of process ``rank`` in optimizer step ``step``; equally many on every process."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.effective_batch
        chosen = _order(self.seed, epoch, self.frames)[start : start + self.effective_batch]
        width = self.batch_size * self.world_size
        passes = []
        for first in range(0, len(chosen), width):
            everyone = chosen[first : first + width]
            mine = np.array_split(everyone, self.world_size)[rank]
            items = tuple((epoch, int(index)) for index in (mine if len(mine) else everyone[:1]))
            passes.append(MicroBatch(items, len(mine) / len(chosen)))
        return passes


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, frames: int) -> np.ndarray:
    return epoch_order(seed, epoch, frames)


@dataclass(frozen=True)
class StepBatchSampler:
    """The micro-batches of one process from optimizer step ``start`` to ``stop``, for a data loader.

    It runs through epoch borders, so the workers live as long as the run.
    """

    order: SampleOrder
    rank: int
    start: int
    stop: int

    def __iter__(self) -> Iterator[list[Item]]:
        for step in range(self.start, self.stop):
            for micro_batch in self.order.micro_batches(step, self.rank):
                yield list(micro_batch.items)
