"""SAM, sharpness-aware minimisation: the gradient of the worst point nearby.

Foret, Kleiner, Mobahi, Neyshabur, "Sharpness-Aware Minimization for Efficiently Improving Generalization", ICLR 2021,
arXiv 2010.01412.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.optim import Optimizer

from adperception.optim._closure import Closure, evaluate, required, restored, with_gradient
from adperception.optim._wrapper import OptimizerWrapper

__all__ = ["SAM"]


class SAM(OptimizerWrapper):
    """A step of the base optimizer at x, with the gradient taken at x + e.

    ``e = rho * g(x) / ||g(x)||_2``, the norm over all parameters of all groups; then ``base.step()`` from ``g(x + e)``.
    In words: go uphill by ``rho``, look at the slope there, come back, step with that slope. The closure is called
    twice; with ``rho = 0`` once, and the step is the base optimizer's.

    The base optimizer's weight decay is no part of e. Running statistics of batch norm see both passes. Parameters
    without a gradient are neither moved nor counted in the norm. Gradients have to be dense.

    ``state_dict()`` is the base optimizer's: SAM has no state of its own.

    Args:
        base: the optimizer that makes the step.
        rho: radius (length of e), at least 0; 0.05 as in the paper.
        first_pass: makes a context manager for the first of the two passes. With DistributedDataParallel,
            ``first_pass=model.no_sync`` gives every process an e of its own ("m-sharpness" of the paper) and saves one
            of two all-reduces.

    Raises:
        ValueError: for a ``rho`` that is negative or not finite.
    """

    def __init__(
        self,
        base: Optimizer,
        rho: float = 0.05,
        first_pass: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        if not (math.isfinite(rho) and rho >= 0):
            raise ValueError(f"SAM: rho is a radius, finite and at least 0; got {rho}.")
        super().__init__(base)
        self.rho = rho
        self.first_pass = first_pass

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Any:
        """One step.

        Args:
            closure: zeroes the gradients, computes the loss, calls ``backward`` and returns the loss; called twice and
                on the same mini-batch.

        Returns:
            The loss at x.

        Raises:
            ValueError: without a closure.
        """
        closure = required(closure, "SAM")
        with self.first_pass() if self.rho > 0 else nullcontext():
            loss = evaluate(closure)
        if self.rho > 0:
            parameters, gradients = with_gradient(self.trainable())
            with restored(parameters):
                if parameters:
                    self._climb(gradients)
                    torch._foreach_add_(parameters, gradients)
                evaluate(closure)
        self.base.step()
        return loss

    def _climb(self, gradients: list[torch.Tensor]) -> None:
        """Turn the gradients into e, in place: the second pass zeroes them anyway."""
        norm = torch.nn.utils.get_total_norm(gradients)
        # In half precision the smallest norm would round to zero.
        norm = norm.to(torch.promote_types(norm.dtype, torch.float32))
        scale = self.rho / norm.clamp_min(1e-12)
        for device in {g.device for g in gradients}:
            torch._foreach_mul_([g for g in gradients if g.device == device], scale.to(device))
