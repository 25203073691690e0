"""Any folder of point files, with or without a table of labels: no calibration, no images, no index needed."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.base import LidarDataset, Transform, read_split
from adperception.datasets.formats.label_table import LabelTable, read_label_table
from adperception.datasets.formats.point_files import POINT_SUFFIXES, read_points_with_notes
from adperception.registry import DATASETS
from adperception.structures import XYZI, Boxes3D, LidarFrame, PointCloud

__all__ = ["Folder"]

_UNLISTED = ("error", "empty", "skip")
_log = logging.getLogger(__name__)


@DATASETS.register_module()
class Folder(LidarDataset):
    """Frames of a folder: every ``.bin .npy .npz .pcd .ply .las .laz`` file below it, sorted by path.

    A frame's name is its path below the folder, e.g. ``"sequences/00/velodyne/000000.bin"``.

    Args:
        root: the folder; searched with its subfolders.
        split: a list of frame names, the path of a text file with one name per line (below ``root`` or elsewhere), or
            ``None`` for all files.
        channels: what the files hold per point, starting with x, y, z.
        intensity_max: the largest value of the channel ``intensity``, which is divided by it (255 for 8-bit sensors),
            so that models see 0..1.
        transforms: sections of TRANSFORMS, or transforms.
        labels: path (below ``root`` or elsewhere) of a table of boxes, ``.csv`` or ``.jsonl``, see
            ``formats/label_table.py``; ``None``: unlabelled. It names frames with or without the suffix of the file.
        unlisted_frames: what frames are that the table does not name: ``"error"``; ``"empty"``: labelled, without an
            object; ``"skip"``: left out.
        classes: classes whose boxes ``get`` keeps; ``None`` keeps all.
        npz_field: name of the array in ``.npz`` files; ``None`` takes the only one.
        replace_empty_frames: see ``LidarDataset``.
        fraction: keep only the first part of the split, see ``LidarDataset``.
        interval: keep every ``interval``-th frame, see ``LidarDataset``.

    Raises:
        FileNotFoundError: if the folder, the split file or a file that the split or the table names does not exist.
        ValueError: if there is no point file, or something is wrong with the table.
    """

    def __init__(
        self,
        root: str | Path,
        split: str | Sequence[str] | None = None,
        channels: Sequence[str] = XYZI,
        intensity_max: float = 1.0,
        transforms: Sequence[Mapping[str, Any] | Transform] = (),
        labels: str | Path | None = None,
        unlisted_frames: str = "error",
        classes: Sequence[str] | None = None,
        npz_field: str | None = None,
        replace_empty_frames: bool = False,
        fraction: float = 1.0,
        interval: int = 1,
    ) -> None:
        self.root = Path(root)
        self.split = split
        self.channels = tuple(channels)
        if not intensity_max > 0:
            raise ValueError(f"Folder: intensity_max={intensity_max} must be positive.")
        if unlisted_frames not in _UNLISTED:
            raise ValueError(
                f'Folder: unlisted_frames="{unlisted_frames}" is not known; choose from {", ".join(_UNLISTED)}.'
            )
        self.intensity_max = intensity_max
        self.npz_field = npz_field
        names = self._list_frames()
        self.labelled = labels is not None
        self.table_path = None if labels is None else self._find(labels)
        self._table = None if self.table_path is None else read_label_table(self.table_path)
        rows: Mapping[str, int] = {}
        if self._table is not None:
            rows = self._match_table(self._table, names)
            names = self._settle_unlisted(names, rows, unlisted_frames)
        super().__init__(names, transforms, classes, replace_empty_frames, fraction, interval)
        self._rows = np.array([rows.get(name, -1) for name in self.frame_ids], dtype=np.int64)
        self._warn_of_absent_classes()
        self.bind_transforms()

    def read(self, index: int) -> LidarFrame:
        """Frame ``index``: its finite points, intensity scaled to 0..1, its boxes if there is a table."""
        frame_id = self.frame_ids[index]
        cloud, notes = read_points_with_notes(self.root / frame_id, self.channels, self.npz_field)
        if "intensity" in self.channels and len(cloud):
            column = self.channels.index("intensity")
            if self.intensity_max != 1.0:
                points = cloud.points.copy()
                points[:, column] /= np.float32(self.intensity_max)
                cloud = PointCloud(points, self.channels)
            largest = float(cloud.points[:, column].max())
            if largest > 1.001:
                notes = (
                    *notes,
                    f"Intensity reaches {largest * self.intensity_max:g}, models expect 0..1: give intensity_max= the "
                    "sensor's largest value (often 255).",
                )
        return LidarFrame(frame_id, cloud, self.read_boxes(index), notes=notes)

    def read_boxes(self, index: int) -> Boxes3D | None:
        """The boxes that the table states; ``None`` without one."""
        if self._table is None:
            return None
        row = int(self._rows[index])
        return self._table.boxes_of(row) if row >= 0 else Boxes3D.empty()

    def read_labelled(self, index: int) -> tuple[PointCloud, Boxes3D, NDArray[np.int32]]:
        """The frame as read, with the difficulties of the table (0 where it states none)."""
        frame, row = self.read(index), int(self._rows[index])
        if self._table is None or row < 0:
            return frame.cloud, Boxes3D.empty(), np.zeros(0, dtype=np.int32)
        return frame.cloud, self._table.boxes_of(row), self._table.difficulties[self._table.rows(row)]

    def stated_points(self, index: int) -> NDArray[np.int64]:
        """``(M,)`` numbers of points in the boxes of frame ``index`` as the table states them, -1 where it does not."""
        row = int(self._rows[index])
        if self._table is None or row < 0:
            return np.zeros(0, dtype=np.int64)
        return self._table.num_points[self._table.rows(row)]

    def variant(self) -> dict[str, str]:
        """Channels, scale of intensity, content of the table."""
        digest = "" if self.table_path is None else hashlib.sha256(self.table_path.read_bytes()).hexdigest()
        return {
            "channels": ",".join(self.channels),
            "intensity_max": f"{self.intensity_max:g}",
            "labels_sha256": digest,
        }

    def _find(self, name: str | Path) -> Path:
        """A file named relative to ``root``, or else to the current folder."""
        below = self.root / name
        return below if below.is_file() else Path(name)

    def _list_frames(self) -> list[str]:
        if not self.root.is_dir():
            raise FileNotFoundError(
                f"Folder: {self.root} does not exist or is no folder. Give root= a folder of clouds."
            )
        if self.split is None:
            files = (p for p in self.root.rglob("*") if p.suffix.lower() in POINT_SUFFIXES and p.is_file())
            paths = (p.relative_to(self.root) for p in files)
            # The database of ground-truth sampling lies below root, and has .npy files of its own.
            names = sorted(p.as_posix() for p in paths if not p.parts[0].startswith(self.database_name()))
            if not names:
                raise ValueError(
                    f"Folder: {self.root} holds no {', '.join(POINT_SUFFIXES)} file, nor do its subfolders. Give root= "
                    "a folder of clouds."
                )
            return names
        if isinstance(self.split, str):
            path = self._find(self.split)
            if not path.is_file():
                raise FileNotFoundError(
                    f"Folder: split file {self.split} does not exist. Write one frame name per line."
                )
            names = read_split(path.read_text(encoding="utf-8"), str(path))
        else:
            names = read_split("\n".join(self.split), "Folder: the list given as split")
        missing = [name for name in names if not (self.root / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"Folder: {len(missing)} of {len(names)} frames of the split do not exist (first: "
                f"{self.root / missing[0]}). Take them out of the split, or give another root=."
            )
        return names

    def _match_table(self, table: LabelTable, names: Sequence[str]) -> dict[str, int]:
        """Frame numbers of the table by frame name; frames of the table outside the split must exist, no more."""
        by_stem: dict[str, list[str]] = {}
        for name in names:
            by_stem.setdefault(name.removesuffix(Path(name).suffix), []).append(name)
        known = set(names)
        rows: dict[str, int] = {}
        for number, (frame, line) in enumerate(zip(table.frames, table.lines.tolist(), strict=True)):
            place = f"Folder: {self.table_path}:{line}"
            candidates = [frame] if frame in known else by_stem.get(frame, [])
            if len(candidates) > 1:
                raise ValueError(
                    f'{place}: frame "{frame}" may be any of {", ".join(candidates)}. Write it with its suffix.'
                )
            if candidates:
                (name,) = candidates
                if name in rows:
                    earlier = table.lines[rows[name]]
                    raise ValueError(
                        f'{place}: frame "{frame}" is the frame of line {earlier} under another name '
                        f'("{table.frames[rows[name]]}"). Use one name for it.'
                    )
                rows[name] = number
            elif self.split is None or not any((self.root / (frame + s)).is_file() for s in ("", *POINT_SUFFIXES)):
                raise FileNotFoundError(
                    f'{place}: labels for frame "{frame}", but there is no cloud {self.root / frame} (nor with one of '
                    f"the suffixes {', '.join(POINT_SUFFIXES)}). Copy the cloud, or take the frame out of the table."
                )
        return rows

    def _settle_unlisted(self, names: list[str], rows: Mapping[str, int], unlisted_frames: str) -> list[str]:
        unlisted = [name for name in names if name not in rows]
        if unlisted and unlisted_frames == "error":
            raise ValueError(
                f"Folder: {len(unlisted)} of {len(names)} frames are not in {self.table_path} (first: {unlisted[0]}). "
                'If they were labelled and have no object, say unlisted_frames="empty"; if they were not labelled, '
                'unlisted_frames="skip".'
            )
        if unlisted_frames == "empty":
            return names
        if len(unlisted) == len(names):
            raise ValueError(
                f"Folder: {self.table_path} names none of the {len(names)} frames (first: {names[0]}): nothing is "
                "left. Label some, or read the folder without labels=."
            )
        return [name for name in names if name in rows]

    def _warn_of_absent_classes(self) -> None:
        absent = [] if self._table is None else [c for c in self.classes or () if c not in self._table.classes]
        if absent and self._table is not None:
            _log.warning(
                "Folder: %s has no box of class %s (it has %s).",
                *(self.table_path, ", ".join(absent), ", ".join(self._table.classes) or "no box at all"),
            )
