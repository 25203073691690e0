"""Data loaders over datasets of frames."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from adperception.engine.randomness import item_rng
from adperception.engine.sampling import Item, StepBatchSampler

__all__ = ["FrameDataset", "ValidationBatches", "frame_names", "spread_indices", "training_loader"]

Collate = Callable[[Sequence[Any]], Any]


class FrameDataset(Protocol):
    """What the engine needs of a registered dataset."""

    frame_ids: Sequence[str]

    def __len__(self) -> int:
        """Number of frames."""
        ...

    def read(self, index: int) -> Any:
        """Frame ``index`` as it is stored."""
        ...

    def get(self, index: int, rng: np.random.Generator) -> Any:
        """Frame ``index``, transformed with draws from ``rng``."""
        ...


@dataclass(frozen=True)
class _Items(TorchDataset[Any]):
    """Gives every item its own random generator, wherever it is fetched."""

    dataset: FrameDataset
    seed: int

    def __getitem__(self, item: Item) -> Any:
        epoch, index = item
        try:
            return self.dataset.get(index, item_rng(self.seed, epoch, index))
        except (ValueError, OSError) as error:
            return _Failure(str(error))


@dataclass(frozen=True)
class _Failure:
    """An error for the user, on its way out of a worker (torch would wrap its message into a traceback)."""

    message: str


@dataclass(frozen=True)
class _Collate:
    """The model's collate function, or the first failure."""

    collate: Collate

    def __call__(self, frames: Sequence[Any]) -> Any:
        failures = [frame for frame in frames if isinstance(frame, _Failure)]
        if failures:
            return failures[0]
        try:
            return self.collate(frames)
        except ValueError as error:
            return _Failure(str(error))


@dataclass(frozen=True)
class _Batches:
    """A data loader whose failures are raised here."""

    loader: DataLoader[Any]

    def __iter__(self) -> Iterator[Any]:
        for batch in self.loader:
            if isinstance(batch, _Failure):
                raise ValueError(batch.message)
            yield batch


def training_loader(
    dataset: FrameDataset,
    sampler: StepBatchSampler,
    collate: Collate,
    workers: int,
    device: torch.device,
    prefetch_factor: int = 2,
) -> Iterable[Any]:
    """One batch per micro-batch of ``sampler``, in its order; every worker keeps ``prefetch_factor`` of them ready."""
    return _loader(dataset, sampler, sampler.order.seed, collate, workers, device, prefetch_factor)


@dataclass(frozen=True)
class ValidationBatches:
    """The validation frames in order, the same batches at every iteration.

    Attributes:
        dataset: validation frames.
        batch_size: frames per batch.
        seed: seed for transforms that draw (equal draws at every iteration).
        collate: the model's collate function for evaluation.
        workers: data-loading processes.
        device: for page-locked memory if it is a GPU.
        indices: positions of the frames to go through; ``None``: all.
    """

    dataset: FrameDataset
    batch_size: int
    seed: int
    collate: Collate
    workers: int
    device: torch.device
    indices: Sequence[int] | None = None

    @property
    def frames(self) -> Sequence[int]:
        """Positions of the frames."""
        return range(len(self.dataset)) if self.indices is None else self.indices

    def __len__(self) -> int:
        return -(-len(self.frames) // self.batch_size)

    def __iter__(self) -> Iterator[Any]:
        frames = self.frames
        batches = [
            [(0, index) for index in frames[start : start + self.batch_size]]
            for start in range(0, len(frames), self.batch_size)
        ]
        return iter(_loader(self.dataset, batches, self.seed, self.collate, self.workers, self.device))


def frame_names(dataset: FrameDataset, items: Iterable[Item]) -> list[str]:
    """Names of the frames of ``items``."""
    return [dataset.frame_ids[index] for _, index in items]


def spread_indices(total: int, count: int) -> list[int]:
    """Positions of at most ``count`` of ``total`` frames, evenly spread."""
    positions: list[int] = np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)).tolist()
    return positions


def _loader(
    dataset: FrameDataset,
    batches: Iterable[list[Item]],
    seed: int,
    collate: Collate,
    workers: int,
    device: torch.device,
    prefetch_factor: int = 2,
) -> _Batches:
    loader: DataLoader[Any] = DataLoader(
        _Items(dataset, seed),
        batch_sampler=batches,
        num_workers=workers,
        prefetch_factor=prefetch_factor if workers else None,
        collate_fn=_Collate(collate),
        pin_memory=device.type == "cuda",
        worker_init_fn=_leave_signals_to_the_parent,
        # Its own generator: otherwise making an iterator would draw from the global one.
        generator=torch.Generator().manual_seed(0),
    )
    return _Batches(loader)


def _leave_signals_to_the_parent(worker: int) -> None:
    """Ctrl-C reaches every process of the terminal; the run still needs its workers for the step it finishes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
