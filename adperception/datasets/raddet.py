"""RADDet: complex radar cubes of road users, labelled with boxes in range, azimuth and Doppler."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adperception.datasets.base import subset
from adperception.datasets.formats.radar_sensor import SENSOR_FILE, read_radar_sensor
from adperception.datasets.formats.raddet import CLASSES, cube_file, label_file, list_frames, read_cube, read_labels
from adperception.datasets.oversampling import oversampled
from adperception.datasets.radar_dataset import Load, RadarDataset, RadarTransform
from adperception.registry import DATASETS
from adperception.structures import CARRADA_GRID, RadarFrame, RadarViews

__all__ = ["RADDet"]

_SPLITS = ("train", "validation", "train_and_validation", "test")
_VALIDATION_SHARE = 0.1
_log = logging.getLogger(__name__)


@DATASETS.register_module()
class RADDet(RadarDataset):
    """Frames of RADDet's folders, labels from JSON files (``data_tools/raddet.py convert`` makes them once).

    Frames are called ``"train/part1/000123"``. There are objects but no masks. The recording is of single frames, in
    an order that is not known to be that of time.

    Args:
        root: folder with ``train`` and ``test`` in it.
        split: ``"train"``: folder ``train`` without its last tenth; ``"validation"``: that tenth;
            ``"train_and_validation"``: all of it; ``"test"``: folder ``test``. RADDet cuts off the last tenth of a list
            in no defined order (that of the file system); here parts and frames are in the order of their numbers.
        moments: T. With more than 1, only frames whose T - 1 preceding numbers are in the same part are kept.
        load: see ``RadarDataset``.
        transforms: see ``RadarDataset``.
        fraction: see ``RadarDataset``.
        interval: see ``RadarDataset``.
        oversample: class name to how often frames that hold the class are listed, the largest number counts; after
            ``fraction`` and ``interval``. Reads all labels at the start.

    Raises:
        FileNotFoundError: if the folders are not there.
        ValueError: for an unknown split, or if no frame has predecessors and ``moments`` asks for them.
    """

    class_names = CLASSES
    label_axis = "sin"

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        moments: int = 1,
        load: Sequence[Load] = ("cubes",),
        transforms: Sequence[Mapping[str, Any] | RadarTransform] = (),
        fraction: float = 1.0,
        interval: int = 1,
        oversample: Mapping[str, int] | None = None,
    ) -> None:
        self.root = Path(root)
        if split not in _SPLITS:
            raise ValueError(f'RADDet: split="{split}" must be one of {", ".join(_SPLITS)}.')
        self.split = split
        sensor = self.root / SENSOR_FILE
        self.grid = read_radar_sensor(sensor).grid if sensor.is_file() else CARRADA_GRID
        frames = list_frames(self.root, "test" if split == "test" else "train")
        if split == "train":
            frames = _training_frames(frames)
        elif split == "validation":
            frames = frames[len(_training_frames(frames)) :]
            if not frames:
                raise ValueError(
                    f"RADDet: {self.root}: a tenth of the training frames is none; there are fewer than 10."
                )
        if moments > 1:
            frames = self._with_predecessors(frames, moments)
        kept: Sequence[str] = subset(frames, fraction, interval, "RADDet")
        if oversample:
            classes = {name: set(read_labels(label_file(self.root, name)).classes) for name in kept}
            kept = oversampled(kept, classes, oversample, CLASSES, "RADDet")
        super().__init__(kept, moments, load, transforms)
        self.split_size = len(frames)

    def read(self, index: int) -> RadarFrame:
        """Magnitudes, or views made from them, and the labelled objects."""
        frame_id = self.frame_ids[index]
        moments = [_earlier(frame_id, back) for back in range(self.moments - 1, -1, -1)]
        cubes = np.stack([read_cube(cube_file(self.root, name), self.grid) for name in moments])
        return RadarFrame(
            frame_id,
            self.grid,
            cubes if "cubes" in self.load else None,
            RadarViews.processed(cubes) if "views" in self.load else None,
            masks=None,
            objects=read_labels(label_file(self.root, frame_id)).objects(self.grid),
        )

    def training_sizes(self) -> dict[str, tuple[float, ...]]:
        """Mean extents in cells (range, azimuth, Doppler) of each class in ``split="train"``.

        A class that has no box there gets the mean over all boxes.

        Raises:
            ValueError: if there is no box at all.
        """
        sizes: dict[str, list[np.ndarray]] = {}
        for frame_id in _training_frames(list_frames(self.root, "train")):
            labels = read_labels(label_file(self.root, frame_id))
            for name, box in zip(labels.classes, labels.boxes, strict=True):
                sizes.setdefault(name, []).append(box[3:])
        every = [row for rows in sizes.values() for row in rows]
        if not every:
            raise ValueError(f"RADDet: the training labels of {self.root} hold no box.")
        return {name: tuple(np.mean(sizes.get(name, every), axis=0).tolist()) for name in CLASSES}

    def _with_predecessors(self, frames: list[str], moments: int) -> list[str]:
        known = set(frames)
        kept = [f for f in frames if all(_earlier(f, back) in known for back in range(1, moments))]
        if not kept:
            raise ValueError(
                f"RADDet: moments={moments}, but none of the {len(frames)} frames of {self.root} ({self.split}) has "
                f"{moments - 1} predecessors with consecutive numbers in its part: RADDet's frames are single. Use "
                "moments=1."
            )
        if len(kept) < len(frames):
            _log.warning(
                "RADDet: %d of %d frames (%s) have the %d predecessors that moments=%d needs; the others are left out.",
                *(len(kept), len(frames), self.split, moments - 1, moments),
            )
        return kept


def _training_frames(frames: list[str]) -> list[str]:
    """Without the last tenth, which is for validation."""
    return frames[: len(frames) - int(_VALIDATION_SHARE * len(frames))]


def _earlier(frame_id: str, back: int) -> str:
    """The name of the frame ``back`` numbers before in the same part; frames without numbers have none."""
    if not back:
        return frame_id
    part, frame = frame_id.rsplit("/", 1)
    if not frame.isdigit() or int(frame) < back:
        return ""
    return f"{part}/{int(frame) - back:0{len(frame)}d}"
