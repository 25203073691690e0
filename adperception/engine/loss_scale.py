"""The factor that keeps small gradients representable in float16, adapted without asking the GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

__all__ = ["LossScale"]


class LossScale:
    """A dynamic loss scale with the rule and the numbers of ``torch.amp.GradScaler``.

    A step whose gradients overflow is left out and halves the scale; 2000 steps without one double it. All decisions
    are made on the device, so no step waits for them (``GradScaler.step`` reads a flag in every step).

    Args:
        device: where the gradients are.

    Attributes:
        scale: scalar float32, a power of two.
        steps_since_change: scalar int32, steps without an overflow since the scale last changed.
    """

    INITIAL: ClassVar[float] = 65536.0
    GROWTH: ClassVar[float] = 2.0
    BACKOFF: ClassVar[float] = 0.5
    GROWTH_INTERVAL: ClassVar[int] = 2000

    def __init__(self, device: torch.device) -> None:
        self.scale = torch.full((), self.INITIAL, dtype=torch.float32, device=device)
        self.steps_since_change = torch.zeros((), dtype=torch.int32, device=device)

    def scaled(self, loss: Tensor) -> Tensor:
        """The loss to call ``backward`` on."""
        return loss * self.scale

    @torch.no_grad()
    def unscale_(self, gradients: Sequence[Tensor]) -> None:
        """Divide accumulated gradients by the scale, in place; an overflow stays infinite or NaN."""
        if gradients:
            torch._foreach_mul_(list(gradients), self.scale.double().reciprocal().float())

    @torch.no_grad()
    def update(self, overflowed: Tensor, applied: Tensor) -> None:
        """Adapt the scale after a step.

        Args:
            overflowed: scalar boolean: the step was left out because its gradients were not finite.
            applied: scalar boolean: the parameters changed. If neither (the loss itself was not finite), the scale is
                not to blame and stays.
        """
        steps = torch.where(overflowed, 0, self.steps_since_change + applied.int())
        larger = self.scale * self.GROWTH
        grows = (steps == self.GROWTH_INTERVAL) & torch.isfinite(larger)
        self.scale = torch.where(overflowed, self.scale * self.BACKOFF, torch.where(grows, larger, self.scale))
        self.steps_since_change = torch.where(steps == self.GROWTH_INTERVAL, 0, steps)

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {"scale": self.scale, "steps_since_change": self.steps_since_change}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """What ``state`` gave."""
        self.scale = tensors["scale"].to(self.scale)
        self.steps_since_change = tensors["steps_since_change"].to(self.steps_since_change)
