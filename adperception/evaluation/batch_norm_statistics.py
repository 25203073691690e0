"""Batch-norm statistics that belong to the weights at hand.

With momentum 0.01 the running mean and variance lag about a hundred steps behind the weights: after a short run
they still mix in the initial mean 0 and variance 1, and a healthy encoder looks collapsed in evaluation mode. So
evaluations work on a copy whose statistics are averaged afresh over some batches with the present weights.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

Model = TypeVar("Model", bound=nn.Module)

__all__ = ["mask_generator", "untouched_rng", "with_reestimated_batch_norm"]


def mask_generator(*seeds: int) -> torch.Generator:
    """A CPU generator that is a function of the given non-negative integers alone."""
    state = int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0])
    return torch.Generator().manual_seed(state >> 1)


def untouched_rng(device: torch.device) -> AbstractContextManager[None]:
    """A context in which random draws leave the global generators of CPU and ``device`` as they were.

    Iterating a ``DataLoader`` draws from the global generator, so an evaluation without this would change the
    training that follows it.
    """
    return torch.random.fork_rng([device] if device.type == "cuda" else [], device_type="cuda")


@torch.no_grad()
def with_reestimated_batch_norm(
    model: Model, batches: Iterable[Any], *, device: torch.device | str, count: int = 15, mask_seed: int = 0
) -> Model:
    """A copy of ``model`` in evaluation mode, its batch-norm statistics averaged over ``count`` batches.

    The average is cumulative (every batch has the same weight). Only batch-norm layers are in training mode
    meanwhile. ``model`` and the global random state stay as they were.

    Args:
        model: a model with ``model(batch, generator)``.
        batches: re-iterable of batches with ``.to(device)``; if it holds fewer than ``count``, it is gone through
            again, with other masks.
        device: where the model is.
        count: number of batches.
        mask_seed: the masks of batch i are drawn from a generator of ``(mask_seed, 1, i)``.

    Raises:
        ValueError: if ``batches`` is empty.
    """
    device = torch.device(device)
    estimate = copy.deepcopy(model).eval()
    layers = [module for module in estimate.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # cumulative average
        layer.train()
    with untouched_rng(device):
        for index, batch in enumerate(itertools.islice(_cycle(batches), count)):
            estimate(batch.to(device), mask_generator(mask_seed, 1, index))
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    return estimate.eval()


def _cycle(batches: Iterable[Any]) -> Iterator[Any]:
    """All batches again and again, without keeping them in memory."""
    while True:
        empty = True
        for batch in batches:
            empty = False
            yield batch
        if empty:
            raise ValueError(
                "The validation data hold no batch, so batch-norm statistics cannot be re-estimated. "
                "Give val_dataset at least one frame."
            )
