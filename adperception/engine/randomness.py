"""Randomness without a memory: every draw is a function of the seed and of where the run is.

So a resumed run needs no replay, and the number of data workers does not change the data.
"""

from __future__ import annotations

import os
import random
from enum import IntEnum

import numpy as np
import torch

__all__ = ["epoch_order", "item_rng", "probe_rng", "seed_everything", "shard_rng", "step_generator"]


class _Purpose(IntEnum):
    """Keeps draws for different purposes independent of each other."""

    ORDER = 0
    ITEM = 1
    STEP = 2
    SHARD = 3
    PROBE = 4


def _sequence(seed: int, purpose: _Purpose, *position: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=(int(purpose), *position))


def epoch_order(seed: int, epoch: int, frames: int) -> np.ndarray:
    """The permutation ``(frames,)`` in which epoch ``epoch`` visits the frames."""
    return np.random.default_rng(_sequence(seed, _Purpose.ORDER, epoch)).permutation(frames)


def item_rng(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The generator for the augmentation of frame ``index`` in epoch ``epoch``."""
    return np.random.default_rng(_sequence(seed, _Purpose.ITEM, epoch, index))


def step_generator(seed: int, step: int, rank: int) -> torch.Generator:
    """The CPU generator for the model's own draws in optimizer step ``step`` on process ``rank``."""
    state = _sequence(seed, _Purpose.STEP, step, rank).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0]) & (2**63 - 1))


def probe_rng(seed: int, round_number: int, rank: int) -> np.random.Generator:
    """The generator for the frames, and their augmentation, that process ``rank`` measures gradients on in a round."""
    return np.random.default_rng(_sequence(seed, _Purpose.PROBE, round_number, rank))


def shard_rng(seed: int, *position: int) -> np.random.Generator:
    """The generator for a worker's order of its own samples, at (worker, epoch); at (): for who gets which samples."""
    return np.random.default_rng(_sequence(seed, _Purpose.SHARD, *position))


def seed_everything(seed: int, deterministic: bool) -> None:
    """Seed the global generators (weight initialisation, and code that draws from them all the same).

    Args:
        seed: the run's seed, equal on every process so that all build the same model.
        deterministic: make torch raise on any operation that has no deterministic implementation.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  third-party code draws from the legacy generator
    torch.manual_seed(seed)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
        torch.backends.cudnn.benchmark = False
