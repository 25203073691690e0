"""CARRADA: labelled sequences of a stationary 77 GHz radar, range-Doppler and range-angle masks.

Layout: ``adperception/datasets/formats/carrada.py`` and docs/radar_datasets.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.base import subset
from adperception.datasets.formats.carrada import (
    CLASSES,
    LABELLED_VIEWS,
    SPLITS,
    Instances,
    frame_range,
    read_annotations,
    read_boxes,
    read_frames,
    read_sensor,
    read_splits,
)
from adperception.datasets.formats.carrada_files import CarradaFiles
from adperception.datasets.formats.carrada_pack import CarradaPacks, pack_file
from adperception.datasets.formats.radar_instances import instances_from_masks, radar_objects
from adperception.datasets.oversampling import oversampled
from adperception.datasets.radar_dataset import LabelAxis, Load, RadarDataset, RadarTransform
from adperception.registry import DATASETS
from adperception.structures import RadarFrame, RadarGrid, RadarMasks, RadarObjects

__all__ = ["CARRADA", "find_tree", "list_sequences", "open_storage"]

_Boxes = Mapping[str, Mapping[str, Mapping[str, tuple[NDArray[np.int64], NDArray[np.int64]]]]]
"""Sequence to view to frame to boxes and class ids."""


@DATASETS.register_module()
class CARRADA(RadarDataset):
    """Frames of CARRADA, or of a simulated tree in its layout, in the order of sequences and of time.

    All frames of ``light_dataset_frame_oriented.json`` from the fifth of a sequence on, those without an object too:
    whatever T, every model sees and is scored on the same frames, those with four predecessors.

    Objects come from ``annotations_frame_oriented.json``; where it is missing, from masks and boxes.

    Args:
        root: folder with ``data_seq_ref.json`` in it, or one that holds such a folder as ``Carrada``.
        split: ``"Train"``, ``"Validation"``, ``"Test"``, or a list of sequences.
        rad_root: folder of the RAD tensors (``SEQUENCE/RAD_numpy``) or of packed sequences (``SEQUENCE.h5``, which
            hold views and masks as well). By default ``Carrada_packed`` or ``Carrada_RAD`` beside ``root``.
        moments: T, frames per item.
        load: ``"cubes"``, ``"views"`` or both.
        transforms: sections of TRANSFORMS, or transforms.
        first_frame: position in its sequence of the first frame that is used.
        annotation: which masks: ``"dense"`` or ``"sparse"``.
        fraction: keep only the first part of the split, see ``RadarDataset``.
        interval: keep every ``interval``-th frame, see ``RadarDataset``.
        oversample: class name to how often frames that hold the class are listed, the largest number counts; after
            ``fraction`` and ``interval``.

    Raises:
        FileNotFoundError: for a missing root, index file, sequence or frame, naming it.
        ValueError: for a damaged index file, options that make no sense, or an annotation of a missing frame.
    """

    class_names = CLASSES

    def __init__(
        self,
        root: str | Path,
        split: str | Sequence[str] = "Train",
        rad_root: str | Path | None = None,
        moments: int = 1,
        load: Sequence[Load] = ("cubes",),
        transforms: Sequence[Mapping[str, Any] | RadarTransform] = (),
        first_frame: int = 4,
        annotation: Literal["dense", "sparse"] = "dense",
        fraction: float = 1.0,
        interval: int = 1,
        oversample: Mapping[str, int] | None = None,
    ) -> None:
        if not 0 < moments <= first_frame + 1:
            raise ValueError(
                f"CARRADA: moments={moments} must be 1 to first_frame + 1 = {first_frame + 1}: a frame needs "
                f"{moments - 1} predecessors. Lower moments, or raise first_frame."
            )
        if annotation not in ("dense", "sparse"):
            raise ValueError(f'CARRADA: annotation={annotation!r} must be "dense" or "sparse".')
        self.root, self.split, self.annotation, self.first_frame = find_tree(Path(root)), split, annotation, first_frame
        sensor = read_sensor(self.root)
        self.grid, self.label_axis = sensor.grid, cast(LabelAxis, sensor.label_axis)
        self.sequences = list_sequences(self.root, split)
        self.storage = open_storage(self.root, rad_root, self.sequences, self.grid)
        annotations = read_annotations(self.root, self.sequences)
        self._boxes: _Boxes = {}
        if annotations is None:
            self._boxes = {s: {v: read_boxes(self.root, s, v) for v in LABELLED_VIEWS} for s in self.sequences}
        listed = read_frames(self.root)
        names = self._select(listed)
        kept = subset(names, fraction, interval, "CARRADA")
        if oversample:
            found = self._label_classes(annotations)
            named = {frame: {CLASSES[class_id - 1] for class_id in ids} for frame, ids in found.items()}
            kept = oversampled(kept, named, oversample, CLASSES, "CARRADA")
        super().__init__(kept, moments, load, transforms)
        self.split_size = len(names)
        self._require_frames(listed, annotations or {})
        self._objects = None if annotations is None else _Objects.collect(annotations, self.frame_ids, self.grid)

    def read(self, index: int) -> RadarFrame:
        """Frame ``index`` as it is on disk.

        Raises:
            FileNotFoundError: for a missing file.
            ValueError: for a damaged file, NaN included.
        """
        frame_id = self.frame_ids[index]
        sequence, _, frame = frame_id.rpartition("/")
        window = frame_range(frame, self.moments)
        masks = self.storage.masks(sequence, self.annotation, frame)
        return RadarFrame(
            frame_id=frame_id,
            grid=self.grid,
            cubes=self.storage.cubes(sequence, window) if "cubes" in self.load else None,
            views=self.storage.views(sequence, window) if "views" in self.load else None,
            masks=masks,
            objects=self._read_objects(index, sequence, frame, masks),
        )

    def _select(self, listed: Mapping[str, Sequence[str]]) -> list[str]:
        """Names of the frames of the split that have enough predecessors."""
        names: list[str] = []
        for sequence in self.sequences:
            if sequence not in listed:
                raise ValueError(
                    f"CARRADA: {self.root}: sequence {sequence} is in data_seq_ref.json but not in "
                    "light_dataset_frame_oriented.json. Copy both again."
                )
            names += [f"{sequence}/{frame}" for frame in listed[sequence][self.first_frame :]]
        if not names:
            raise ValueError(
                f"CARRADA: split {self.split} has no frame with {self.first_frame} predecessors in its sequence."
            )
        return names

    def _label_classes(self, annotations: Instances | None) -> dict[str, set[int]]:
        """Frame to the classes of its labelled objects."""
        if annotations is None:
            return {
                f"{sequence}/{frame}": set(classes.tolist())
                for sequence, views in self._boxes.items()
                for frame, (_, classes) in views["range_doppler"].items()
            }
        return {
            f"{sequence}/{frame}": {i.class_id for i in instances}
            for sequence in self.sequences
            for frame, instances in annotations.get(sequence, {}).items()
        }

    def _require_frames(self, listed: Mapping[str, Sequence[str]], annotations: Instances) -> None:
        """Everything that will be read, and what is annotated, must be there."""
        for sequence in self.sequences:
            used = listed[sequence][self.first_frame :]
            needed = {frame for last in used for frame in frame_range(last, self.moments)}
            for part, frames in (*((part, needed) for part in self.load), (self.annotation, set(used))):
                missing = sorted(frames - self.storage.present(sequence, part)) if frames else []
                if missing:
                    raise FileNotFoundError(
                        f"CARRADA: {len(missing)} of {len(frames)} frames of {sequence} have no {part} (first: "
                        f"{missing[0]}). Unpack them, or take them out of light_dataset_frame_oriented.json; "
                        "data_tools/carrada.py check lists everything that is missing."
                    )
            unlisted = set(annotations.get(sequence, {})) - set(listed[sequence])
            missing = sorted(unlisted - self.storage.present(sequence, self.annotation)) if unlisted else []
            if missing:
                raise ValueError(
                    f"CARRADA: {self.root}/annotations_frame_oriented.json labels objects in {len(missing)} frames of "
                    f"{sequence} that do not exist (first: {missing[0]}). Copy frames and annotations of one release."
                )

    def _read_objects(self, index: int, sequence: str, frame: str, masks: RadarMasks) -> RadarObjects:
        if self._objects is not None:
            return self._objects.frame(index)
        if frame not in self._boxes[sequence]["range_doppler"]:
            return RadarObjects.empty()
        boxes = [self._boxes[sequence][view].get(frame, (np.zeros((0, 4)), np.zeros(0))) for view in LABELLED_VIEWS]
        (doppler, doppler_classes), (angle, angle_classes) = boxes
        try:
            instances = instances_from_masks(masks, doppler, angle, doppler_classes, angle_classes)
        except ValueError as error:
            raise ValueError(f"CARRADA: {self.root}: {sequence}/{frame}: {error}") from error
        return radar_objects(instances, self.grid.shape)


def find_tree(root: Path) -> Path:
    """The folder of the index files: ``root`` itself, or ``root/Carrada``.

    Raises:
        FileNotFoundError: if neither holds ``data_seq_ref.json``.
    """
    for folder in (root, root / "Carrada"):
        if (folder / "data_seq_ref.json").is_file():
            return folder
    raise FileNotFoundError(
        f"CARRADA: neither {root} nor {root / 'Carrada'} holds data_seq_ref.json. Give root= the folder Carrada of the "
        "unpacked archive."
    )


def list_sequences(root: Path, split: str | Sequence[str]) -> list[str]:
    """The sequences of a split, see ``CARRADA``.

    Raises:
        FileNotFoundError: without ``data_seq_ref.json``.
        ValueError: for an unknown split or sequence, or if there is none.
    """
    splits = read_splits(root)
    if isinstance(split, str):
        if split not in SPLITS:
            raise ValueError(f"CARRADA: split={split!r} must be one of {', '.join(SPLITS)}, or a list of sequences.")
        names = sorted(s for s, own in splits.items() if own == split)
    else:
        names = list(split)
        unknown = [s for s in names if s not in splits]
        if unknown:
            raise ValueError(f"CARRADA: sequence {unknown[0]} is not in {root}/data_seq_ref.json.")
    if not names:
        raise ValueError(f"CARRADA: {root}/data_seq_ref.json has no sequence of split {split}.")
    return names


def open_storage(
    root: Path, rad_root: str | Path | None, sequences: Sequence[str], grid: RadarGrid
) -> CarradaFiles | CarradaPacks:
    """What reads a tree: packed sequences if ``rad_root``, or the folder beside ``root``, holds any; else loose files.

    Raises:
        FileNotFoundError: if ``rad_root`` does not exist.
    """
    if rad_root is not None and not Path(rad_root).is_dir():
        raise FileNotFoundError(
            f"CARRADA: rad_root={rad_root} is not a folder. Unpack Carrada_RAD.tar.gz there, or pack the sequences."
        )
    packed, loose = root.parent / "Carrada_packed", root.parent / "Carrada_RAD"
    for folder in (packed,) if rad_root is None else (Path(rad_root),):
        if any(pack_file(folder, s).is_file() for s in sequences):
            return CarradaPacks(folder, grid)
    if rad_root is not None:
        return CarradaFiles(root, Path(rad_root), grid)
    return CarradaFiles(root, loose if loose.is_dir() else None, grid)


@dataclass(frozen=True)
class _Objects:
    """Objects of all frames in a few arrays that data workers share."""

    cells: NDArray[np.float32]
    sizes: NDArray[np.float32]
    class_ids: NDArray[np.int64]
    ends: NDArray[np.int64]

    @classmethod
    def collect(cls, annotations: Instances, frame_ids: Sequence[str], grid: RadarGrid) -> _Objects:
        """Of the frames in the order of ``frame_ids``."""
        every = [RadarObjects.empty()]
        for frame_id in frame_ids:
            sequence, _, frame = frame_id.rpartition("/")
            every.append(radar_objects(annotations.get(sequence, {}).get(frame, ()), grid.shape))
        return cls(
            np.concatenate([o.cells for o in every]),
            np.concatenate([o.sizes for o in every]),
            np.concatenate([o.class_ids for o in every]),
            np.cumsum([len(o) for o in every]),
        )

    def frame(self, index: int) -> RadarObjects:
        """The objects of a frame (copies)."""
        index = range(len(self.ends) - 1)[index]
        mine = slice(self.ends[index], self.ends[index + 1])
        ones = np.ones(mine.stop - mine.start, dtype=np.float32)
        return RadarObjects(self.cells[mine].copy(), self.sizes[mine].copy(), self.class_ids[mine].copy(), ones)
