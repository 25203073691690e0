"""Handwritten digits and a small network for them: the task that optimisers are compared on where no GPU is."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adperception.engine.randomness import epoch_order, shard_rng
from adperception.engine.study_task import Metric, Sharding, Split

__all__ = ["Digits", "DigitsCNN", "DigitsTask", "load_digits", "sample_order"]

CLASSES = 10
SKEW = 0.3
"""Concentration of the Dirichlet distribution by which a label's samples are divided between the workers."""

_SPLIT_SEED = 0
_HELD_OUT = 0.2
_TRIES = 100


class DigitsCNN(nn.Module):
    """Two convolutions and a linear layer on 8 x 8 pixels, about 10,000 parameters.

    Group normalisation (Wu, He, 2018) has no running statistics, so a mean of models needs no recalibration.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.GroupNorm(4, 16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.GroupNorm(4, 32),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 4 * 4, CLASSES),
        )

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, 8, 8) images to (N, 10) logits."""
        logits: Tensor = self.layers(images)
        return logits


@dataclass(frozen=True)
class Digits:
    """One split.

    Attributes:
        images: (N, 1, 8, 8) float32 in [0, 1].
        labels: (N,) int64, 0 to 9.
    """

    images: Tensor
    labels: Tensor


@lru_cache(maxsize=1)
def load_digits() -> dict[str, Digits]:
    """scikit-learn's 1,797 digits, divided 60 : 20 : 20 within every class, always alike.

    Returns:
        ``"train"``, ``"validation"`` and ``"test"``.

    Raises:
        ImportError: without scikit-learn.
    """
    try:
        from sklearn.datasets import load_digits as load
    except ImportError as error:
        raise ImportError(
            'the digits come with scikit-learn, which is not installed: pip install "adperception[study]"'
        ) from error
    bunch = load()
    targets = np.asarray(bunch.target)
    parts: dict[str, list[np.ndarray]] = {"validation": [], "test": [], "train": []}
    for label in range(CLASSES):
        members = np.flatnonzero(targets == label)
        members = members[np.random.default_rng([_SPLIT_SEED, label]).permutation(len(members))]
        held_out = round(_HELD_OUT * len(members))
        for name, part in zip(parts, np.split(members, [held_out, 2 * held_out]), strict=True):
            parts[name].append(part)
    images = torch.as_tensor(np.asarray(bunch.images), dtype=torch.float32)[:, None] / 16
    labels = torch.as_tensor(targets, dtype=torch.int64)
    chosen = {name: torch.as_tensor(np.sort(np.concatenate(part))) for name, part in parts.items()}
    return {name: Digits(images[index], labels[index]) for name, index in chosen.items()}


@dataclass(frozen=True)
class DigitsTask:
    """Classify handwritten digits; scored by accuracy in per cent."""

    name: str = "digits"
    metric: Metric = field(default_factory=lambda: Metric("accuracy", higher_is_better=True, tolerance=0.5))
    shardings: Sequence[Sharding] = ("dealt", "fixed", "skewed")
    batch_size: int = 32
    rate_scale: float = 1.0
    recalibration_batches: int = 0

    def identity(self) -> dict[str, Any]:
        """A hash of the data, and the network."""
        digest = hashlib.sha256()
        for split in load_digits().values():
            digest.update(split.images.numpy().tobytes())
            digest.update(split.labels.numpy().tobytes())
        return {"task": self.name, "data": digest.hexdigest(), "network": str(DigitsCNN()), "skew": SKEW}

    def build_model(self, seed: int) -> nn.Module:
        """A ``DigitsCNN``."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return DigitsCNN()

    def build_optimizer(self, model: nn.Module) -> torch.optim.Optimizer:
        """SGD with Nesterov momentum."""
        return torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=1e-4, nesterov=True)

    def batches(self, workers: int, seed: int, sharding: Sharding, batch_size: int, steps: int) -> _DigitsBatches:
        """Batches cut one after the other from a worker's order of samples, across the ends of epochs."""
        train = load_digits()["train"]
        order = sample_order(train.labels.numpy(), workers, seed, sharding, batch_size * steps)
        return _DigitsBatches(train, order.reshape(workers, steps, batch_size))

    @torch.no_grad()
    def score(self, model: nn.Module, split: Split) -> float:
        """Accuracy in per cent."""
        held_out = load_digits()[split]
        return 100 * float((model(held_out.images).argmax(1) == held_out.labels).double().mean())


class _DigitsBatches:
    """Mini-batches by (M, steps, batch) sample indices."""

    def __init__(self, train: Digits, order: np.ndarray) -> None:
        self._train, self._order = train, torch.as_tensor(order)

    def loss(self, model: nn.Module, worker: int, step: int) -> Tensor:
        index = self._order[worker, step]
        return nn.functional.cross_entropy(model(self._train.images[index]), self._train.labels[index])

    def before_step(self, model: nn.Module) -> None:
        pass

    def after_step(self, model: nn.Module, step: int, steps: int) -> None:
        pass


def sample_order(labels: np.ndarray, workers: int, seed: int, sharding: Sharding, samples: int) -> np.ndarray:
    """Which samples every worker sees, in order.

    A worker goes through its shard in a random order, through a fresh one in each of its epochs.

    Args:
        labels: (N,) of the training samples.
        workers: M.
        seed: of the run.
        sharding: ``"dealt"``: in every epoch all samples are dealt anew, N // M to each worker, as torch's
            DistributedSampler and this package's engine do it. ``"fixed"``: dealt once. ``"skewed"``: dealt once, the
            samples of each label in proportions from a Dirichlet distribution with concentration 0.3 (Li, Diao, Chen,
            He, 2021, arXiv 2102.02079), drawn again until every worker has a quarter of an equal share at least. The
            shards are of unequal size, the workers see equally many samples all the same.
        samples: how many each worker sees.

    Returns:
        (M, samples) indices.

    Raises:
        ValueError: more workers than samples, or too many for a skewed division.
    """
    if not 1 <= workers <= len(labels):
        raise ValueError(f"--workers {workers}: there are {len(labels)} training samples; every worker needs one.")
    if sharding == "dealt":
        share = len(labels) // workers
        epochs = [epoch_order(seed, epoch, len(labels)) for epoch in range(-(-samples // share))]
        dealt = [order[: share * workers].reshape(share, workers).T for order in epochs]
        return np.concatenate(dealt, axis=1)[:, :samples]
    shards = _fixed_shards(labels, workers, seed) if sharding == "fixed" else _skewed_shards(labels, workers, seed)
    rows = []
    for worker, shard in enumerate(shards):
        epochs = [
            shard[shard_rng(seed, worker, epoch).permutation(len(shard))] for epoch in range(-(-samples // len(shard)))
        ]
        rows.append(np.concatenate(epochs)[:samples])
    return np.stack(rows)


def _fixed_shards(labels: np.ndarray, workers: int, seed: int) -> list[np.ndarray]:
    return np.array_split(shard_rng(seed).permutation(len(labels)), workers)


def _skewed_shards(labels: np.ndarray, workers: int, seed: int) -> list[np.ndarray]:
    rng = shard_rng(seed)
    smallest = len(labels) // (4 * workers)
    for _ in range(_TRIES):
        shards: list[list[np.ndarray]] = [[] for _ in range(workers)]
        for label in range(CLASSES):
            members = rng.permutation(np.flatnonzero(labels == label))
            ends = np.cumsum(rng.dirichlet([SKEW] * workers)) * len(members)
            for shard, part in zip(shards, np.split(members, ends[:-1].round().astype(int)), strict=True):
                shard.append(part)
        joined = [np.concatenate(shard) for shard in shards]
        if min(map(len, joined)) >= max(smallest, 1):
            return joined
    raise ValueError(
        f"--sharding skewed: no division of {len(labels)} samples between {workers} workers was found in which each "
        f"has at least {max(smallest, 1)}. Use fewer workers."
    )
