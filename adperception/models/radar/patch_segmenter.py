"""Stage C of ERASE-Net: the shape of an object in both views, and what it is.

Shape legend: N windows, C classes without background, h x w window cells, A azimuth columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adperception.losses.full_precision import in_full_precision
from adperception.models.radar.wrapped_convolution import ConvNorm, upsample_to

__all__ = ["Echoes", "PatchScores", "PatchSegmenter", "PatchUNet", "lift"]


@dataclass(frozen=True)
class PatchScores:
    """What the segmenter says about N windows.

    Attributes:
        range_doppler: ``(N, 1 + C, h, w)`` logits, background first; row 0 far.
        range_angle: ``(N, 1 + C, h, A)`` logits.
        objects: ``(N, 1 + C)`` logits of what the object is, background (a false alarm) first; ``None`` without the
            object class head.
    """

    range_doppler: Tensor
    range_angle: Tensor
    objects: Tensor | None


class PatchUNet(nn.Module):
    """A U-net of three levels whose columns wrap around.

    Args:
        in_channels: channels of a patch.
        outputs: classes with background.
        widths: channels of the three levels.
    """

    def __init__(self, in_channels: int, outputs: int, widths: Sequence[int]) -> None:
        super().__init__()
        w0, w1, w2 = widths
        self.e0 = nn.Sequential(ConvNorm(in_channels, w0), ConvNorm(w0, w0))
        self.e1 = nn.Sequential(ConvNorm(w0, w1, stride=(2, 2)), ConvNorm(w1, w1))
        self.e2 = nn.Sequential(ConvNorm(w1, w2, stride=(2, 2)), ConvNorm(w2, w2))
        self.l1 = ConvNorm(w2 + w1, w1)
        self.l0 = ConvNorm(w1 + w0, w0)
        self.classify = nn.Conv2d(w0, outputs, 1)

    def forward(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Logits ``(N, outputs, h, w)``, in float32 at least, and the deepest features."""
        e0 = self.e0(patches.contiguous(memory_format=torch.channels_last))
        e1 = self.e1(e0)
        deepest = self.e2(e1)
        l1 = self.l1(torch.cat([upsample_to(deepest, e1), e1], dim=1))
        l0 = self.l0(torch.cat([upsample_to(l1, e0), e0], dim=1))
        return in_full_precision(self.classify(l0)), deepest


@dataclass(frozen=True)
class Echoes:
    """Where the power of every range-Doppler cell of N windows comes from.

    Attributes:
        azimuths: ``(N, h, w)`` int64 azimuth column of the strongest echo.
        levels: ``(N, h, w)`` its normalised power.
    """

    azimuths: Tensor
    levels: Tensor


class PatchSegmenter(nn.Module):
    """One U-net per view, and a linear layer on the deepest features of both that says what the object is.

    With ``lift`` the range-angle network also sees what the other one found: every range-Doppler cell's foreground
    probability, and its power, at the azimuth of its strongest echo (of cells that meet there, the largest value).
    That is how the labels of both views hang together: one detection is one range-Doppler cell with one azimuth.

    Args:
        range_doppler_channels: channels of the range-Doppler patches.
        range_angle_channels: channels of the range-angle patches.
        class_count: C.
        widths: channels of the U-nets' levels.
        class_head: whether there is the linear layer.
        lift: see above.
    """

    def __init__(
        self,
        range_doppler_channels: int,
        range_angle_channels: int,
        class_count: int,
        widths: Sequence[int],
        class_head: bool,
        lift: bool,
    ) -> None:
        super().__init__()
        self.lift = lift
        self.range_doppler = PatchUNet(range_doppler_channels, class_count + 1, widths)
        self.range_angle = PatchUNet(range_angle_channels + (2 if lift else 0), class_count + 1, widths)
        self.class_head = nn.Linear(2 * widths[-1], class_count + 1) if class_head else None

    def forward(self, range_doppler: Tensor, range_angle: Tensor, echoes: Echoes | None = None) -> PatchScores:
        """Logits of patches ``(N, P, h, w)`` and ``(N, Q, h, A)``; ``echoes`` are needed with ``lift``."""
        doppler_logits, doppler_features = self.range_doppler(range_doppler)
        if self.lift:
            assert echoes is not None
            found = 1 - doppler_logits.softmax(dim=1)[:, 0]
            lifted = [lift(v, echoes.azimuths, range_angle.shape[3]) for v in (found, echoes.levels)]
            range_angle = torch.cat([range_angle, *(v[:, None] for v in lifted)], dim=1)
        angle_logits, angle_features = self.range_angle(range_angle)
        objects: Tensor | None = None
        if self.class_head is not None:
            features = torch.cat([doppler_features.mean(dim=(2, 3)), angle_features.mean(dim=(2, 3))], dim=1)
            objects = in_full_precision(self.class_head(features))
        return PatchScores(doppler_logits, angle_logits, objects)


def lift(values: Tensor, azimuths: Tensor, columns: int) -> Tensor:
    """Largest of a row's values ``(N, h, w)`` that fall into each azimuth column, at least 0; ``(N, h, columns)``."""
    empty = values.new_zeros(*values.shape[:2], columns)
    return empty.scatter_reduce(2, azimuths, values, "amax")
