"""Optimizers by config string, and the schedule's hand on them."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from adperception.engine.schedules import ScheduleValues
from adperception.located_dict import location_of
from adperception.registry import OPTIMIZERS, build

__all__ = ["apply_schedule", "build_optimizer", "can_mask_steps", "masked_step"]

_IMPLEMENTATIONS = ("fused", "foreach", "capturable", "differentiable")

# AdamW decays every parameter it is given by ``p *= 1 - lr * weight_decay`` before the Adam step, batch norm included:
# the decoupled decay that the one-cycle recipe of AD-L-JEPA asks for.
OPTIMIZERS.register_module(name="AdamW", module=torch.optim.AdamW)
OPTIMIZERS.register_module(name="Adam", module=torch.optim.Adam)
OPTIMIZERS.register_module(name="SGD", module=torch.optim.SGD)


def build_optimizer(config: Mapping[str, Any], model: nn.Module) -> torch.optim.Optimizer:
    """An optimizer over every parameter of ``model`` that requires a gradient.

    On a GPU it is the fused one, where there is one, unless the config says how it is to run.

    Raises:
        ValueError: for an unknown type or option, a missing ``lr``, or a model without trainable parameters.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError(f"{type(model).__name__} has no trainable parameter.")
    if "lr" not in config:
        raise ValueError(f'{location_of(config, "type")}optimizer needs "lr", the (peak) learning rate.')
    how: dict[str, bool] = {}
    if all(parameter.is_cuda for parameter in parameters) and not any(name in config for name in _IMPLEMENTATIONS):
        options = inspect.signature(OPTIMIZERS.find(config)).parameters
        how = {"fused": True} if "fused" in options else {}
    optimizer: torch.optim.Optimizer = build(OPTIMIZERS, config, params=parameters, **how)
    return optimizer


def can_mask_steps(optimizer: torch.optim.Optimizer) -> bool:
    """Whether ``masked_step`` works: torch's fused optimizers look at a flag on the device themselves."""
    supported = bool(getattr(optimizer, "_step_supports_amp_scaling", False))
    return supported and all(group.get("fused") for group in optimizer.param_groups)


def masked_step(optimizer: torch.optim.Optimizer, applied: Tensor) -> None:
    """A step that leaves parameters, moments and step counters as they are, to the bit, where ``applied`` is false.

    An optimizer's very first step must not be masked: SGD would take its momentum from memory that nobody has written.

    Args:
        optimizer: one that ``can_mask_steps``.
        applied: scalar boolean on the parameters' device.
    """
    # The protocol that torch.amp.GradScaler uses.
    fused: Any = optimizer
    fused.grad_scale, fused.found_inf = None, applied.logical_not().float()
    try:
        optimizer.step()
    finally:
        del fused.grad_scale, fused.found_inf


def apply_schedule(optimizer: torch.optim.Optimizer, values: ScheduleValues) -> None:
    """Set learning rate and momentum of every parameter group."""
    for group in optimizer.param_groups:
        group["lr"] = values.learning_rate
        if values.momentum is None:
            continue
        if "betas" in group:
            group["betas"] = (values.momentum, group["betas"][1])
        else:
            group["momentum"] = values.momentum
