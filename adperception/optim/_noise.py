"""Noise from a generator of its own, which travels with checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Noise:
    """Standard normal numbers that depend on the seed and on nothing else that draws.

    Args:
        seed: of the generator.
        device: where to draw.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.generator = torch.Generator(device).manual_seed(seed)

    def like(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """A tensor of standard normal numbers for each tensor, with its shape, dtype and device."""
        device = self.generator.device
        return [
            torch.empty(t.shape, dtype=t.dtype, device=device).normal_(generator=self.generator).to(t.device)
            for t in tensors
        ]

    def state(self) -> Tensor:
        """The generator's state, bytes on the CPU."""
        return self.generator.get_state()

    def load_state(self, state: Tensor) -> None:
        """Continue where ``state`` was taken.

        Raises:
            ValueError: if it was taken on another kind of device.
        """
        own = self.generator.get_state()
        if state.shape != own.shape:
            raise ValueError(
                f"the saved noise generator's state has {state.numel()} bytes, one on {self.generator.device} has "
                f"{own.numel()}: it was saved on another kind of device; resume there, or load only the base optimizer."
            )
        self.generator.set_state(state.cpu())
