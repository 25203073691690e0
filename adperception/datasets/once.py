"""ONCE: sequences of a 40-beam LiDAR, a few labelled, most not.

Layout::

    ROOT/ImageSets/train.txt val.txt test.txt raw_small.txt ...    sequence names, one per line
    ROOT/data/000076/000076.json                                   frames and labels of a sequence
    ROOT/data/000076/lidar_roof/1616343527200.bin                  float32 x, y, z, intensity
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.base import LidarDataset, Transform, read_split
from adperception.datasets.formats.once_json import OnceFrame, boxes_from_once, from_once, read_sequence
from adperception.datasets.formats.point_files import read_points_with_notes
from adperception.registry import DATASETS
from adperception.structures import XYZI, Boxes3D, LidarFrame, PointCloud

__all__ = ["ONCE", "list_sequences"]

_log = logging.getLogger(__name__)


@DATASETS.register_module()
class ONCE(LidarDataset):
    """Frames of ONCE, named ``SEQUENCE/FRAME``, in the order of the split's sequences and of time.

    If frames of a split are annotated (every second one is in train and val), these are its frames, also those without
    an object. A split without any annotation (raw_small, raw_medium, raw_large, test) gives all its frames, unlabelled.
    Labels are read once and kept as a few arrays, so that the memory of data workers stays flat.

    Args:
        root: folder with ``data/`` and ``ImageSets/`` in it.
        split: name of a file in ``ImageSets``, a list of sequences, or ``None`` for every sequence in ``data``.
        labels: ``False`` gives all frames of the split, unlabelled.
        native_axes: keep ONCE's axes, x to the left and y to the back, for models that were trained in them
            (OpenPCDet's). By default points and boxes are turned to x forward, y left.
        intensity_max: the largest intensity in the files, by which they are divided. Released clouds hold 0..1 already.
        classes: classes whose boxes ``get`` keeps, of Car, Bus, Truck, Pedestrian and Cyclist; ``None`` keeps all.
        replace_empty_frames: see ``LidarDataset``.
        transforms: sections of TRANSFORMS, or transforms.
        fraction: keep only the first part of the split, see ``LidarDataset``.
        interval: keep every ``interval``-th frame, see ``LidarDataset``.

    Raises:
        FileNotFoundError: for a missing root, split, sequence or cloud, naming it.
        ValueError: for a damaged file or an empty split.
    """

    def __init__(
        self,
        root: str | Path,
        split: str | Sequence[str] | None = "train",
        labels: bool = True,
        native_axes: bool = False,
        intensity_max: float = 1.0,
        classes: Sequence[str] | None = None,
        replace_empty_frames: bool = False,
        transforms: Sequence[Mapping[str, Any] | Transform] = (),
        fraction: float = 1.0,
        interval: int = 1,
    ) -> None:
        if not intensity_max > 0:
            raise ValueError(f"ONCE: intensity_max={intensity_max} must be positive.")
        self.root, self.split = Path(root), split
        self.native_axes, self.intensity_max = native_axes, intensity_max
        self.sequences = list_sequences(self.root, split)
        frames = {sequence: self._read_sequence(sequence) for sequence in self.sequences}
        self.labelled = labels and any(f.boxes is not None for every in frames.values() for f in every)
        if self.labelled:
            frames = {s: [f for f in every if f.boxes is not None] for s, every in frames.items()}
        named = [(f"{sequence}/{f.frame_id}", f) for sequence, every in frames.items() for f in every]
        if not named:
            raise ValueError(f"ONCE: the sequences of split {split} have no frame: {', '.join(self.sequences[:5])}.")
        super().__init__([name for name, _ in named], transforms, classes, replace_empty_frames, fraction, interval)
        self._labels = _Labels.collect(dict(named), self.frame_ids) if self.labelled else None
        self.bind_transforms()

    def read(self, index: int) -> LidarFrame:
        """Frame ``index``: finite points, intensity 0..1, and all its boxes, those without points too."""
        cloud, notes = self.read_cloud(index)
        return LidarFrame(self.frame_ids[index], cloud, self.read_boxes(index), notes=notes)

    def read_cloud(self, index: int) -> tuple[PointCloud, tuple[str, ...]]:
        """The cloud of frame ``index`` and remarks on it."""
        cloud, notes = read_points_with_notes(self._cloud_file(self.frame_ids[index]), XYZI)
        points = cloud.points
        if not self.native_axes:
            points[:, :3] = from_once(cloud.xyz)
        points[:, 3] /= np.float32(self.intensity_max)
        largest = float(points[:, 3].max(initial=0))
        if largest > 1.001:
            notes = (
                *notes,
                f"Intensity reaches {largest * self.intensity_max:g}, models expect 0..1: give intensity_max= the "
                "largest value of the files.",
            )
        return cloud, notes

    def read_boxes(self, index: int) -> Boxes3D | None:
        """The labels of frame ``index`` without its cloud; ``None`` if the split is unlabelled."""
        if self._labels is None:
            return None
        boxes = self._labels.frame(index)
        return boxes if self.native_axes else Boxes3D(boxes_from_once(boxes.boxes), boxes.names)

    def stated_points(self, index: int) -> NDArray[np.int64] | None:
        """``(M,)`` numbers of points in the boxes as the file states them, -1 where not; ``None`` if unlabelled."""
        return None if self._labels is None else self._labels.points(index)

    def variant(self) -> dict[str, str]:
        """Axes and scale of intensity."""
        return {"native_axes": str(self.native_axes), "intensity_max": f"{self.intensity_max:g}"}

    def _cloud_file(self, frame_id: str) -> Path:
        sequence, _, frame = frame_id.rpartition("/")
        return self.root / "data" / sequence / "lidar_roof" / f"{frame}.bin"

    def _read_sequence(self, sequence: str) -> list[OnceFrame]:
        """The frames of a sequence, after checking that their clouds are there."""
        folder = self.root / "data" / sequence
        frames = read_sequence(folder / f"{sequence}.json")
        clouds = folder / "lidar_roof"
        present = {entry.name for entry in os.scandir(clouds)} if clouds.is_dir() else set()
        missing = [f.frame_id for f in frames if f"{f.frame_id}.bin" not in present]
        if missing:
            raise FileNotFoundError(
                f"ONCE: {len(missing)} of {len(frames)} frames of {folder / sequence}.json have no cloud in {clouds} "
                f"(first: {missing[0]}.bin). Unpack the sequence's clouds, or take it out of the split."
            )
        return frames


def list_sequences(root: Path, split: str | Sequence[str] | None) -> list[str]:
    """The sequences of a split, see ``ONCE``.

    Raises:
        FileNotFoundError: for a missing root or split file.
        ValueError: if there is no sequence.
    """
    folder = root / "data"
    if not folder.is_dir():
        raise FileNotFoundError(
            f"ONCE: {folder} does not exist. Give root= the folder that holds data/ and ImageSets/."
        )
    if split is None:
        names = sorted(p.name for p in folder.iterdir() if p.is_dir())
        if not names:
            raise ValueError(f"ONCE: {folder} holds no sequence. Unpack the downloads there.")
        return names
    if not isinstance(split, str):
        return read_split("\n".join(split), "ONCE: the list given as split")
    path = root / "ImageSets" / f"{split}.txt"
    if not path.is_file():
        known = sorted(p.stem for p in path.parent.glob("*.txt"))
        raise FileNotFoundError(
            f'ONCE: split="{split}" needs {path}, which does not exist. Splits there: '
            f"{', '.join(known) or 'none'}. A list of sequences or None (all in data/) works as well."
        )
    return read_split(path.read_text(encoding="utf-8"), str(path))


@dataclass(frozen=True)
class _Labels:
    """Boxes of all frames in a few arrays that data workers share."""

    names: tuple[str, ...]
    boxes: NDArray[np.float32]
    kinds: NDArray[np.int16]
    counts: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def collect(cls, frames: Mapping[str, OnceFrame], frame_ids: Sequence[str]) -> _Labels:
        """Of the frames in the order of ``frame_ids``."""
        boxes, counts = [np.zeros((0, 7), dtype=np.float32)], [np.zeros(0, dtype=np.int64)]
        number: dict[str, int] = {}
        kinds: list[int] = []
        ends = [0]
        for frame_id in frame_ids:
            frame = frames[frame_id]
            if frame.boxes is not None and frame.names is not None and frame.points is not None:
                boxes.append(frame.boxes)
                counts.append(frame.points)
                kinds += [number.setdefault(name, len(number)) for name in frame.names]
            ends.append(len(kinds))
        return cls(
            tuple(number), np.concatenate(boxes), np.array(kinds, np.int16), np.concatenate(counts), np.array(ends)
        )

    def frame(self, index: int) -> Boxes3D:
        """The boxes of a frame, in ONCE's axes (a copy)."""
        mine = self._rows(index)
        return Boxes3D(self.boxes[mine].copy(), tuple(self.names[k] for k in self.kinds[mine]))

    def points(self, index: int) -> NDArray[np.int64]:
        """Points in the boxes of a frame, as stated."""
        return np.asarray(self.counts[self._rows(index)])

    def _rows(self, index: int) -> slice:
        index = range(len(self.ends) - 1)[index]
        return slice(self.ends[index], self.ends[index + 1])
