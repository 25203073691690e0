"""Coherence: two views of one radar frame must see the same classes at the same ranges."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

__all__ = ["view_coherence"]


def view_coherence(range_doppler: Tensor, range_angle: Tensor) -> Tensor:
    """Mean squared difference of the range profiles of two views.

    A profile is, per class and range row, the largest probability over the columns (Doppler or azimuth). Rows of the
    range-Doppler view are reversed first, as its row 0 is near.

    Args:
        range_doppler: ``(B, classes, range, Doppler)`` logits, row 0 near.
        range_angle: ``(B, classes, range, azimuth)`` logits, row 0 far.

    Source: Ouaknine et al., "Multi-View Radar Semantic Segmentation", ICCV 2021, equation 4.
    """
    doppler_profile = range_doppler.softmax(dim=1).amax(dim=-1).flip(-1)
    angle_profile = range_angle.softmax(dim=1).amax(dim=-1)
    return F.mse_loss(doppler_profile, angle_profile)
