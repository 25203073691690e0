"""Where a CARRADA tree keeps frames, cubes and masks: loose ``.npy`` files as downloaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.formats.carrada import (
    LABELLED_VIEWS,
    cube_file,
    mask_file,
    read_cube,
    read_mask,
    read_view,
    view_file,
    view_shapes,
)
from adperception.structures import RadarGrid, RadarMasks, RadarViews

__all__ = ["CarradaFiles", "CarradaStorage"]


class CarradaStorage(Protocol):
    """Reads windows of frames; loose files and packed sequences look the same."""

    def present(self, sequence: str, part: str) -> set[str]:
        """Names of the frames of a sequence that have a part.

        Args:
            sequence: its name.
            part: ``"cubes"``, ``"views"`` (all three, processed), ``"dense"`` or ``"sparse"``.

        Raises:
            FileNotFoundError: if the sequence has no such part at all.
            ValueError: for a damaged file.
        """

    def cubes(self, sequence: str, frames: Sequence[str]) -> NDArray[np.float32]:
        """Magnitudes ``(T, range, azimuth, Doppler)`` of frames."""

    def views(self, sequence: str, frames: Sequence[str]) -> RadarViews:
        """Processed views of frames, with a leading time axis."""

    def masks(self, sequence: str, annotation: str, frame: str) -> RadarMasks:
        """Pixel labels of a frame, ``annotation`` ``"dense"`` or ``"sparse"``."""


@dataclass(frozen=True)
class CarradaFiles:
    """The tree as it was unpacked.

    Attributes:
        root: folder of the index files.
        rad_root: folder of the RAD tensors; ``None`` if they are not needed.
        grid: what the cells mean.
    """

    root: Path
    rad_root: Path | None
    grid: RadarGrid

    def present(self, sequence: str, part: str) -> set[str]:
        """See ``CarradaStorage``."""
        folders = self.folders(sequence, part)
        missing = [folder for folder in folders if not folder.is_dir()]
        if missing:
            raise FileNotFoundError(
                f"CARRADA: {missing[0]} does not exist. Unpack the sequence there, or take it out of the split."
            )
        names = [{entry.name.removesuffix(".npy") for entry in os.scandir(folder)} for folder in folders]
        return set.intersection(*names)

    def folders(self, sequence: str, part: str) -> list[Path]:
        """The folders with a file or folder per frame that make up a part."""
        if part == "cubes":
            return [cube_file(self._rad_root, sequence, "0").parent]
        if part == "views":
            return [view_file(self.root, sequence, view, "processed", "0").parent for view in view_shapes(self.grid)]
        return [mask_file(self.root, sequence, part, "0", "").parent.parent]

    def cubes(self, sequence: str, frames: Sequence[str]) -> NDArray[np.float32]:
        """See ``CarradaStorage``.

        Raises:
            FileNotFoundError: for a missing frame.
            ValueError: for a damaged one, NaN included.
        """
        cubes = np.empty((len(frames), *self.grid.shape), dtype=np.float32)
        for i, frame in enumerate(frames):
            read_cube(cube_file(self._rad_root, sequence, frame), self.grid, cubes[i])
        return cubes

    def views(self, sequence: str, frames: Sequence[str]) -> RadarViews:
        """See ``CarradaStorage``.

        Raises:
            FileNotFoundError: for a missing frame.
            ValueError: for a damaged one, NaN included.
        """
        stacks = {}
        for view, shape in view_shapes(self.grid).items():
            stacks[view] = np.empty((len(frames), *shape), dtype=np.float32)
            for i, frame in enumerate(frames):
                stacks[view][i] = read_view(view_file(self.root, sequence, view, "processed", frame), shape)
        return RadarViews(**stacks)

    def masks(self, sequence: str, annotation: str, frame: str) -> RadarMasks:
        """See ``CarradaStorage``.

        Raises:
            FileNotFoundError: for a missing mask.
            ValueError: for a damaged one.
        """
        shapes = view_shapes(self.grid)
        masks = {
            view: read_mask(mask_file(self.root, sequence, annotation, frame, view), shapes[view])
            for view in LABELLED_VIEWS
        }
        return RadarMasks(**masks)

    @property
    def _rad_root(self) -> Path:
        if self.rad_root is None:
            raise FileNotFoundError("CARRADA: no folder of RAD tensors is known. Set rad_root=.")
        return self.rad_root
