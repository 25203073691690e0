"""An optimizer's state as named tensors and plain values, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from adperception.checkpoint.layout import CheckpointError

_IMPLEMENTATIONS = ("fused", "foreach", "capturable")

__all__ = ["flatten_optimizer", "restore_optimizer"]


def flatten_optimizer(optimizer: torch.optim.Optimizer, model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Split an optimizer's state.

    Returns:
        Tensors by ``"<parameter name>/<state key>"``; and what goes into JSON: parameter groups (with parameter names)
        and state values that are not tensors.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    tensors: dict[str, Tensor] = {}
    values: dict[str, Any] = {}
    for parameter, entries in optimizer.state.items():
        for key, entry in entries.items():
            target: dict[str, Any] = tensors if isinstance(entry, Tensor) else values
            target[f"{names[id(parameter)]}/{key}"] = entry
    groups = [
        {
            **{key: value for key, value in group.items() if key != "params"},
            "params": [names[id(p)] for p in group["params"]],
        }
        for group in optimizer.param_groups
    ]
    return tensors, {"groups": groups, "values": values}


def restore_optimizer(
    optimizer: torch.optim.Optimizer, model: nn.Module, tensors: Mapping[str, Tensor], state: Mapping[str, Any]
) -> None:
    """Put a saved state into an optimizer that was built for the same parameters.

    Raises:
        CheckpointError: if the parameters of the groups are not the saved ones.
    """
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    parameters = dict(model.named_parameters())
    present = [names[id(p)] for group in optimizer.param_groups for p in group["params"]]
    saved = [name for group in state["groups"] for name in group["params"]]
    if present != saved:
        changed = sorted(set(present) ^ set(saved))[:4]
        raise CheckpointError(f"the optimizer's parameters are not the saved ones; they differ in {changed}.")
    position = {name: index for index, name in enumerate(present)}
    entries: dict[int, dict[str, Any]] = {}
    for name, value in [*tensors.items(), *state["values"].items()]:
        parameter, _, key = name.rpartition("/")
        if isinstance(value, Tensor) and value.shape == parameters[parameter].shape:
            # Files are contiguous; a fused optimizer wants moments that lie in memory as their parameter does.
            value = torch.empty_like(parameters[parameter], dtype=value.dtype, device=value.device).copy_(value)
        entries.setdefault(position[parameter], {})[key] = value
    groups = []
    first = 0
    for own, group in zip(optimizer.param_groups, state["groups"], strict=True):
        count = len(own["params"])
        # JSON has no tuples; the optimizer's own values tell where one belongs.
        restored = {key: tuple(value) if isinstance(own.get(key), tuple) else value for key, value in group.items()}
        # How it runs, not what it computes: as this run says.
        how = {key: own[key] for key in _IMPLEMENTATIONS if key in own}
        groups.append({**restored, **how, "params": list(range(first, first + count))})
        first += count
    optimizer.load_state_dict({"state": entries, "param_groups": groups})
