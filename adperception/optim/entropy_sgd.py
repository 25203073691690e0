"""Entropy-SGD: steps towards wide valleys, found by Langevin dynamics around the current point.

Chaudhari, Choromanska, Soatto, LeCun, Baldassi, Borgs, Chayes, Sagun, Zecchina, "Entropy-SGD: Biasing Gradient Descent
Into Wide Valleys", ICLR 2017, arXiv 1611.01838.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from adperception.optim._closure import Closure, evaluate, required, restored
from adperception.optim._noise import Noise
from adperception.optim._wrapper import OptimizerWrapper

__all__ = ["EntropySGD"]


class EntropySGD(OptimizerWrapper):
    """A step of the base optimizer along ``x - mu``, where mu is a mean of Langevin steps that start at x.

    From ``x' = mu = x``, L times:

        ``x' <- x' - lr' * (g(x') + wd' * x' - gamma * (x - x')) + noise * sqrt(2 * lr') * N(0, 1)``,
        ``mu <- mean_decay * mu + (1 - mean_decay) * x'``;

    then ``base.step()`` at x with the gradient ``x - mu``, or ``gamma * (x - mu)``, which is the gradient of the local
    entropy as the paper has it; the original release leaves gamma to the learning rate. ``gamma(t) = min(gamma_max,
    gamma0 * (1 + gamma_growth)^t)`` for step t = 0, 1, .. In words: explore the surroundings, held back by a spring
    that stiffens during training, and move towards the mean of what was found.

    The base optimizer's learning rate belongs to the outer step (1 moves x to mu, without momentum and gamma), its
    weight decay acts on x. A parameter without a gradient in an inner step stays where it is in that step.

    ``state_dict()``: the base optimizer's, and under ``"EntropySGD"`` the steps done and the state of the noise
    generator. Nothing is kept of the inner steps.

    Args:
        base: the optimizer that makes the outer step.
        inner_steps: L, how often the closure is called per step.
        inner_lr: lr', learning rate of the inner steps.
        noise: amplitude of the Langevin noise (the paper's epsilon), at least 0.
        gamma0: stiffness of the spring at the start, more than 0.
        gamma_growth: its growth per step, at least 0.
        gamma_max: its cap, at least ``gamma0``.
        mean_decay: in [0, 1); the paper's alpha.
        inner_weight_decay: wd', at least 0.
        outer_scaled_by_gamma: whether the outer gradient is multiplied by gamma.
        seed: of the noise. Workers with parameters of their own should have different ones. Under
            DistributedDataParallel all need the same: mu is not averaged, so other noise would drive them apart.

    Raises:
        ValueError: for an option out of its range.
    """

    def __init__(
        self,
        base: Optimizer,
        inner_steps: int = 20,
        inner_lr: float = 0.1,
        noise: float = 1e-4,
        gamma0: float = 0.5,
        gamma_growth: float = 1e-4,
        gamma_max: float = 2.38,
        mean_decay: float = 0.75,
        inner_weight_decay: float = 0.0,
        outer_scaled_by_gamma: bool = False,
        seed: int = 0,
    ) -> None:
        if inner_steps < 1:
            raise ValueError(f"EntropySGD: inner_steps has to be at least 1; got {inner_steps}.")
        if not (math.isfinite(inner_lr) and inner_lr > 0):
            raise ValueError(f"EntropySGD: inner_lr has to be finite and more than 0; got {inner_lr}.")
        for name, value in {
            "noise": noise,
            "gamma_growth": gamma_growth,
            "inner_weight_decay": inner_weight_decay,
        }.items():
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"EntropySGD: {name} has to be finite and at least 0; got {value}.")
        if not 0 < gamma0 <= gamma_max < math.inf:
            raise ValueError(
                f"EntropySGD: gamma0 has to be more than 0 and at most gamma_max, which is finite; got gamma0={gamma0} "
                f"and gamma_max={gamma_max}."
            )
        if not 0 <= mean_decay < 1:
            raise ValueError(f"EntropySGD: mean_decay has to be in [0, 1); got {mean_decay}.")
        super().__init__(base)
        self.inner_steps = inner_steps
        self.inner_lr = inner_lr
        self.noise_amplitude = noise
        self.gamma0 = gamma0
        self.gamma_growth = gamma_growth
        self.gamma_max = gamma_max
        self.mean_decay = mean_decay
        self.inner_weight_decay = inner_weight_decay
        self.outer_scaled_by_gamma = outer_scaled_by_gamma
        self.steps_done = 0
        self.noise = Noise(seed, self.param_groups[0]["params"][0].device)

    @property
    def gamma(self) -> float:
        """Stiffness of the spring in the next step."""
        # Compared as logarithms: the power overflows in long runs.
        if self.steps_done * math.log1p(self.gamma_growth) >= math.log(self.gamma_max / self.gamma0):
            return self.gamma_max
        return self.gamma0 * float((1 + self.gamma_growth) ** self.steps_done)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """One step.

        Args:
            closure: zeroes the gradients, computes the loss, calls ``backward`` and returns the loss; called
                ``inner_steps`` times. A new mini-batch in each call is what the paper means; the same one works too.

        Returns:
            The loss at x (of the first call).

        Raises:
            ValueError: without a closure.
        """
        closure = required(closure, "EntropySGD")
        parameters = self.trainable()
        losses = []
        moved: set[Tensor] = set()
        with restored(parameters) as start:
            mean = [x.clone() for x in start]
            for _ in range(self.inner_steps):
                losses.append(evaluate(closure))
                active = [
                    (p, p.grad, x, mu) for p, x, mu in zip(parameters, start, mean, strict=True) if p.grad is not None
                ]
                if active:
                    self._inner_step(*(list(column) for column in zip(*active, strict=True)))
                moved.update(p for p, *_ in active)
        for parameter, mu in zip(parameters, mean, strict=True):
            if parameter in moved:
                gradient = parameter - mu
                parameter.grad = gradient.mul_(self.gamma) if self.outer_scaled_by_gamma else gradient
        self.base.step()
        self.steps_done += 1
        return losses[0]

    def _inner_step(
        self, parameters: list[Tensor], gradients: list[Tensor], start: list[Tensor], mean: list[Tensor]
    ) -> None:
        torch._foreach_add_(gradients, torch._foreach_sub(parameters, start), alpha=self.gamma)
        if self.inner_weight_decay > 0:
            torch._foreach_add_(gradients, parameters, alpha=self.inner_weight_decay)
        torch._foreach_add_(parameters, gradients, alpha=-self.inner_lr)
        if self.noise_amplitude > 0:
            scale = self.noise_amplitude * math.sqrt(2 * self.inner_lr)
            torch._foreach_add_(parameters, self.noise.like(parameters), alpha=scale)
        torch._foreach_lerp_(mean, parameters, 1 - self.mean_decay)

    def own_state(self) -> dict[str, Any]:
        """Steps done and the noise generator's state."""
        return {"steps_done": self.steps_done, "noise": self.noise.state()}

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Take over what ``own_state`` gave."""
        self.noise.load_state(state["noise"])
        self.steps_done = state["steps_done"]
