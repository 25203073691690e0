"""What every radar dataset is: a list of labelled moments that can be read raw or augmented."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np

from adperception.datasets.base import FrameIds, subset
from adperception.registry import TRANSFORMS, build
from adperception.structures import RadarFrame, RadarGrid

__all__ = ["RadarDataset", "RadarTransform"]

Load = Literal["cubes", "views"]
LabelAxis = Literal["sin", "angle", "unknown"]


class RadarTransform(Protocol):
    """Something that changes a radar frame; all chance comes from ``rng``."""

    def __call__(self, frame: RadarFrame, rng: np.random.Generator) -> RadarFrame:
        """The changed frame; ``frame`` itself stays as it is."""


class RadarDataset(ABC):
    """Base of the radar datasets.

    Attributes:
        grid: what the cells of its cubes mean.
        class_names: foreground classes; class id c is ``class_names[c - 1]``.
        frame_ids: names of the labelled moments, ``"<sequence>/<frame>"``.
        split_size: number of frames before ``fraction`` and ``interval``.
        moments: T, frames per item, oldest first.
        load: what is read of each moment: ``"cubes"``, ``"views"`` or both.
        transforms: applied by ``get`` in this order.
        label_axis: what the azimuth column of a label is linear in: ``"sin"`` (where the echo is) or ``"angle"``
            (CARRADA's convention), ``"unknown"`` if the data do not say.

    Args:
        frame_ids: names of the labelled moments of the split.
        moments: see above.
        load: see above.
        transforms: sections of TRANSFORMS, or transforms.
        fraction: keep the first ``int(n * fraction)`` of the n frames.
        interval: keep every ``interval``-th of those.

    Raises:
        ValueError: for options that make no sense.
    """

    grid: RadarGrid
    class_names: tuple[str, ...]
    label_axis: LabelAxis = "unknown"

    def __init__(
        self,
        frame_ids: Iterable[str],
        moments: int = 1,
        load: Sequence[Load] = ("cubes",),
        transforms: Sequence[Mapping[str, Any] | RadarTransform] = (),
        fraction: float = 1.0,
        interval: int = 1,
    ) -> None:
        name = type(self).__name__
        if moments < 1:
            raise ValueError(f"{name}: moments={moments} must be at least 1.")
        if not load or set(load) - {"cubes", "views"}:
            raise ValueError(f'{name}: load={list(load)} must name "cubes", "views" or both.')
        names = frame_ids if isinstance(frame_ids, Sequence) else list(frame_ids)
        self.split_size = len(names)
        self.frame_ids: Sequence[str] = FrameIds(subset(names, fraction, interval, name))
        self.moments = moments
        self.load = tuple(load)
        self.transforms: tuple[RadarTransform, ...] = tuple(
            build(TRANSFORMS, t) if isinstance(t, Mapping) else t for t in transforms
        )

    def __len__(self) -> int:
        return len(self.frame_ids)

    @abstractmethod
    def read(self, index: int) -> RadarFrame:
        """Frame ``index`` as it is on disk: T moments of what ``load`` names, labels of the last one."""

    def get(self, index: int, rng: np.random.Generator) -> RadarFrame:
        """Frame ``index`` after the transforms.

        Args:
            index: position in ``frame_ids``.
            rng: source of all chance, derived from (seed, epoch, index) by the caller.
        """
        frame = self.read(index)
        for transform in self.transforms:
            frame = transform(frame, rng)
        return frame
