"""How often the host would wait for a GPU in a training step of a model."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from adperception.engine.host_reads import HostReads
from tests.models.small_models import Step

__all__ = ["CHECKS", "TORCH_BACKEND", "step_reads"]

CHECKS = ("adperception/sparse/checks.py",)
"""Coordinates are checked on the first inputs of a process; a run has that behind it soon."""

TORCH_BACKEND = ("adperception/sparse/rulebook.py",)
"""The ``torch`` sparse backend asks for the size of every tap's pairs; the ``triton`` backend does not."""


def step_reads(step: Step, ignore: Sequence[str] = CHECKS, cuda: bool = False) -> list[str]:
    """Forward and backward pass of one batch: the places where the host waits.

    Args:
        step: model and batch, which count as lying on the device.
        ignore: parts of descriptions of places that are not counted.
        cuda: count real synchronisations of a model on a GPU.
    """
    generator = torch.Generator().manual_seed(0)
    with HostReads(ignore, cuda=cuda) as reads:
        step.model(step.batch, generator).total.backward()
    return reads.places
