"""Random mirroring of a radar frame about the axes of its cube."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adperception.registry import TRANSFORMS
from adperception.structures import RadarFrame, RadarObjects

__all__ = ["RadarMirror"]


@TRANSFORMS.register_module()
class RadarMirror:
    """Mirrors cubes, views, masks and objects together, each axis with its own coin (drawn in the order below).

    Azimuth column j goes to ``(A - j) mod A`` and Doppler column k to ``(D - k) mod D``: the columns of straight ahead
    and of standstill stay where they are, so that angles and velocities change their sign and nothing else. (Reversing
    the arrays, as ``MVRSSFlip`` does, would move standstill by one column.) With T > 1 the Doppler mirror is not
    perfect: the range of an object changes from moment to moment as before.

    The range mirror reverses rows. It is unphysical, power falls with range, but part of the older protocol. Where
    there are masks, range-angle labels and objects lie one row nearer than the echo (``flip_label_row``), and do so
    afterwards: row i goes to ``R + 1 - i`` (labels of rows 0 and 1 are lost). Without masks, objects go to
    ``R - 1 - i`` like the data.

    Args:
        azimuth: probability of the azimuth mirror.
        doppler: probability of the Doppler mirror.
        range: probability of the range mirror.

    Raises:
        ValueError: if a probability lies outside 0..1.
    """

    def __init__(self, azimuth: float = 0.5, doppler: float = 0.5, range: float = 0.0) -> None:
        for name, value in (("azimuth", azimuth), ("doppler", doppler), ("range", range)):
            if not 0 <= value <= 1:
                raise ValueError(f"RadarMirror: {name}={value} must lie in 0..1.")
        self.azimuth = azimuth
        self.doppler = doppler
        self.range = range

    def __call__(self, frame: RadarFrame, rng: np.random.Generator) -> RadarFrame:
        """The mirrored (or unchanged) frame."""
        draws = rng.random(3)
        if draws[0] < self.azimuth:
            frame = _mirror_azimuth(frame)
        if draws[1] < self.doppler:
            frame = _mirror_doppler(frame)
        if draws[2] < self.range:
            frame = _mirror_range(frame)
        return frame


def _about_zero(values: NDArray[Any], axis: int) -> NDArray[Any]:
    """Cell c of a circular axis of n cells to ``(n - c) mod n``: cell 0 (the border) and n / 2 (zero) stay."""
    return np.roll(np.flip(values, axis), 1, axis)


def _mirror_azimuth(frame: RadarFrame) -> RadarFrame:
    views, masks = frame.views, frame.masks
    return replace(
        frame,
        cubes=None if frame.cubes is None else _about_zero(frame.cubes, -2),
        views=None
        if views is None
        else replace(
            views, range_angle=_about_zero(views.range_angle, -1), angle_doppler=_about_zero(views.angle_doppler, -2)
        ),
        masks=None if masks is None else replace(masks, range_angle=_about_zero(masks.range_angle, -1)),
        objects=_mirror_column(frame.objects, 1, frame.grid.azimuth_bins),
    )


def _mirror_doppler(frame: RadarFrame) -> RadarFrame:
    views, masks = frame.views, frame.masks
    return replace(
        frame,
        cubes=None if frame.cubes is None else _about_zero(frame.cubes, -1),
        views=None
        if views is None
        else replace(
            views,
            range_doppler=_about_zero(views.range_doppler, -1),
            angle_doppler=_about_zero(views.angle_doppler, -1),
        ),
        masks=None if masks is None else replace(masks, range_doppler=_about_zero(masks.range_doppler, -1)),
        objects=_mirror_column(frame.objects, 2, frame.grid.doppler_bins),
    )


def _mirror_column(objects: RadarObjects | None, axis: int, bins: int) -> RadarObjects | None:
    if objects is None:
        return None
    cells = objects.cells.copy()
    cells[:, axis] = np.mod(bins - cells[:, axis], bins)
    return replace(objects, cells=cells)


def _mirror_range(frame: RadarFrame) -> RadarFrame:
    views, masks, objects = frame.views, frame.masks, frame.objects
    rows = frame.grid.range_bins
    if objects is not None:
        cells = objects.cells.copy()
        cells[:, 0] = np.clip((rows - 1 if masks is None else rows + 1) - cells[:, 0], 0, rows - 1)
        objects = replace(objects, cells=cells)
    if masks is not None:
        range_angle = np.zeros_like(masks.range_angle)
        range_angle[2:] = masks.range_angle[:1:-1]
        masks = replace(masks, range_doppler=masks.range_doppler[::-1].copy(), range_angle=range_angle)
    if views is not None:
        views = replace(
            views,
            range_doppler=np.flip(views.range_doppler, -2).copy(),
            range_angle=np.flip(views.range_angle, -2).copy(),
        )
    cubes = None if frame.cubes is None else np.flip(frame.cubes, -3).copy()
    return replace(frame, cubes=cubes, views=views, masks=masks, objects=objects)
