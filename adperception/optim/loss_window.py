"""The training losses of late."""

from __future__ import annotations

import math
from collections import deque

import torch
from torch import Tensor

__all__ = ["LossWindow"]


class LossWindow:
    """Mean of the last losses, or of all since the last round. A window that is not full yet is not padded.

    Args:
        length: how many; ``None``: all since ``clear`` (which ``SyncOptimizer`` calls after each round).
    """

    def __init__(self, length: int | None = None) -> None:
        self._losses: deque[Tensor] = deque(maxlen=length)

    @property
    def length(self) -> int | None:
        """How many losses count; ``None``: all since the last round."""
        return self._losses.maxlen

    def add(self, loss: Tensor | float) -> None:
        """Note the loss of one step; nothing waits for the device."""
        # ``data`` is what ``detach`` gives, in half the time: this is done in every step.
        self._losses.append(loss.data if isinstance(loss, Tensor) else torch.tensor(loss, dtype=torch.float64))

    def mean(self) -> float:
        """The mean; NaN if there is no loss."""
        if not self._losses:
            return math.nan
        return float(torch.stack([loss.double().reshape(()) for loss in self._losses]).mean())

    def round_done(self) -> None:
        """Begin anew where the window is "since the last round"."""
        if self.length is None:
            self.clear()

    def clear(self) -> None:
        """Forget all losses."""
        self._losses.clear()

    def state(self) -> Tensor:
        """(n,) float64, the losses in the window."""
        losses = [loss.detach().double().cpu().reshape(()) for loss in self._losses]
        return torch.stack(losses) if losses else torch.zeros(0, dtype=torch.float64)

    def restore(self, state: Tensor) -> None:
        """What ``state`` gave."""
        self._losses.clear()
        self._losses.extend(state.double().unbind())
