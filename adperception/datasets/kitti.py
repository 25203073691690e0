"""KITTI object detection: real and simulated trees, labelled or not.

Layout::

    ROOT/ImageSets/train.txt ...            frame names, one per line
    ROOT/image_shapes.csv                   frame,height,width; stands in for the images of training/
    ROOT/training/velodyne/000000.bin       whole 360 degree clouds (or velodyne_reduced/: cut to the camera image)
    ROOT/training/{calib,label_2,planes}/000000.txt
    ROOT/training/image_2/000000.png        optional; only its header is read
    ROOT/testing/...                        the same, without labels
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.base import LidarDataset, Transform, read_split
from adperception.datasets.formats.image_size import read_image_shapes, read_image_size
from adperception.datasets.formats.kitti_boxes import from_kitti_camera
from adperception.datasets.formats.kitti_calib import read_calibration
from adperception.datasets.formats.kitti_label import DONT_CARE, KittiObject, read_labels
from adperception.datasets.formats.kitti_plane import read_road_plane
from adperception.datasets.formats.point_files import read_points_with_notes
from adperception.registry import DATASETS
from adperception.structures import XYZI, Boxes3D, KittiCalibration, LidarFrame, PointCloud

__all__ = ["KITTI", "in_image"]

_POINTS = ("velodyne", "velodyne_reduced")
_log = logging.getLogger(__name__)


@DATASETS.register_module()
class KITTI(LidarDataset):
    """Frames of a KITTI object tree.

    Only what a frame needs is read when it is asked for; nothing but the frame names is kept in memory.

    Args:
        root: folder with ``training/`` (or ``testing/``) in it.
        split: name of a file in ``ImageSets``, a list of frame names, or ``None`` for every frame with points.
        points: folder the clouds are taken from: ``"velodyne"`` or ``"velodyne_reduced"``.
        folder: ``"training"`` or ``"testing"``; by default ``"testing"`` if the split's name starts with ``test``.
        labels: whether to read ``label_2``; a tree without that folder is unlabelled in any case.
        classes: classes whose boxes ``get`` keeps; ``None`` keeps all.
        crop_to_image: cut whole clouds to what camera 2 sees, as detectors are trained (reduced clouds are cut
            already). Frames without calibration cannot be cut; a warning counts them once.
        image_size: ``(height, width)`` in pixels for all frames, instead of the images' headers and the table.
        road_planes: whether to read ``planes/`` where there is one.
        replace_empty_frames: see ``LidarDataset``.
        transforms: sections of TRANSFORMS, or transforms.
        fraction: keep only the first part of the split (0.05: the first 5 %), see ``LidarDataset``.
        interval: keep every ``interval``-th frame, see ``LidarDataset``.

    Raises:
        FileNotFoundError: for a missing root, split file or point, label or calibration file, naming it.
        ValueError: for an unknown folder name, an empty folder or split.
    """

    def __init__(
        self,
        root: str | Path,
        split: str | Sequence[str] | None = "train",
        points: str = "velodyne",
        folder: str | None = None,
        labels: bool = True,
        classes: Sequence[str] | None = None,
        crop_to_image: bool = True,
        image_size: Sequence[int] | None = None,
        road_planes: bool = True,
        replace_empty_frames: bool = False,
        transforms: Sequence[Mapping[str, Any] | Transform] = (),
        fraction: float = 1.0,
        interval: int = 1,
    ) -> None:
        if points not in _POINTS:
            raise ValueError(f'KITTI: points="{points}" is not a folder of clouds; known are {" and ".join(_POINTS)}.')
        self.root = Path(root)
        self.split = split
        self.points = points
        self.folder = folder or ("testing" if isinstance(split, str) and split.startswith("test") else "training")
        self.directory = self.root / self.folder
        super().__init__(self._list_frames(), transforms, classes, replace_empty_frames, fraction, interval)
        self.labelled = labels and (self.directory / "label_2").is_dir()
        self.crop_to_image = crop_to_image and points == "velodyne"
        self.road_planes = road_planes and (self.directory / "planes").is_dir()
        self.image_size = _checked_size(image_size)
        self._table_sizes = self._read_table_sizes()
        self._check_files()
        self.bind_transforms()

    def read(self, index: int) -> LidarFrame:
        """Frame ``index`` with its labels, calibration, image size and road plane where the tree has them.

        The cloud is cut to the image (``crop_to_image``); ``DontCare`` areas are left out of the boxes.
        """
        frame_id = self.frame_ids[index]
        cloud, notes = self.read_cloud(index)
        calibration, image_size = self.read_calibration(index), self.image_size_of(index)
        boxes = road_plane = None
        if calibration is not None:
            if self.crop_to_image:
                cloud = self._crop(cloud, calibration, image_size, frame_id)
            if self.labelled:
                boxes = from_kitti_camera(self.read_objects(index), calibration)
            plane = self.directory / "planes" / f"{frame_id}.txt"
            if self.road_planes and plane.is_file():
                road_plane = read_road_plane(plane, calibration)
        elif self.crop_to_image:
            notes = (*notes, "No calibration: not cut to the image.")
        return LidarFrame(frame_id, cloud, boxes, calibration, image_size, road_plane, notes)

    def read_cloud(self, index: int) -> tuple[PointCloud, tuple[str, ...]]:
        """The cloud of frame ``index``, not cut, and remarks on it."""
        path = self.directory / self.points / f"{self.frame_ids[index]}.bin"
        return read_points_with_notes(path, XYZI)

    def read_calibration(self, index: int) -> KittiCalibration | None:
        """The calibration of frame ``index``, ``None`` if it has none."""
        path = self.directory / "calib" / f"{self.frame_ids[index]}.txt"
        return read_calibration(path) if path.is_file() else None

    def read_objects(self, index: int) -> list[KittiObject]:
        """The lines of the label file of frame ``index``, ``DontCare`` areas included."""
        return read_labels(self.directory / "label_2" / f"{self.frame_ids[index]}.txt")

    def read_labelled(self, index: int) -> tuple[PointCloud, Boxes3D, NDArray[np.int32]]:
        """The whole cloud (not cut to the image), the boxes and KITTI's difficulties of frame ``index``."""
        cloud, _ = self.read_cloud(index)
        calibration = self.read_calibration(index)
        solid = [o for o in self.read_objects(index) if o.name != DONT_CARE] if calibration is not None else []
        boxes = Boxes3D.empty() if calibration is None else from_kitti_camera(solid, calibration)
        return cloud, boxes, np.array([o.difficulty for o in solid], dtype=np.int32)

    def variant(self) -> dict[str, str]:
        """The folders of the frames and of their clouds."""
        return {"folder": self.folder, "points": self.points}

    def database_name(self) -> str:
        """``object_database_<folder>_<points>``."""
        return f"object_database_{self.folder}_{self.points}"

    def image_size_of(self, index: int) -> tuple[int, int] | None:
        """``(height, width)`` in pixels of the image of frame ``index``, ``None`` if nothing tells it."""
        if self.image_size is not None:
            return self.image_size
        for suffix in (".png", ".jpg"):
            image = self.directory / "image_2" / (self.frame_ids[index] + suffix)
            if image.is_file():
                return read_image_size(image)
        height, width = (int(v) for v in self._table_sizes[index])
        return (height, width) if height and width else None

    def _list_frames(self) -> list[str]:
        clouds = self.directory / self.points
        if not clouds.is_dir():
            raise FileNotFoundError(
                f"KITTI: {clouds} does not exist. Give root= the folder that holds training/ and ImageSets/, and "
                f"points= the folder that has the clouds ({' or '.join(_POINTS)})."
            )
        present = _stems(clouds, ".bin")
        if not present:
            raise ValueError(
                f"KITTI: {clouds} holds no .bin file. Copy the clouds there, or give another root= or points=."
            )
        if self.split is None:
            return sorted(present)
        if isinstance(self.split, str):
            path = self.root / "ImageSets" / f"{self.split}.txt"
            if not path.is_file():
                known = sorted(_stems(path.parent, ".txt"))
                raise FileNotFoundError(
                    f'KITTI: split="{self.split}" needs {path}, which does not exist. Splits there: '
                    f"{', '.join(known) or 'none'}. A list of frame names or None (all frames) works as well."
                )
            origin, names = str(path), read_split(path.read_text(encoding="utf-8"), str(path))
        else:
            origin, names = "split", read_split("\n".join(self.split), "KITTI: the list given as split")
        _require_files(names, present, clouds, ".bin", f"Copy them, or take these frames out of {origin}.")
        return names

    def _check_files(self) -> None:
        with_calibration = _stems(self.directory / "calib", ".txt")
        if self.labelled:
            fix = "Copy them, or give labels=False to read the tree without labels."
            _require_files(
                self.frame_ids, _stems(self.directory / "label_2", ".txt"), self.directory / "label_2", ".txt", fix
            )
            _require_files(self.frame_ids, with_calibration, self.directory / "calib", ".txt", "Labels need it. " + fix)
        bare = [name for name in self.frame_ids if name not in with_calibration] if self.crop_to_image else []
        if bare:
            _log.warning(
                "KITTI: %d of %d frames have no calibration (first: %s); they are not cut to the camera image.",
                *(len(bare), len(self), bare[0]),
            )

    def _read_table_sizes(self) -> NDArray[np.int32]:
        """``(frames, 2)`` height and width from image_shapes.csv, 0 where unknown.

        The table beside ``training`` describes its frames; ``testing`` counts from 000000 again and needs its own.
        """
        sizes = np.zeros((len(self), 2), dtype=np.int32)
        own, shared = self.directory / "image_shapes.csv", self.root / "image_shapes.csv"
        path = own if own.is_file() or self.folder != "training" else shared
        if self.image_size is None and path.is_file():
            shapes = read_image_shapes(path)
            for row, name in zip(sizes, self.frame_ids, strict=True):
                row[:] = shapes.get(name, (0, 0))
        return sizes

    def _crop(
        self, cloud: PointCloud, calibration: KittiCalibration, image_size: tuple[int, int] | None, frame_id: str
    ) -> PointCloud:
        if image_size is None:
            raise ValueError(
                f"KITTI: frame {frame_id}: cutting the cloud to the image needs the image's size, but there is "
                f"neither {self.directory / 'image_2' / frame_id}.png (or .jpg) nor a row in image_shapes.csv. "
                "Give image_size=(height, width), or crop_to_image=False."
            )
        return cloud.select(in_image(cloud.xyz, calibration, image_size))


def in_image(
    xyz: NDArray[np.floating], calibration: KittiCalibration, image_size: tuple[int, int]
) -> NDArray[np.bool_]:
    """Which LiDAR positions ``(N, 3)`` (metres) lie before camera 2 and inside its image of (height, width) pixels."""
    projection = calibration.p2 @ calibration.lidar_to_rect  # the LiDAR frame to pixels times depth
    depth = xyz @ projection[2, :3] + projection[2, 3]
    inside = np.zeros(len(xyz), dtype=np.bool_)
    # Half of a sweep lies behind the camera: only the rest is projected.
    candidates = np.flatnonzero(depth > calibration.p2[2, 3])
    depth, xyz = depth[candidates], xyz[candidates]
    column, row = (xyz @ projection[axis, :3] + projection[axis, 3] for axis in range(2))
    height, width = image_size
    inside[candidates] = (column >= 0) & (column < width * depth) & (row >= 0) & (row < height * depth)
    return inside


def _checked_size(size: Sequence[int] | None) -> tuple[int, int] | None:
    if size is None:
        return None
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"KITTI: image_size={tuple(size)} must be (height, width) in pixels.")
    return int(size[0]), int(size[1])


def _stems(folder: Path, suffix: str) -> set[str]:
    if not folder.is_dir():
        return set()
    with os.scandir(folder) as entries:
        return {entry.name.removesuffix(suffix) for entry in entries if entry.name.endswith(suffix)}


def _require_files(names: Sequence[str], present: set[str], folder: Path, suffix: str, fix: str) -> None:
    missing = [name for name in names if name not in present]
    if missing:
        raise FileNotFoundError(
            f"KITTI: {len(missing)} of {len(names)} frames have no file in {folder} (first: {missing[0]}{suffix}). "
            + fix
        )
