"""Normalisation of radar input: statistics of the training split, in buffers that travel with the weights."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from adperception.models.radar.seen import Seen
from adperception.structures import RadarFrame, RadarViews

__all__ = ["CubeNormalization", "ViewNormalization", "cube_decibels"]

_VIEWS = ("range_doppler", "range_angle", "angle_doppler")

# Minimum and maximum over all three splits ("tvt") of CARRADA's processed views, decibels: what published models use.
_CARRADA_TVT = {
    "range_doppler": (37.59535773996415, 119.08313902425246),
    "range_angle": (40.40928894952408, 103.80548746494114),
    "angle_doppler": (54.42604354196056, 105.79746676271202),
}
_CARRADA_CUBE = (32.145, 6.444)
"""Mean and standard deviation of 10 log10(X^2 + 1) over CARRADA's cubes, decibels."""

Preset = Literal["train", "carrada_tvt"]


def cube_decibels(magnitude: Tensor) -> Tensor:
    """``10 log10(X^2 + 1)`` of magnitudes."""
    return 10 * torch.log10(magnitude.square() + 1)


class _Normalization(nn.Module):
    """Buffers that are filled from training frames, from a preset, or by loading weights."""

    def __init__(self, source: Preset, buffers: dict[str, Tensor]) -> None:
        super().__init__()
        if source not in ("train", "carrada_tvt"):
            raise ValueError(
                f'normalization="{source}" must be "train" (from the training frames) or "carrada_tvt" (the published '
                "statistics of CARRADA)."
            )
        self.source = source
        self._known = Seen()
        for name, value in buffers.items():
            # NaN until the statistics are known, so that a model without them cannot pass for a good one.
            self.register_buffer(name, value if source != "train" else torch.full_like(value, torch.nan))

    def _check(self, value: Tensor) -> None:
        if torch.compiler.is_compiling():  # an export; the values cannot be looked at there
            return
        if self._known.is_new(value) and not bool(torch.isfinite(value).all()):
            self._known = Seen()
            raise ValueError(
                'this model has no normalisation statistics yet: normalization="train" takes them from the training '
                'frames at the start of a run. Load trained weights, or choose normalization="carrada_tvt".'
            )


class ViewNormalization(_Normalization):
    """``(x - minimum) / (maximum - minimum)`` per view, decibels to 0 .. 1 (MVRSS, section 2.1 of the protocol).

    Args:
        source: ``"train"`` or ``"carrada_tvt"``.
    """

    limits: Tensor

    def __init__(self, source: Preset = "train") -> None:
        super().__init__(source, {"limits": torch.tensor([_CARRADA_TVT[v] for v in _VIEWS], dtype=torch.float64)})

    def fit(self, frames: Iterable[RadarFrame]) -> None:
        """Take minimum and maximum over ``frames`` if they are to come from the training split."""
        if self.source != "train":
            return
        low, high = np.full(3, np.inf), np.full(3, -np.inf)
        for frame in frames:
            views = frame.views or RadarViews.processed(_cubes(frame))
            for number, name in enumerate(_VIEWS):
                view = getattr(views, name)
                low[number], high[number] = min(low[number], view.min()), max(high[number], view.max())
        _require_spread(low, high)
        self.limits.copy_(torch.from_numpy(np.stack([low, high], axis=1)))

    def forward(self, values: Tensor, view: Literal["range_doppler", "range_angle", "angle_doppler"]) -> Tensor:
        """Normalised decibels of one view, any shape."""
        self._check(self.limits)
        low, high = self.limits[_VIEWS.index(view)].to(values.dtype)
        normalised: Tensor = (values - low) / (high - low)
        return normalised


class CubeNormalization(_Normalization):
    """``(10 log10(X^2 + 1) - mean) / std`` for cubes.

    Args:
        source: ``"train"`` or ``"carrada_tvt"``.
    """

    moments: Tensor

    def __init__(self, source: Preset = "train") -> None:
        super().__init__(source, {"moments": torch.tensor(_CARRADA_CUBE, dtype=torch.float64)})

    def fit(self, frames: Iterable[RadarFrame]) -> None:
        """Take mean and standard deviation over ``frames`` if they are to come from the training split."""
        if self.source != "train":
            return
        count, total, squares = 0, 0.0, 0.0
        for frame in frames:
            decibels = cube_decibels(torch.from_numpy(_cubes(frame)[-1])).double()
            count += decibels.numel()
            total += float(decibels.sum())
            squares += float(decibels.square().sum())
        mean = total / max(count, 1)
        std = float(np.sqrt(max(squares / max(count, 1) - mean**2, 0.0)))
        _require_spread(np.array([0.0]), np.array([std]))
        self.moments.copy_(torch.tensor([mean, std], dtype=torch.float64))

    def forward(self, decibels: Tensor) -> Tensor:
        """Normalised values of ``10 log10(X^2 + 1)``, any shape."""
        self._check(self.moments)
        mean, std = self.moments.to(decibels.dtype)
        normalised: Tensor = (decibels - mean) / std
        return normalised


def _cubes(frame: RadarFrame) -> np.ndarray:
    if frame.cubes is None:
        raise ValueError(
            f'frame {frame.frame_id} was read without its cube, which the normalisation needs. Add "cubes" to the '
            "dataset's load= option."
        )
    return frame.cubes


def _require_spread(low: np.ndarray, high: np.ndarray) -> None:
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (high > low).all()):
        raise ValueError(
            f"the training frames give no normalisation: values lie between {low.tolist()} and {high.tolist()}. Check "
            "that the dataset has frames and that they are not constant or NaN."
        )
