"""Batch normalisation over active sites."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["SparseBatchNorm1d"]


class SparseBatchNorm1d(nn.BatchNorm1d):
    """``BatchNorm1d`` over the N active sites, also for frames that hold hardly any.

    Batch statistics need two sites. With fewer, the running statistics normalise and stay as they are, so that one
    empty frame neither stops a run nor leaves a parameter without a gradient.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``(N, C)``."""
        if self.training and len(input) < 2:
            return F.batch_norm(
                input, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
            )
        return super().forward(input)
