"""The augmentation of the published multi-view networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from adperception.registry import TRANSFORMS
from adperception.structures import RadarFrame, RadarMasks, RadarViews

__all__ = ["MVRSSFlip"]


@TRANSFORMS.register_module()
class MVRSSFlip:
    """Reverses rows, columns, both or none of every view and mask, as MVRSS does (MV-Net, TMVA-Net, ICCV 2021).

    Two coins per frame: the first reverses the rows of all views and masks, the second their columns. Published
    results include what is odd about it: rows are range in range-Doppler and range-angle but *angle* in
    angle-Doppler, columns are angle in range-angle but Doppler in the others, and reversing an even number of columns
    moves standstill and straight ahead by one. ``RadarMirror`` is the consistent way.

    Objects have no place in this protocol: they are left out of the result.

    Args:
        probability: of each of the two.

    Raises:
        ValueError: if ``probability`` lies outside 0..1; later, for a frame with cubes, which would no longer fit.
    """

    def __init__(self, probability: float = 0.5) -> None:
        if not 0 <= probability <= 1:
            raise ValueError(f"MVRSSFlip: probability={probability} must lie in 0..1.")
        self.probability = probability

    def __call__(self, frame: RadarFrame, rng: np.random.Generator) -> RadarFrame:
        """The flipped (or unchanged) views and masks."""
        if frame.cubes is not None:
            raise ValueError(
                f"frame {frame.frame_id}: MVRSSFlip flips views and masks, and the frame has cubes too. Use "
                'load=["views"] in the dataset, or RadarMirror, which mirrors both.'
            )
        rows, columns = rng.random(2) < self.probability
        step = (-1 if rows else 1, -1 if columns else 1)
        views, masks = frame.views, frame.masks

        def flip(values: np.ndarray) -> np.ndarray:
            return np.ascontiguousarray(values[..., :: step[0], :: step[1]])

        return replace(
            frame,
            views=None
            if views is None
            else RadarViews(flip(views.range_doppler), flip(views.range_angle), flip(views.angle_doppler)),
            masks=None if masks is None else RadarMasks(flip(masks.range_doppler), flip(masks.range_angle)),
            objects=None,
        )
