"""Structured pruning: the weakest channels are cut out of a model, which is smaller and faster afterwards.

Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017 (L1 norm of filters); here ranked over all layers at once.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from adperception.compression.channel_labels import FIXED, ChannelLabels, label_channels
from adperception.compression.resize import parameter_count, replace_tensor
from adperception.models.base import Pruning, TrainableModel

__all__ = ["MINIMUM_CHANNELS", "prune_channels", "select_channels"]

MINIMUM_CHANNELS = 4
"""No layer is left with fewer channels (one that has fewer keeps them)."""

Kept = Mapping[tuple[str, int], list[int]]
"""Per tensor and dimension the entries that stay."""


def prune_channels(model: TrainableModel, run: Callable[[], Any], parameters: int) -> None:
    """Remove the weakest channels until the model has at most so many parameters, in place.

    What the smaller model computes is what the larger one would if the layers that read a removed channel had zero
    weights for it. Optimizer states and copies of the model made before do not fit it any more.

    Args:
        model: the model; it notes its new shapes in ``model.pruning``, which goes into every weights file.
        run: calls the model with an example that reaches every layer.
        parameters: how many may be left.

    Raises:
        ValueError: if layers would be left with fewer than ``MINIMUM_CHANNELS``; the model is as it was then.
    """
    kept = select_channels(model, label_channels(model, run), parameters)
    state = model.state_dict()
    shapes = dict(model.pruning.shapes)
    cut: dict[str, Tensor] = {}
    for (name, dimension), indices in kept.items():
        tensor = cut.get(name, state[name])
        cut[name] = tensor.index_select(dimension, torch.tensor(indices, device=tensor.device))
    # A module that is known under several names appears once in the labels and several times in the state dict.
    for name, tensor in cut.items():
        replace_tensor(model, name, tensor)
    shapes.update({n: tuple(t.shape) for n, t in model.state_dict().items() if t.shape != state[n].shape})
    model.pruning = Pruning(shapes=shapes, masked=model.pruning.masked)


def select_channels(model: nn.Module, labels: ChannelLabels, parameters: int) -> Kept:
    """Which channels stay.

    A channel's weakness is the L1 norm of the weights that make it, divided by its layer's mean; channels that stand or
    fall together count with the mean over their layers.

    Args:
        model: the model that ``labels`` was found in.
        labels: which channels stand or fall together.
        parameters: how many parameters may be left.

    Returns:
        Entries that stay, for those tensors and dimensions that lose any.

    Raises:
        ValueError: if so many cannot be removed.
    """
    state = model.state_dict()
    axes = {axis: entries for axis, entries in labels.axes.items() if axis[0] in state}
    trained = {name for name, _ in model.named_parameters()}
    sizes = {name: list(state[name].shape) for name in {name for name, _ in axes} & trained}
    places: dict[int, dict[tuple[str, int], int]] = defaultdict(lambda: defaultdict(int))
    for (name, dimension), entries in axes.items():
        for label in entries:
            if label != FIXED:
                places[label][name, dimension] += 1
    left = total = parameter_count(model)
    removed: set[int] = set()
    weakness = _weakness(state, axes, labels.outputs)
    for label in sorted(weakness, key=lambda label: (weakness[label], label)):
        if left <= parameters:
            break
        own = {place: count for place, count in places[label].items() if place[0] in sizes}
        if any(sizes[name][dim] - count < MINIMUM_CHANNELS for (name, dim), count in own.items()):
            continue
        touched = {name for name, _ in own}
        before = sum(math.prod(sizes[name]) for name in touched)
        for (name, dimension), count in own.items():
            sizes[name][dimension] -= count
        left -= before - sum(math.prod(sizes[name]) for name in touched)
        removed.add(label)
    if left > parameters:
        raise ValueError(
            f"{type(model).__name__}: of its {total:,} parameters at least {left:,} are needed with "
            f"{MINIMUM_CHANNELS} channels in every layer; {parameters:,} were asked for. Ask for a smaller share."
        )
    return {
        axis: [index for index, label in enumerate(entries) if label not in removed]
        for axis, entries in axes.items()
        if removed.intersection(entries)
    }


def _weakness(
    state: Mapping[str, Tensor], axes: Mapping[tuple[str, int], list[int]], outputs: Mapping[str, int]
) -> dict[int, float]:
    """By label of channels that may go: the mean over layers of the relative L1 norm."""
    norms: dict[int, list[float]] = defaultdict(list)
    for name, dimension in outputs.items():
        weight = state[name].double().abs()
        per_channel = weight.sum([d for d in range(weight.dim()) if d != dimension])
        relative = per_channel / per_channel.mean().clamp_min(1e-300)
        for label, value in zip(axes[name, dimension], relative.tolist(), strict=True):
            norms[label].append(value)
    return {label: sum(values) / len(values) for label, values in norms.items() if label != FIXED}
