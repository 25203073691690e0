"""Optimizers by config string, and the schedule's hand on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from adperception.engine.schedules import ScheduleValues
from adperception.located_dict import location_of
from adperception.registry import OPTIMIZERS, build

__all__ = ["apply_schedule", "build_optimizer"]

# AdamW decays every parameter it is given by ``p *= 1 - lr * weight_decay`` before the Adam step, batch norm included:
# the decoupled decay that the one-cycle recipe of AD-L-JEPA asks for.
OPTIMIZERS.register_module(name="AdamW", module=torch.optim.AdamW)
OPTIMIZERS.register_module(name="Adam", module=torch.optim.Adam)
OPTIMIZERS.register_module(name="SGD", module=torch.optim.SGD)


def build_optimizer(config: Mapping[str, Any], model: nn.Module) -> torch.optim.Optimizer:
    """An optimizer over every parameter of ``model`` that requires a gradient.

    Raises:
        ValueError: for an unknown type or option, a missing ``lr``, or a model without trainable parameters.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError(f"{type(model).__name__} has no trainable parameter.")
    if "lr" not in config:
        raise ValueError(f'{location_of(config, "type")}optimizer needs "lr", the (peak) learning rate.')
    optimizer: torch.optim.Optimizer = build(OPTIMIZERS, config, params=parameters)
    return optimizer


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
