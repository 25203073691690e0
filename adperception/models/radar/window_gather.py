"""Stage B of ERASE-Net: the part of the cubes around each candidate, as two small patches.

Everything here is in the cube's orientation, row 0 far. Shape legend: B frames, T moments, N windows, h x w rows and
Doppler columns of a window, R x A x D cube cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

__all__ = ["PatchInput", "WindowCells", "WindowSize", "Windows", "gather_map", "gather_patches", "paste_maximum"]

PatchInput = Literal["light", "channels", "projection"]


@dataclass(frozen=True)
class WindowSize:
    """How much of a cube is kept around a candidate, in cells.

    Attributes:
        rows: h, range rows: from ``rows // 2`` above the centre on.
        dopplers: w, Doppler columns: from ``dopplers // 2`` left of the centre on.
        azimuth_gate: azimuth columns that go into the range-Doppler patch (one beam width).
        doppler_gate: Doppler columns left and right of the centre that go into the light range-angle patch.
    """

    rows: int
    dopplers: int
    azimuth_gate: int
    doppler_gate: int

    @classmethod
    def for_shape(cls, shape: tuple[int, int, int]) -> WindowSize:
        """Section 3.3 of the fact sheet (48 x 32 cells, 32 azimuth columns, +-6 Doppler columns of a 256 x 256 x 64
        cube), scaled to the cells of another cube with the same ranges and speeds."""
        rows, azimuths, dopplers = shape
        return cls(
            max(4, round(48 * rows / 256)),
            min(dopplers, max(4, round(32 * dopplers / 64))),
            max(1, azimuths // 8),
            max(1, round(6 * dopplers / 64)),
        )

    def check(self, shape: tuple[int, int, int]) -> None:
        """Raise ValueError if a cube of ``shape`` has fewer cells than this."""
        rows, azimuths, dopplers = shape
        limits = {
            "rows": (4, rows),
            "dopplers": (4, dopplers),
            "azimuth_gate": (1, azimuths),
            "doppler_gate": (0, (dopplers - 1) // 2),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ValueError(
                    f"ERASENet: window {name}={getattr(self, name)} must lie between {low} and {high} for cubes of "
                    f"{rows} x {azimuths} x {dopplers} cells (range, azimuth, Doppler)."
                )


@dataclass(frozen=True)
class Windows:
    """N windows of a batch.

    Attributes:
        frames: ``(N,)`` int64, which of the B frames.
        rows: ``(N,)`` int64 range row of the centre.
        azimuths: ``(N,)`` int64 azimuth column from which most power comes.
        dopplers: ``(N,)`` int64 Doppler column of the centre.
        scores: ``(N, C)`` scores of the detector.
    """

    frames: Tensor
    rows: Tensor
    azimuths: Tensor
    dopplers: Tensor
    scores: Tensor

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True)
class WindowCells:
    """Which cells of the full maps a window covers.

    Attributes:
        frames: ``(N, 1, 1)``.
        rows: ``(N, h, 1)`` rows, clipped to the cube.
        dopplers: ``(N, 1, w)`` Doppler columns, wrapped.
        inside: ``(N, h, 1)`` boolean, whether the row lies in the cube.
    """

    frames: Tensor
    rows: Tensor
    dopplers: Tensor
    inside: Tensor

    @classmethod
    def of(cls, windows: Windows, size: WindowSize, shape: tuple[int, int, int]) -> WindowCells:
        """The cells of ``windows`` in cubes of ``shape``."""
        row = windows.rows[:, None] + _around(size.rows, windows.rows)
        inside = (row >= 0) & (row < shape[0])
        doppler = (windows.dopplers[:, None] + _around(size.dopplers, windows.rows)) % shape[2]
        return cls(
            windows.frames[:, None, None],
            row.clamp(0, shape[0] - 1)[:, :, None],
            doppler[:, None, :],
            inside[:, :, None],
        )


def _around(width: int, like: Tensor) -> Tensor:
    return torch.arange(width, device=like.device) - width // 2


def gather_patches(
    cubes: Tensor, windows: Windows, size: WindowSize, content: PatchInput
) -> tuple[Tensor, Tensor, Tensor]:
    """The power around each centre.

    ``"light"``: mean and maximum over the azimuth columns of one beam (range-Doppler patch) or over the Doppler columns
    near the centre (range-angle patch). ``"channels"``: every one of those azimuth columns, or of the window's Doppler
    columns, as a channel. ``"projection"``: means over the whole azimuth or Doppler axis, what detect-then-segment
    is meant to improve on.

    Args:
        cubes: ``(B, T, R, A, D)`` magnitudes.
        windows: N windows.
        size: their size.
        content: see above.

    Returns:
        Powers ``(N, P, h, w)`` and ``(N, Q, h, A)``, channels grouped by moment, and ``(N, h, 1)`` booleans: which rows
        lie in the cube. Rows outside repeat the border and are to be masked.
    """
    _, moments, range_bins, azimuth_bins, doppler_bins = cubes.shape
    cells = WindowCells.of(windows, size, (range_bins, azimuth_bins, doppler_bins))
    count, rows = len(windows), size.rows
    time = torch.arange(moments, device=cubes.device)[:, None]
    row = (cells.frames * moments + time) * range_bins + cells.rows.transpose(1, 2)  # (N, T, h)
    flat = cubes.reshape(-1)
    every_azimuth = torch.arange(azimuth_bins, device=cubes.device)
    every_doppler = torch.arange(doppler_bins, device=cubes.device)[:, None]

    def block(columns: Tensor) -> Tensor:
        """``(N, T, h, y, x)`` powers of the columns ``(N or 1, y, x)`` (azimuth * D + Doppler) of the rows."""
        # One index per cell: four times faster than an index per axis.
        index = row[..., None, None] * (azimuth_bins * doppler_bins) + columns[:, None, None]
        return flat.index_select(0, index.flatten()).view(index.shape).square()

    window_dopplers = cells.dopplers[:, 0]  # (N, w)
    # Whatever is reduced is the last axis but one, which is much faster than the last.
    if content == "projection":
        all_azimuths = every_azimuth[:, None] * doppler_bins + window_dopplers[:, None]
        all_dopplers = every_azimuth * doppler_bins + every_doppler
        range_doppler = block(all_azimuths).mean(3)[:, :, None]
        range_angle = block(all_dopplers[None]).mean(3)[:, :, None]
    else:
        beam = (windows.azimuths[:, None] + _around(size.azimuth_gate, windows.rows)) % azimuth_bins
        echo = block(beam[:, :, None] * doppler_bins + window_dopplers[:, None])
        if content == "light":
            step = torch.arange(-size.doppler_gate, size.doppler_gate + 1, device=cubes.device)
            near = (windows.dopplers[:, None] + step) % doppler_bins
            gated = block(every_azimuth * doppler_bins + near[:, :, None])
            range_doppler = torch.stack([echo.mean(3), echo.amax(3)], dim=2)
            range_angle = torch.stack([gated.mean(3), gated.amax(3)], dim=2)
        else:
            range_doppler = echo.transpose(2, 3)
            range_angle = block(every_azimuth * doppler_bins + window_dopplers[:, :, None]).transpose(2, 3)
    return (
        range_doppler.reshape(count, moments * range_doppler.shape[2], rows, size.dopplers),
        range_angle.reshape(count, moments * range_angle.shape[2], rows, azimuth_bins),
        cells.inside,
    )


def gather_map(maps: Tensor, cells: WindowCells, view: Literal["range_doppler", "range_angle"]) -> Tensor:
    """What the windows cover of per-frame maps; 0 in rows outside of them.

    Args:
        maps: ``(B, R, D)`` or ``(B, R, A)``, row 0 far.
        cells: of N windows.
        view: which of the two.

    Returns:
        ``(N, h, w)`` or ``(N, h, A)``.
    """
    columns = cells.dopplers if view == "range_doppler" else torch.arange(maps.shape[2], device=maps.device)
    return maps[cells.frames, cells.rows, columns] * cells.inside


def paste_maximum(
    patches: Tensor,
    cells: WindowCells,
    batch_size: int,
    rows: int,
    columns: int,
    view: Literal["range_doppler", "range_angle"],
) -> Tensor:
    """Lay non-negative patches on empty maps; where several cover a cell, the largest value stays.

    Args:
        patches: ``(N, C, h, w)`` or ``(N, C, h, A)``.
        cells: of the N windows.
        batch_size: B.
        rows: R.
        columns: D or A.
        view: which of the two.

    Returns:
        ``(B, C, R, D)`` or ``(B, C, R, A)``, row 0 far.
    """
    classes = patches.shape[1]
    column = cells.dopplers if view == "range_doppler" else torch.arange(columns, device=patches.device)[None, None]
    channel = torch.arange(classes, device=patches.device)[:, None, None]
    index = ((cells.frames[:, None] * classes + channel) * rows + cells.rows[:, None]) * columns + column[:, None]
    values = patches * cells.inside[:, None]
    maps = patches.new_zeros(batch_size * classes * rows * columns)
    maps = maps.scatter_reduce(0, index.expand_as(values).flatten(), values.flatten(), "amax")
    return maps.view(batch_size, classes, rows, columns)
