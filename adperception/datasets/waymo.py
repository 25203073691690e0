"""Waymo Open Dataset v2, perception, in its Parquet files: no TensorFlow, no conversion, no pickles.

Layout::

    ROOT/training/lidar/SEGMENT.parquet                range images of five LiDARs
    ROOT/training/lidar_calibration/SEGMENT.parquet
    ROOT/training/lidar_pose/SEGMENT.parquet           pose of the car for each pixel of the top LiDAR
    ROOT/training/vehicle_pose/SEGMENT.parquet
    ROOT/training/lidar_box/SEGMENT.parquet            labels; testing/ has none
    ROOT/training/frame_index.json                     written here: times of the frames of each segment
"""

from __future__ import annotations

import json
import logging
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.base import LidarDataset, Transform, read_split
from adperception.datasets.formats.point_files import drop_non_finite
from adperception.datasets.formats.waymo_parquet import (
    WaymoBoxes,
    frame_times,
    read_boxes,
    read_calibrations,
    read_frame_pose,
    read_laser_rows,
    require_pyarrow,
)
from adperception.datasets.formats.waymo_range_image import LASER_NAMES, TOP, range_image_to_points
from adperception.registry import DATASETS
from adperception.structures import Boxes3D, LidarFrame, PointCloud

__all__ = ["CHANNELS", "INDEX_NAME", "Waymo"]

CHANNELS = ("x", "y", "z", "intensity", "elongation")
INDEX_NAME = "frame_index.json"

_FEW_POINTS = 5
_INDEX_VERSION = 1
_log = logging.getLogger(__name__)


@DATASETS.register_module()
class Waymo(LidarDataset):
    """Frames of Waymo's recordings: all LiDARs in one cloud, in the vehicle's frame at the frame's time.

    A frame is named ``SEGMENT/TIME``, the time in microseconds. Segments come in the order of their names, frames in
    the order of time. The vehicle's frame has x forward, y left, z up; the road lies near z = 0.

    Args:
        root: folder with ``training/``, ``validation/`` or ``testing/`` in it.
        split: one of these folders.
        segments: names of segments, or the path of a text file with one name per line; ``None`` takes all that are
            there.
        lasers: LiDARs whose points are used, of TOP, FRONT, SIDE_LEFT, SIDE_RIGHT and REAR.
        returns: returns whose points are used; OpenPCDet uses both.
        labels: whether to read ``lidar_box``; a split without that folder is unlabelled in any case.
        classes: classes whose boxes ``get`` keeps, of Vehicle, Pedestrian, Cyclist and Sign.
        drop_no_label_zones: leave out points in areas that were not labelled. OpenPCDet keeps them.
        rolling_shutter: move the top LiDAR's points by the car's motion during the turn, with ``lidar_pose`` and
            ``vehicle_pose``.
        replace_empty_frames: see ``LidarDataset``.
        transforms: sections of TRANSFORMS, or transforms.
        fraction: keep only the first part of the split, see ``LidarDataset``.
        interval: keep every ``interval``-th frame of all segments one after the other (5: the 20 % that pre-training
            uses).

    Raises:
        FileNotFoundError: for a missing root, split or component file, naming it.
        ValueError: for unknown options, a split without a segment or a damaged file.
        ImportError: without pyarrow.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "training",
        segments: str | Sequence[str] | None = None,
        lasers: Sequence[str] = tuple(LASER_NAMES),
        returns: Sequence[int] = (1, 2),
        labels: bool = True,
        classes: Sequence[str] | None = ("Vehicle", "Pedestrian", "Cyclist"),
        drop_no_label_zones: bool = False,
        rolling_shutter: bool = True,
        replace_empty_frames: bool = False,
        transforms: Sequence[Mapping[str, Any] | Transform] = (),
        fraction: float = 1.0,
        interval: int = 1,
    ) -> None:
        require_pyarrow()
        self.root, self.directory = Path(root), Path(root) / split
        self.lasers = tuple(_laser_number(name) for name in lasers)
        self.returns = tuple(returns)
        if not self.lasers or not self.returns or not set(self.returns) <= {1, 2}:
            raise ValueError(
                f"Waymo: lasers={list(lasers)} and returns={list(returns)} must not be empty; returns are 1 and 2."
            )
        self.drop_no_label_zones, self.rolling_shutter = drop_no_label_zones, rolling_shutter
        self.segments = self._list_segments(segments)
        self.split = split if segments is None else tuple(self.segments)
        self.labelled = labels and (self.directory / "lidar_box").is_dir()
        self._check_files()
        index = self._index_frames()
        names = [f"{segment}/{time}" for segment in self.segments for time in index[segment]]
        super().__init__(names, transforms, classes, replace_empty_frames, fraction, interval)
        self.bind_transforms()

    def read(self, index: int) -> LidarFrame:
        """Frame ``index``: channels x, y, z, intensity (its tanh, so within 0..1) and elongation.

        Boxes in which Waymo counted no LiDAR point are left out.
        """
        cloud, notes = self.read_cloud(index)
        return LidarFrame(self.frame_ids[index], cloud, self.read_boxes(index), notes=notes)

    def read_boxes(self, index: int) -> Boxes3D | None:
        """The boxes of frame ``index`` that hold points, without reading the cloud; ``None`` if unlabelled."""
        if not self.labelled:
            return None
        labels = self._read_labels(index)
        return Boxes3D(labels.boxes, labels.names).select(labels.points > 0)

    def read_cloud(self, index: int) -> tuple[PointCloud, tuple[str, ...]]:
        """The cloud of frame ``index`` and remarks on it."""
        segment, time = self._locate(index)
        calibrations = read_calibrations(self._file("lidar_calibration", segment))
        rows = read_laser_rows(self._file("lidar", segment), time, self.lasers, self.returns)
        absent = [name for name, number in LASER_NAMES.items() if number in self.lasers and number not in rows.images]
        if len(absent) == len(self.lasers):
            raise ValueError(f"{self._file('lidar', segment)}: frame {time} has no range image of {', '.join(absent)}.")
        poses: NDArray[np.float32] | None = None
        frame_pose: NDArray[np.float64] | None = None
        if self.rolling_shutter and TOP in rows.images:
            path = self._file("lidar_pose", segment)
            poses = read_laser_rows(path, time, (TOP,), poses=True).images.get(TOP, [None])[0]
            if poses is None:
                raise ValueError(
                    f"{path}: no pixel poses for the frame at {time}. Download the file again, or give "
                    "rolling_shutter=False to do without."
                )
            frame_pose = read_frame_pose(self._file("vehicle_pose", segment), time)
        clouds = []
        for laser in sorted(rows.images):
            if laser not in calibrations:
                path = self._file("lidar_calibration", segment)
                raise ValueError(f"{path}: no calibration of LiDAR {laser}. Download the file again.")
            for image in rows.images[laser]:
                if image is None:
                    continue
                try:
                    points = range_image_to_points(
                        image, calibrations[laser], poses if laser == TOP else None, frame_pose
                    )
                except ValueError as error:
                    path = self._file("lidar", segment)
                    raise ValueError(f"{path}: frame {time}, LiDAR {laser}: {error}") from error
                clouds.append(points)
        return self._finish(clouds, absent)

    def read_ground_truth(self, index: int) -> tuple[Boxes3D, NDArray[np.int64]]:
        """What the official metric compares with: boxes with points and their difficulty.

        Returns:
            The boxes of vehicles, pedestrians and cyclists in which Waymo counted at least one LiDAR point, and
            ``(M,)`` difficulty: 2 if annotators flagged the object as hard or it has at most 5 points, else 1.

        Raises:
            ValueError: if the dataset is unlabelled.
        """
        if not self.labelled:
            raise ValueError(f"Waymo: {self.directory} is read without labels, so there is no ground truth.")
        labels = self._read_labels(index)
        kept = np.flatnonzero((labels.points > 0) & (np.array(labels.names, dtype=str) != "Sign"))
        hard = (labels.flags == 2) | (labels.points <= _FEW_POINTS)
        return Boxes3D(labels.boxes, labels.names).select(kept), np.where(hard, 2, 1)[kept]

    def stated_points(self, index: int) -> NDArray[np.int64] | None:
        """``(M,)`` numbers of LiDAR points that Waymo counted in the boxes of ``read``; ``None`` if unlabelled."""
        if not self.labelled:
            return None
        points = self._read_labels(index).points
        return np.asarray(points[points > 0])

    def variant(self) -> dict[str, str]:
        """Which points of the range images are used, and how."""
        return {
            "lasers": ",".join(map(str, self.lasers)),
            "returns": ",".join(map(str, self.returns)),
            "drop_no_label_zones": str(self.drop_no_label_zones),
            "rolling_shutter": str(self.rolling_shutter),
        }

    def _read_labels(self, index: int) -> WaymoBoxes:
        segment, time = self._locate(index)
        return read_boxes(self._file("lidar_box", segment), time)

    def _finish(self, clouds: list[NDArray[np.float32]], absent: Sequence[str]) -> tuple[PointCloud, tuple[str, ...]]:
        points = np.concatenate(clouds) if clouds else np.zeros((0, 6), dtype=np.float32)
        notes = [f"No range image of {', '.join(absent)}."] if absent else []
        if self.drop_no_label_zones:
            points = points[points[:, 5] <= 0]
        cloud, dropped = drop_non_finite(PointCloud(np.ascontiguousarray(points[:, :5]), CHANNELS))
        if dropped:
            notes.append(f"{dropped:,} of {len(points):,} points hold NaN or infinity and were dropped.")
        np.tanh(cloud.points[:, 3], out=cloud.points[:, 3])
        return cloud, tuple(notes)

    def _locate(self, index: int) -> tuple[str, int]:
        segment, _, time = self.frame_ids[index].rpartition("/")
        return segment, int(time)

    def _file(self, component: str, segment: str) -> Path:
        return self.directory / component / f"{segment}.parquet"

    def _list_segments(self, segments: str | Sequence[str] | None) -> list[str]:
        folder = self.directory / "lidar"
        if not folder.is_dir():
            raise FileNotFoundError(
                f"Waymo: {folder} does not exist. Give root= the folder that holds training/, validation/ or testing/ "
                "with one folder per component (Waymo Open Dataset v2, Parquet), and split= one of them."
            )
        if segments is None:
            names = _stems(folder)
            if not names:
                raise ValueError(f"Waymo: {folder} holds no .parquet file. Download the component lidar.")
            bare = sorted(set(_stems(self.directory / "lidar_box")) - set(names))
            if bare:
                _log.warning(
                    "Waymo: labels of %d segments have no range images (first: %s); they are left out.",
                    *(len(bare), bare[0]),
                )
            return names
        if isinstance(segments, str):
            path = Path(segments)
            if not path.is_file():
                raise FileNotFoundError(f"Waymo: segment list {path} does not exist. Write one segment name per line.")
            return read_split(path.read_text(encoding="utf-8"), segments)
        return read_split("\n".join(segments), "Waymo: the list given as segments")

    def _check_files(self) -> None:
        needed = ["lidar", "lidar_calibration"]
        needed += ["lidar_pose", "vehicle_pose"] if self.rolling_shutter and TOP in self.lasers else []
        needed += ["lidar_box"] if self.labelled else []
        fixes = {
            "lidar_pose": " rolling_shutter=False does without.",
            "vehicle_pose": " rolling_shutter=False does without.",
            "lidar_box": " labels=False reads the split without labels.",
        }
        for component in needed:
            missing = [s for s in self.segments if not self._file(component, s).is_file()]
            if missing:
                raise FileNotFoundError(
                    f"Waymo: {len(missing)} of {len(self.segments)} segments have no file in "
                    f"{self.directory / component} (first: {missing[0]}.parquet). Download them."
                    + fixes.get(component, "")
                )

    def _index_frames(self) -> dict[str, list[int]]:
        """Times of the frames of each segment, from ``frame_index.json`` where that is up to date."""
        path = self.directory / INDEX_NAME
        known = _read_index(path)
        index: dict[str, list[int]] = {}
        changed = False
        for segment in self.segments:
            file = self._file("lidar", segment)
            status = file.stat()
            entry = known.get(segment)
            if entry is None or entry["bytes"] != status.st_size or entry["modified"] != status.st_mtime_ns:
                times = frame_times(file).tolist()
                entry = {"bytes": status.st_size, "modified": status.st_mtime_ns, "times": times}
                known[segment] = entry
                changed = True
            index[segment] = entry["times"]
        if changed:
            _write_index(path, known)
        return index


def _stems(folder: Path) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.parquet"))


def _laser_number(name: str) -> int:
    if name not in LASER_NAMES:
        raise ValueError(f'Waymo: "{name}" is not a LiDAR; known are {", ".join(LASER_NAMES)}.')
    return LASER_NAMES[name]


def _read_index(path: Path) -> dict[str, dict[str, Any]]:
    """Entries of an index; a broken or old one counts as none, for it can be made again."""
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return dict(stored["segments"]) if stored["version"] == _INDEX_VERSION else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _write_index(path: Path, segments: Mapping[str, Mapping[str, Any]]) -> None:
    # Processes that start together write the same: each its own file, the last one stays.
    scratch = path.with_name(f".{path.name}-{uuid.uuid4().hex}")
    try:
        scratch.write_text(json.dumps({"version": _INDEX_VERSION, "segments": segments}), encoding="utf-8")
        scratch.replace(path)
    except OSError as error:
        _log.warning("Waymo: the index %s cannot be written (%s); it is made again at every start.", path, error)
