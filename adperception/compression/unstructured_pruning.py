"""Unstructured pruning: the smallest weights become zero, and stay zero while the others are trained on.

Global magnitude pruning (Han et al., Learning both Weights and Connections, NIPS 2015). It saves parameters, not time:
the convolutions multiply by the zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from adperception.compression.resize import parameter_count
from adperception.models.base import Pruning, TrainableModel

__all__ = ["hold_zeros", "prune_weights"]


def prune_weights(model: TrainableModel, parameters: int) -> None:
    """Set the smallest weights of all convolutions and linear layers to zero, in place, until so many are left.

    Biases and batch norms are kept: they are few, and their size says nothing about their use.

    Args:
        model: the model; it notes which tensors have masks in ``model.pruning``.
        parameters: how many parameters may be left that are not zero by pruning.

    Raises:
        ValueError: if the weights are not that many.
    """
    weights = {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if isinstance(module, (nn.modules.conv._ConvNd, nn.Linear)) and module.weight.requires_grad
    }
    total = parameter_count(model)
    sizes = torch.cat([weight.detach().abs().flatten() for weight in weights.values()])
    remove = total - parameters
    if remove > len(sizes):
        raise ValueError(
            f"{type(model).__name__}: {len(sizes):,} of its {total:,} parameters are weights that can be pruned, but "
            f"{remove:,} were to go. Ask for a smaller share."
        )
    if remove > 0:
        zero = torch.zeros(len(sizes), dtype=torch.bool, device=sizes.device)
        zero[torch.topk(sizes, remove, largest=False).indices] = True
        with torch.no_grad():
            parts = torch.split(zero, [weight.numel() for weight in weights.values()])
            for weight, part in zip(weights.values(), parts, strict=True):
                weight[part.view_as(weight)] = 0
    model.pruning = Pruning(shapes=model.pruning.shapes, masked=tuple(weights))
    hold_zeros(model, model.pruning.masked)


def hold_zeros(model: nn.Module, names: Sequence[str]) -> None:
    """From now on, weights of the named tensors that are zero get no gradient, so that every optimizer leaves them.

    The zeros themselves are the mask: it needs no place of its own in weights files and checkpoints.
    """
    parameters = dict(model.named_parameters())
    for name in names:
        parameters[name].register_hook(_Mask(parameters[name]))  # type: ignore[no-untyped-call]


class _Mask:
    """Zeroes the gradient where the weight is zero."""

    def __init__(self, parameter: nn.Parameter) -> None:
        self._parameter = parameter

    def __call__(self, gradient: Tensor) -> Any:
        return gradient * (self._parameter != 0)
