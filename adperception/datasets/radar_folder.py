"""Any folder of radar cubes with a description of the sensor, with or without labels."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np

from adperception.datasets.base import read_split, subset
from adperception.datasets.formats.radar_cube_files import CUBE_SUFFIXES, find_masks, read_masks, read_stored_cube
from adperception.datasets.formats.radar_object_table import read_radar_objects
from adperception.datasets.formats.radar_sensor import SENSOR_FILE, read_radar_sensor
from adperception.datasets.oversampling import oversampled
from adperception.datasets.radar_dataset import Load, RadarDataset, RadarTransform
from adperception.registry import DATASETS
from adperception.structures import RadarFrame, RadarMasks, RadarObjects, RadarViews

__all__ = ["RadarFolder", "list_sequences"]

_UNLISTED = ("error", "empty", "skip")
_log = logging.getLogger(__name__)


@DATASETS.register_module()
class RadarFolder(RadarDataset):
    """Cubes of one's own radar (docs/radar_folder.md).

    ::

        ROOT/sensor.json                       cells and orientation (data_tools/radar_folder.py init writes it)
        ROOT/SEQUENCE/000000.npy  (or .h5)     one cube per frame, complex or magnitudes
        ROOT/SEQUENCE/masks/000000.npz         optional: range_doppler and range_angle, classes per pixel;
                                               or 000000_range_doppler.png and 000000_range_angle.png
        ROOT/objects.csv  (or .jsonl)          optional: objects in metres, degrees, metres per second

    Frames are called ``"SEQUENCE/000000"`` and follow each other in the order of their numbers, or of their names.
    Cubes that lie in ``ROOT`` itself are one sequence with the folder's name.

    Args:
        root: the folder.
        split: a list of sequences, the path of a text file with one per line (below ``root`` or elsewhere), or ``None``
            for all.
        class_names: names of the foreground classes; class id c is ``class_names[c - 1]``.
        masks: whether frames have masks.
        objects: path (below ``root`` or elsewhere) of a table, see ``formats/radar_object_table.py``; ``None``: no
            objects.
        unlisted_frames: what frames are that have no mask or are not in the table: ``"error"``; ``"empty"``: labelled,
            without an object; ``"skip"``: not used, except as predecessors.
        moments: T, frames per item; frames with fewer predecessors in their sequence are left out.
        load: see ``RadarDataset``; views are computed from the cubes.
        transforms: see ``RadarDataset``.
        fraction: see ``RadarDataset``.
        interval: see ``RadarDataset``.
        oversample: class name to how often frames with such an object in the table are listed, the largest number
            counts; after ``fraction`` and ``interval``.

    Raises:
        FileNotFoundError: if the folder, its sensor.json, a named sequence or a labelled frame does not exist.
        ValueError: if there is no cube, or something is wrong with sensor.json or the table.
    """

    def __init__(
        self,
        root: str | Path,
        split: str | Sequence[str] | None = None,
        class_names: Sequence[str] = (),
        masks: bool = False,
        objects: str | Path | None = None,
        unlisted_frames: str = "error",
        moments: int = 1,
        load: Sequence[Load] = ("cubes",),
        transforms: Sequence[Mapping[str, Any] | RadarTransform] = (),
        fraction: float = 1.0,
        interval: int = 1,
        oversample: Mapping[str, int] | None = None,
    ) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            raise FileNotFoundError(f"RadarFolder: {self.root} does not exist. Give root= a folder of cubes.")
        if unlisted_frames not in _UNLISTED:
            raise ValueError(
                f'RadarFolder: unlisted_frames="{unlisted_frames}" is not known; choose from {", ".join(_UNLISTED)}.'
            )
        if (masks or objects is not None) and not class_names:
            raise ValueError("RadarFolder: labels need class_names=, in the order of the class ids in the masks.")
        self.split = split
        self.sensor = read_radar_sensor(self.root / SENSOR_FILE)
        self.grid = self.sensor.grid
        self.class_names = tuple(class_names)
        self.label_axis = cast('Literal["sin", "angle", "unknown"]', self.sensor.label_axis)
        self.has_masks = masks
        sequences = list_sequences(self.root)
        chosen = self._chosen(sequences)
        self._paths = [path for sequence in chosen for path in sequences[sequence]]
        frames = [f"{sequence}/{path.stem}" for sequence in chosen for path in sequences[sequence]]
        self._position = {frame: position for position, frame in enumerate(frames)}
        self._objects = None if objects is None else self._read_table(self._find(objects), sequences)
        names = [f"{sequence}/{path.stem}" for sequence in chosen for path in sequences[sequence][moments - 1 :]]
        if not names:
            raise ValueError(f"RadarFolder: no sequence of {self.root} has {moments} frames. Use fewer moments=.")
        usable = self._settle_unlisted(names, unlisted_frames)
        kept: Sequence[str] = subset(usable, fraction, interval, "RadarFolder")
        if oversample:
            classes = {
                frame: {self.class_names[c - 1] for c in found.class_ids.tolist()}
                for frame, found in (self._objects or {}).items()
            }
            kept = oversampled(kept, classes, oversample, self.class_names, "RadarFolder")
        super().__init__(kept, moments, load, transforms)
        self.split_size = len(usable)

    def read(self, index: int) -> RadarFrame:
        """The cubes, or views made from them, and the labels of the last one."""
        frame_id = self.frame_ids[index]
        last = self._position[frame_id]
        paths = self._paths[last - self.moments + 1 : last + 1]
        cubes = np.stack([read_stored_cube(path, self.sensor) for path in paths])
        return RadarFrame(
            frame_id,
            self.grid,
            cubes if "cubes" in self.load else None,
            RadarViews.processed(cubes) if "views" in self.load else None,
            self._masks(frame_id) if self.has_masks else None,
            None if self._objects is None else self._objects.get(frame_id, RadarObjects.empty()),
        )

    def _masks(self, frame_id: str) -> RadarMasks:
        paths = self._mask_files(frame_id)
        if not paths:
            rows, azimuths, dopplers = self.grid.shape
            return RadarMasks(np.zeros((rows, dopplers), dtype=np.uint8), np.zeros((rows, azimuths), dtype=np.uint8))
        return read_masks(paths, self.sensor, len(self.class_names))

    def _mask_files(self, frame_id: str) -> list[Path]:
        path = self._paths[self._position[frame_id]]
        return find_masks(path.parent / "masks", path.stem)

    def _find(self, name: str | Path) -> Path:
        """A file named relative to ``root``, or else to the current folder."""
        below = self.root / name
        return below if below.is_file() else Path(name)

    def _chosen(self, sequences: Mapping[str, Sequence[Path]]) -> list[str]:
        """The sequences of the split."""
        if self.split is None:
            return list(sequences)
        if isinstance(self.split, str):
            path = self._find(self.split)
            if not path.is_file():
                raise FileNotFoundError(
                    f"RadarFolder: split file {self.split} does not exist. Write one sequence per line."
                )
            chosen = read_split(path.read_text(encoding="utf-8"), str(path))
        else:
            chosen = list(self.split)
        missing = [name for name in chosen if name not in sequences]
        if missing or not chosen:
            raise FileNotFoundError(
                f"RadarFolder: split names {missing[0] if missing else 'nothing'}; {self.root} has the sequences "
                f"{', '.join(sequences)}."
            )
        return chosen

    def _read_table(self, path: Path, sequences: Mapping[str, Sequence[Path]]) -> dict[str, RadarObjects]:
        table = read_radar_objects(path, self.class_names, self.grid)
        known = [f"{sequence}/{file.stem}" for sequence, files in sequences.items() for file in files]
        orphans = sorted(set(table) - set(known))
        if orphans:
            raise FileNotFoundError(
                f'RadarFolder: {path} names frame "{orphans[0]}", but there is no such cube below {self.root} (frames '
                f'are named like "{known[0]}"). Copy the cube, or take the frame out of the table.'
            )
        absent = set(self.class_names) - {
            self.class_names[c - 1] for found in table.values() for c in found.class_ids.tolist()
        }
        if absent:
            _log.warning("RadarFolder: %s has no object of class %s.", path, ", ".join(sorted(absent)))
        return table

    def _settle_unlisted(self, names: list[str], unlisted_frames: str) -> list[str]:
        def labelled(name: str) -> bool:
            listed = self._objects is None or name in self._objects
            return listed and (not self.has_masks or bool(self._mask_files(name)))

        if unlisted_frames == "empty" or (self._objects is None and not self.has_masks):
            return names
        known = [name for name in names if labelled(name)]
        if len(known) < len(names) and unlisted_frames == "error":
            first = next(name for name in names if not labelled(name))
            raise ValueError(
                f"RadarFolder: {len(names) - len(known)} of {len(names)} frames have no label (first: {first}). If "
                'they were labelled and have no object, say unlisted_frames="empty"; if they were not, "skip".'
            )
        if not known:
            raise ValueError(f"RadarFolder: none of the {len(names)} frames of {self.root} has a label.")
        return known


def list_sequences(root: Path) -> dict[str, list[Path]]:
    """Cube files by sequence, in the order of their numbers if all names are numbers, of their names otherwise.

    Raises:
        ValueError: if there is no cube, or a frame is there twice.
    """
    folders = sorted(path for path in root.iterdir() if path.is_dir())
    sequences = {folder.name: files for folder in folders if (files := _cubes(folder))}
    own = _cubes(root)
    if own and sequences:
        raise ValueError(
            f"RadarFolder: {root} holds cubes itself ({own[0].name}) and in subfolders ({', '.join(sequences)}). Put "
            "every sequence into a subfolder of its own."
        )
    if own:
        sequences = {root.resolve().name: own}
    if not sequences:
        raise ValueError(f"RadarFolder: {root} holds no {' or '.join(CUBE_SUFFIXES)} cube, nor do its subfolders.")
    return sequences


def _cubes(folder: Path) -> list[Path]:
    files = [path for path in folder.iterdir() if path.suffix in CUBE_SUFFIXES and path.is_file()]
    numbered = all(path.stem.isascii() and path.stem.isdigit() for path in files)
    files.sort(key=lambda path: (int(path.stem) if numbered else 0, path.stem))
    for before, after in itertools.pairwise(files):
        if before.stem == after.stem:
            raise ValueError(f"RadarFolder: {before} and {after.name} are the same frame. Remove one of them.")
    return files
