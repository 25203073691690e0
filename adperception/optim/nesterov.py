"""Nesterov's momentum with the gradient taken where the momentum leads: the local step of EAMSGD.

Zhang, Choromanska, LeCun, "Deep learning with Elastic Averaging SGD", NIPS 2015, arXiv 1412.6651; Sutskever, Martens,
Dahl, Hinton, "On the importance of initialization and momentum in deep learning", ICML 2013.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import ParamsT

from adperception.optim._closure import Closure, evaluate, required, restored, with_gradient

__all__ = ["NesterovMomentum"]


class NesterovMomentum(Optimizer):
    """``v <- momentum * v - lr * g(x + momentum * v)``, ``x <- x + v``.

    In words: look ahead along the momentum, take the gradient there, and go from the old point.
    ``torch.optim.SGD(nesterov=True)`` keeps ``x + momentum * v`` as its parameters instead, so that no closure is
    needed; the two differ as soon as something else moves the parameters, as the pull of EAMSGD does. Here parameters
    are the x of the equation, and what moves them leaves v alone.

    State per parameter: ``momentum_buffer``, the v above. A parameter without a gradient keeps its value and its v.

    Args:
        params: parameters or parameter groups.
        lr: learning rate, at least 0.
        momentum: in [0, 1).
        weight_decay: L2 penalty, at least 0; its gradient is taken at the look-ahead too.

    Raises:
        ValueError: for an option out of its range.
    """

    def __init__(self, params: ParamsT, lr: float, momentum: float = 0.9, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As any optimizer.

        Raises:
            ValueError: for an option out of its range.
        """
        options = {**self.defaults, **param_group}
        for name in ("lr", "weight_decay"):
            if not (math.isfinite(options[name]) and options[name] >= 0):
                raise ValueError(f"NesterovMomentum: {name} has to be finite and at least 0; got {options[name]}.")
        if not 0 <= options["momentum"] < 1:
            raise ValueError(f"NesterovMomentum: momentum has to be in [0, 1); got {options['momentum']}.")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """One step.

        Args:
            closure: zeroes the gradients, computes the loss, calls ``backward`` and returns the loss; called once.

        Returns:
            The loss at the look-ahead.

        Raises:
            ValueError: without a closure.
        """
        closure = required(closure, "NesterovMomentum")
        with restored([p for group in self.param_groups for p in group["params"] if p in self.state]):
            for group in self.param_groups:
                moving = [p for p in group["params"] if p in self.state]
                if moving:
                    torch._foreach_add_(moving, self._velocities(moving), alpha=group["momentum"])
            loss = evaluate(closure)
            for group in self.param_groups:
                parameters, gradients = with_gradient(group["params"])
                if parameters:
                    self._accelerate(group, parameters, gradients)
        for group in self.param_groups:
            parameters, _ = with_gradient(group["params"])
            if parameters:
                torch._foreach_add_(parameters, self._velocities(parameters))
        return loss

    def _accelerate(self, group: dict[str, Any], parameters: list[Tensor], gradients: list[Tensor]) -> None:
        """The new v, while the parameters are at the look-ahead."""
        if group["weight_decay"] > 0:
            gradients = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
        for parameter in parameters:
            if parameter not in self.state:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        velocities = self._velocities(parameters)
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, gradients, alpha=-float(group["lr"]))

    def _velocities(self, parameters: list[Tensor]) -> list[Tensor]:
        return [self.state[p]["momentum_buffer"] for p in parameters]
