"""What every LiDAR dataset is: a list of frames that can be read raw or augmented."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, overload, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from adperception.registry import TRANSFORMS, build
from adperception.structures import Boxes3D, LidarFrame, PointCloud

__all__ = ["DatasetTransform", "FrameIds", "LidarDataset", "Transform", "read_split", "subset"]

_REPLACEMENT_TRIES = 100


class Transform(Protocol):
    """Something that changes a frame; all chance comes from ``rng``."""

    def __call__(self, frame: LidarFrame, rng: np.random.Generator) -> LidarFrame:
        """The changed frame; ``frame`` itself stays as it is."""


@runtime_checkable
class DatasetTransform(Protocol):
    """A transform that needs to see the dataset it works for, once, before the first frame."""

    def bind(self, dataset: LidarDataset) -> None:
        """Called once by the dataset that the transform belongs to."""


class FrameIds(Sequence[str]):
    """Frame names in two arrays instead of one Python object per name.

    Data workers share these pages with their parent for good: reading a list of strings changes reference counts, which
    copies its memory into every worker bit by bit.
    """

    def __init__(self, names: Iterable[str]) -> None:
        encoded = [name.encode() for name in names]
        self._text = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        self._ends = np.cumsum([0, *(len(e) for e in encoded)], dtype=np.int64)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[str]: ...
    def __getitem__(self, index: int | slice) -> str | Sequence[str]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        return self._text[self._ends[position] : self._ends[position + 1]].tobytes().decode()


class LidarDataset(ABC):
    """Base of the LiDAR datasets.

    A dataset with labels sets ``labelled``, ``root`` and ``split``; where the defaults do not fit, it overrides
    ``read_labelled``, ``variant`` and ``database_name``. Ground-truth sampling asks for them.

    Attributes:
        root: folder of the data.
        labelled: whether frames have boxes.
        split: what the frames were chosen by: a name, a list of frames, or ``None`` for all.
        frame_ids: names of the frames, in the dataset's order.
        split_size: number of frames of the split, before ``fraction`` and ``interval``.
        transforms: applied by ``get`` in this order.
        classes: classes whose boxes ``get`` keeps; ``None`` keeps all.
        replace_empty_frames: whether ``get`` gives another, randomly drawn frame instead of one without a box left
            (what OpenPCDet does in training; it needs labels, so it is off by default).

    Args:
        frame_ids: names of the frames of the split.
        transforms: sections of TRANSFORMS, or transforms.
        classes: see above.
        replace_empty_frames: see above.
        fraction: keep the first ``int(n * fraction)`` of the n frames: the label-efficiency subsets of KITTI (185, 742
            and 1,856 of 3,712 frames for 0.05, 0.2 and 0.5). Not random: everyone gets the same frames.
        interval: keep every ``interval``-th frame, from the first on, of those that ``fraction`` leaves (Waymo's
            subsets).

    Raises:
        ValueError: if ``fraction`` or ``interval`` is out of range or leaves no frame.
    """

    root: Path
    labelled: bool = False
    split: str | Sequence[str] | None = None

    def __init__(
        self,
        frame_ids: Iterable[str],
        transforms: Sequence[Mapping[str, Any] | Transform] = (),
        classes: Sequence[str] | None = None,
        replace_empty_frames: bool = False,
        fraction: float = 1.0,
        interval: int = 1,
    ) -> None:
        names = frame_ids if isinstance(frame_ids, Sequence) else list(frame_ids)
        self.split_size = len(names)
        self.frame_ids: Sequence[str] = FrameIds(subset(names, fraction, interval, type(self).__name__))
        self.classes = None if classes is None else tuple(classes)
        self.replace_empty_frames = replace_empty_frames
        self.transforms: tuple[Transform, ...] = tuple(
            build(TRANSFORMS, t) if isinstance(t, Mapping) else t for t in transforms
        )

    def bind_transforms(self) -> None:
        """Show the dataset to the transforms that need it; the constructor of a dataset ends with this."""
        for transform in self.transforms:
            if isinstance(transform, DatasetTransform):
                transform.bind(self)

    def __len__(self) -> int:
        return len(self.frame_ids)

    @abstractmethod
    def read(self, index: int) -> LidarFrame:
        """Frame ``index`` as it is on disk: no chance, no transforms, boxes of all classes."""

    def read_boxes(self, index: int) -> Boxes3D | None:
        """The boxes of ``read(index)``, ``None`` without labels. Overridden where they can be had without the cloud."""
        return self.read(index).boxes

    def read_labelled(self, index: int) -> tuple[PointCloud, Boxes3D, NDArray[np.int32]]:
        """What objects are cut from for ground-truth sampling; without labels no boxes.

        Returns:
            The whole cloud (also where ``read`` cuts it to something), the M boxes of all classes, and ``(M,)`` their
            difficulties; -1 means never to be pasted. Here: the frame as read, difficulty 0.
        """
        frame = self.read(index)
        boxes = frame.boxes or Boxes3D.empty()
        return frame.cloud, boxes, np.zeros(len(boxes), dtype=np.int32)

    def stated_points(self, index: int) -> NDArray[np.int64] | None:
        """``(M,)`` numbers of points in the boxes of frame ``index`` as the labels state them, -1 where they do not.

        ``None`` if this kind of labels has no such numbers. They are compared with what is found in the boxes.
        """
        return None

    def variant(self) -> dict[str, str]:
        """What decides the content of the frames besides ``root`` and their names (folder of clouds, scaling).

        Objects cut from one variant are not pasted into another.
        """
        return {}

    def database_name(self) -> str:
        """How the folders of this dataset's object databases begin, below ``root``."""
        return "object_database"

    def get(self, index: int, rng: np.random.Generator) -> LidarFrame:
        """Frame ``index`` after the transforms, with the boxes of ``classes``.

        The classes are chosen last, so that ground-truth sampling still sees the objects of other classes and pastes
        nothing into them.

        Args:
            index: position in ``frame_ids``.
            rng: source of all chance, derived from (seed, epoch, index) by the caller.

        Raises:
            ValueError: with ``replace_empty_frames``, if the frames are unlabelled or none with a box is found.
        """
        frame = self._transformed(index, rng)
        if not self.replace_empty_frames or frame.boxes:
            return frame
        for _ in range(_REPLACEMENT_TRIES):
            if frame.boxes is None:
                raise ValueError(
                    f"replace_empty_frames: frame {frame.frame_id} has no labels, so nobody can say whether it is "
                    "empty. Leave the switch off for unlabelled data."
                )
            other = self._transformed(int(rng.integers(len(self))), rng)
            if other.boxes:
                return replace(other, notes=(*other.notes, f"Stands in for {frame.frame_id}, which has no box."))
        raise ValueError(
            f"replace_empty_frames: {_REPLACEMENT_TRIES} randomly drawn frames had no box of {self.classes or 'any'} "
            "class after the transforms. Check classes= and the range, or leave the switch off."
        )

    def _transformed(self, index: int, rng: np.random.Generator) -> LidarFrame:
        frame = self.read(index)
        for transform in self.transforms:
            frame = transform(frame, rng)
        if self.classes is None or frame.boxes is None:
            return frame
        return replace(
            frame, boxes=frame.boxes.select([i for i, n in enumerate(frame.boxes.names) if n in self.classes])
        )


def subset(names: Sequence[str], fraction: float, interval: int, dataset: str) -> Sequence[str]:
    """The first ``int(n * fraction)`` names, and of them every ``interval``-th.

    Raises:
        ValueError: if ``fraction`` or ``interval`` is out of range or leaves no frame of ``dataset``.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"{dataset}: fraction={fraction} must be above 0 and at most 1 (0.05 is 5 %).")
    if interval < 1 or int(interval) != interval:
        raise ValueError(f"{dataset}: interval={interval} must be a whole number of at least 1 (5: every 5th frame).")
    kept = int(len(names) * fraction + 1e-9)  # 100 * 0.29 is 28.999999999999996
    if names and not kept:
        raise ValueError(
            f"{dataset}: fraction={fraction} of {len(names)} frames leaves none. Give at least 1/{len(names)}."
        )
    return names[: kept : int(interval)]


def read_split(text: str, origin: str) -> list[str]:
    """Frame names of a split file: one per line.

    Raises:
        ValueError: if there is none, or one twice.
    """
    names = text.split()
    if not names:
        raise ValueError(f"{origin} names no frame. Write one frame name per line.")
    if len(set(names)) != len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise ValueError(f"{origin} names frame {twice} more than once. Remove the duplicate.")
    return names
