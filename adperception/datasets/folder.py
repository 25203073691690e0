"""Any folder of point files: no labels, no calibration, no index needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from adperception.datasets.base import LidarDataset, Transform, read_split
from adperception.datasets.formats.point_files import POINT_SUFFIXES, read_points_with_notes
from adperception.registry import DATASETS
from adperception.structures import XYZI, LidarFrame, PointCloud

__all__ = ["Folder"]


@DATASETS.register_module()
class Folder(LidarDataset):
    """Unlabelled frames: every ``.bin``, ``.npy`` and ``.pcd`` file below a folder, sorted by path.

    A frame's name is its path below the folder, e.g. ``"sequences/00/velodyne/000000.bin"``.

    Args:
        root: the folder; searched with its subfolders.
        split: a list of frame names, the path of a text file with one name per line, or ``None`` for all files.
        channels: what the files hold per point, starting with x, y, z.
        intensity_max: the largest value of the channel ``intensity``, which is divided by it (255 for 8-bit sensors),
            so that models see 0..1.
        transforms: sections of TRANSFORMS, or transforms.
        fraction: keep only the first part of the split, see ``LidarDataset``.
        interval: keep every ``interval``-th frame, see ``LidarDataset``.

    Raises:
        FileNotFoundError: if the folder, the split file or a file that the split names does not exist.
        ValueError: if there is no point file.
    """

    def __init__(
        self,
        root: str | Path,
        split: str | Sequence[str] | None = None,
        channels: Sequence[str] = XYZI,
        intensity_max: float = 1.0,
        transforms: Sequence[Mapping[str, Any] | Transform] = (),
        fraction: float = 1.0,
        interval: int = 1,
    ) -> None:
        self.root = Path(root)
        self.channels = tuple(channels)
        if not intensity_max > 0:
            raise ValueError(f"Folder: intensity_max={intensity_max} must be positive.")
        self.intensity_max = intensity_max
        super().__init__(self._list_frames(split), transforms, fraction=fraction, interval=interval)
        self.bind_transforms()

    def read(self, index: int) -> LidarFrame:
        """Frame ``index``: its finite points, intensity scaled to 0..1."""
        frame_id = self.frame_ids[index]
        cloud, notes = read_points_with_notes(self.root / frame_id, self.channels)
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
        return LidarFrame(frame_id, cloud, notes=notes)

    def _list_frames(self, split: str | Sequence[str] | None) -> list[str]:
        if not self.root.is_dir():
            raise FileNotFoundError(
                f"Folder: {self.root} does not exist or is no folder. Give root= a folder of clouds."
            )
        if split is None:
            files = (p for p in self.root.rglob("*") if p.suffix in POINT_SUFFIXES and p.is_file())
            names = sorted(p.relative_to(self.root).as_posix() for p in files)
            if not names:
                raise ValueError(
                    f"Folder: {self.root} holds no {', '.join(POINT_SUFFIXES)} file, nor do its subfolders. Give root= "
                    "a folder of clouds."
                )
            return names
        if isinstance(split, str):
            if not Path(split).is_file():
                raise FileNotFoundError(f"Folder: split file {split} does not exist. Write one frame name per line.")
            names = read_split(Path(split).read_text(encoding="utf-8"), split)
        else:
            names = read_split("\n".join(split), "Folder: the list given as split")
        missing = [name for name in names if not (self.root / name).is_file()]
        if missing:
            raise FileNotFoundError(
                f"Folder: {len(missing)} of {len(names)} frames of the split do not exist (first: "
                f"{self.root / missing[0]}). Take them out of the split, or give another root=."
            )
        return names
