"""LPF-SGD: stochastic gradients of the loss after a low-pass filter.

Bisla, Wang, Choromanska, "Low-Pass Filtering SGD for Recovering Flat Optima in the Deep Learning Optimization
Landscape", AISTATS 2022, arXiv 2201.08025.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from adperception.optim._closure import Closure, evaluate, required, restored, with_gradient
from adperception.optim._noise import Noise
from adperception.optim._wrapper import OptimizerWrapper

__all__ = ["LPFSGD"]


class LPFSGD(OptimizerWrapper):
    """A step of the base optimizer with a gradient that is averaged over Gaussian perturbations of the parameters.

    For each of M micro-batches of the batch: ``g_i`` is the gradient of micro-batch i at ``x + tau_i``; then
    ``base.step()`` at x from ``mean_i g_i``. ``tau_i`` is normal with mean 0 and, in each output filter w (``w[k]`` of
    a tensor of two or more dimensions; the whole tensor otherwise), standard deviation ``gamma(t) * ||w||_2``:

        ``gamma(t) = gamma0 * (1 + (growth - 1) * (1 - cos(pi * t / T)) / 2)``

    for step t = 0, 1, .. of T, and ``growth * gamma0`` from T on. In words: an estimate of the gradient of the loss
    convolved with a Gaussian, from as many samples as a plain step; the Gaussian widens during training.

    ``state_dict()``: the base optimizer's, and under ``"LPFSGD"`` the steps done and the state of the noise generator.

    Args:
        base: the optimizer that makes the step.
        total_steps: T, over which gamma grows.
        micro_batches: M, how often the closure is called per step.
        gamma0: gamma at the start, at least 0; with 0 there is no noise.
        growth: gamma at the end over gamma at the start (the paper's alpha); 1 for a constant gamma.
        seed: of the noise. Workers of distributed training should have different ones.

    Raises:
        ValueError: for an option out of its range.
    """

    def __init__(
        self,
        base: Optimizer,
        total_steps: int,
        micro_batches: int = 1,
        gamma0: float = 5e-4,
        growth: float = 15.0,
        seed: int = 0,
    ) -> None:
        if total_steps < 1:
            raise ValueError(f"LPFSGD: total_steps is the length of the training, at least 1; got {total_steps}.")
        if micro_batches < 1:
            raise ValueError(f"LPFSGD: micro_batches has to be at least 1; got {micro_batches}.")
        if not (math.isfinite(gamma0) and gamma0 >= 0):
            raise ValueError(f"LPFSGD: gamma0 has to be finite and at least 0; got {gamma0}.")
        if not (math.isfinite(growth) and growth >= 0):
            raise ValueError(f"LPFSGD: growth has to be finite and at least 0 (1 is constant); got {growth}.")
        super().__init__(base)
        self.total_steps = total_steps
        self.micro_batches = micro_batches
        self.gamma0 = gamma0
        self.growth = growth
        self.steps_done = 0
        self.noise = Noise(seed, self.param_groups[0]["params"][0].device)

    @property
    def gamma(self) -> float:
        """Standard deviation of the next step's noise over the norm of the filter."""
        done = min(self.steps_done / self.total_steps, 1.0)
        return self.gamma0 * (1 + (self.growth - 1) * (1 - math.cos(math.pi * done)) / 2)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """One step.

        Args:
            closure: called ``micro_batches`` times without arguments; each call takes the next micro-batch, zeroes the
                gradients, computes its mean loss, calls ``backward`` and returns the loss. Micro-batches weigh the
                same, so they should be of one size (``torch.tensor_split`` always gives as many as asked for).

        Returns:
            The mean of the losses (each at its perturbed point).

        Raises:
            ValueError: without a closure, or if it runs out of micro-batches (StopIteration).
        """
        closure = required(closure, "LPFSGD")
        parameters = self.trainable()
        gamma = self.gamma
        deviations = [gamma * norm for norm in _filter_norms(parameters)]
        losses = []
        carried: dict[Tensor, Tensor] = {}
        for index in range(self.micro_batches):
            with restored(parameters):
                if gamma > 0 and parameters:
                    noise = self.noise.like(parameters)
                    torch._foreach_mul_(noise, deviations)
                    torch._foreach_add_(parameters, noise)
                try:
                    losses.append(evaluate(closure))
                except StopIteration as end:
                    raise ValueError(
                        f"LPFSGD: the closure ran out of data at micro-batch {index} of {self.micro_batches}; split "
                        f"the batch with torch.tensor_split(batch, {self.micro_batches})."
                    ) from end
            if index < self.micro_batches - 1:
                _add(carried, *with_gradient(parameters))
        for parameter, gradient in carried.items():
            parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)
        _, gradients = with_gradient(parameters)
        if self.micro_batches > 1 and gradients:
            torch._foreach_div_(gradients, self.micro_batches)
        self.base.step()
        self.steps_done += 1
        return sum(losses) / self.micro_batches

    def own_state(self) -> dict[str, Any]:
        """Steps done and the noise generator's state."""
        return {"steps_done": self.steps_done, "noise": self.noise.state()}

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Take over what ``own_state`` gave."""
        self.noise.load_state(state["noise"])
        self.steps_done = state["steps_done"]


def _filter_norms(parameters: list[Tensor]) -> list[Tensor]:
    """L2 norms of the output filters, shaped to be multiplied with the parameters."""
    return [torch.linalg.vector_norm(p, dim=tuple(range(1, p.ndim)) or None, keepdim=True) for p in parameters]


def _add(carried: dict[Tensor, Tensor], parameters: list[Tensor], gradients: list[Tensor]) -> None:
    """Add to what is carried from one micro-batch to the next; copies, as the next pass writes into the gradients."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        if parameter in carried:
            carried[parameter].add_(gradient)
        else:
            carried[parameter] = gradient.clone()
