"""Smooth L1 on box codes, blind to headings turned by half a turn: the box loss of anchor heads."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["sine_smooth_l1"]


def sine_smooth_l1(prediction: Tensor, target: Tensor, beta: float = 1 / 9) -> Tensor:
    """Quadratic below ``beta``, linear above; the last column enters as ``sin(prediction - target)``.

    A box turned by half a turn covers the same space, so the box loss does not see it; telling front from back is
    left to the direction classifier.

    Args:
        prediction: ``(N, 7)`` box codes, the heading difference in radians last.
        target: ``(N, 7)``.
        beta: where the loss turns linear.

    Returns:
        ``(N, 7)``, not reduced.

    Source: Yan et al., "SECOND: Sparsely Embedded Convolutional Detection", Sensors 2018, section 3.2.
    """
    sine = torch.sin(prediction[:, 6:] - target[:, 6:])
    difference = torch.cat([prediction[:, :6] - target[:, :6], sine], dim=1)
    return F.smooth_l1_loss(difference, torch.zeros_like(difference), reduction="none", beta=beta)
