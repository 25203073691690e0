"""Gradient norms per parameter tensor: of a probe's mini-batch, or as a running average over training."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["NormAverage", "present_norms", "run_probe", "unchanged_by_probe"]


def present_norms(parameters: tuple[nn.Parameter, ...], device: torch.device) -> tuple[Tensor, Tensor | None]:
    """L2 norms of the gradients. One fused operation, no waiting.

    Returns:
        (L,) float64 norms, 0 where there is no gradient; (L,) bool, where there is one, ``None`` if everywhere.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if len(gradients) == len(parameters):
        return torch.stack(torch._foreach_norm(gradients)).double(), None
    present = torch.tensor([p.grad is not None for p in parameters], device=device)
    norms = torch.zeros(len(parameters), dtype=torch.float64, device=device)
    if gradients:
        norms[present] = torch.stack(torch._foreach_norm(gradients)).double()
    return norms, present


class NormAverage:
    """Bias-corrected moving averages, ``e <- mu e + (1 - mu) a``, read as ``e / (1 - mu^k)``, of the entries present.

    Args:
        average: (n,) float64, changed in place.
        count: (n,) float64, how often each entry was there.
        decay: mu.
    """

    def __init__(self, average: Tensor, count: Tensor, decay: float) -> None:
        self.average, self.count, self.decay = average, count, decay

    def add(self, values: Tensor, present: Tensor | None) -> None:
        """One more observation of the entries that are present, all of them if ``None``."""
        if present is None:
            self.average.lerp_(values, 1 - self.decay)
            self.count.add_(1)
            return
        self.average.lerp_(torch.where(present, values, self.average), 1 - self.decay)
        self.count.add_(present)

    def value(self) -> Tensor:
        """(n,); infinite where nothing was ever observed. What was not finite counts now, and is then forgotten."""
        correction = 1 - self.decay**self.count
        values = torch.where(self.count > 0, self.average / correction, torch.inf)
        spoilt = ~self.average.isfinite()
        self.average.masked_fill_(spoilt, 0)
        self.count.masked_fill_(spoilt, 0)
        return values


@contextmanager
def unchanged_by_probe(model: nn.Module, parameters: tuple[nn.Parameter, ...]) -> Iterator[None]:
    """Gradients, buffers (batch-norm statistics), modes and random generators are afterwards what they were."""
    gradients = [p.grad for p in parameters]
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    modes = [(module, module.training) for module in model.modules()]
    numpy = sys.modules.get("numpy")  # not needed here, but a data pipeline that was imported may draw from it
    numpy_state = numpy.random.get_state() if numpy is not None else None
    python_state = random.getstate()
    for parameter in parameters:
        parameter.grad = None
    device = parameters[0].device
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else [], device_type="cuda"), torch.enable_grad():
            yield
    finally:
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        with torch.no_grad():
            for buffer, value in buffers:
                buffer.copy_(value)
        for module, mode in modes:
            module.training = mode
        random.setstate(python_state)
        if numpy is not None:
            numpy.random.set_state(numpy_state)


def run_probe(
    probe: Callable[[nn.Module], Any], model: nn.Module, parameters: tuple[nn.Parameter, ...]
) -> tuple[Tensor, Tensor | None, Any]:
    """Norms of the gradients that ``probe(model)`` leaves, where there are any, and what it returns."""
    with unchanged_by_probe(model, parameters):
        result = probe(model)
        norms, present = present_norms(parameters, parameters[0].device)
    if present is not None and not bool(present.any()):
        raise RuntimeError("the probe left no gradient; it has to compute a loss of the model and call backward on it.")
    return norms, present, result.detach() if isinstance(result, Tensor) else result
