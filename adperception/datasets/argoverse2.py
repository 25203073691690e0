"""Argoverse 2 (Wilson et al., NeurIPS 2021), the sensor data set in its own layout.

::

    ROOT/sensor/<split>/<log>/sensors/lidar/<timestamp_ns>.feather      x, y, z, intensity 0..255, laser_number, ...
    ROOT/sensor/<split>/<log>/annotations.feather                       boxes of the whole log; not in split test
    ROOT/sensor/<split>/<log>/city_SE3_egovehicle.feather               poses of the car
    ROOT/sensor/<split>/<log>/calibration/egovehicle_SE3_sensor.feather poses of the sensors on the car
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adperception.config import nearest
from adperception.datasets.base import LidarDataset, Transform
from adperception.datasets.formats.box_conventions import yaw_from_quaternion
from adperception.datasets.formats.feather import read_feather
from adperception.datasets.formats.point_files import drop_non_finite
from adperception.registry import DATASETS
from adperception.structures import XYZI, Boxes3D, LidarFrame, PointCloud

__all__ = ["CATEGORIES", "COARSE_CLASSES", "Argoverse2"]

COARSE_CLASSES: Mapping[str, str] = {
    **dict.fromkeys(
        (
            *("ARTICULATED_BUS", "BOX_TRUCK", "BUS", "LARGE_VEHICLE", "REGULAR_VEHICLE", "SCHOOL_BUS"),
            *("TRUCK", "TRUCK_CAB", "VEHICULAR_TRAILER"),
        ),
        "Vehicle",
    ),
    **dict.fromkeys(("OFFICIAL_SIGNALER", "PEDESTRIAN"), "Pedestrian"),
    **dict.fromkeys(("BICYCLIST", "MOTORCYCLIST", "WHEELED_RIDER"), "Cyclist"),
}
"""Categories of road users to the three classes of Waymo; others (cones, signs, parked bicycles) keep their names."""

CATEGORIES = (
    *COARSE_CLASSES,
    *("ANIMAL", "BICYCLE", "BOLLARD", "CONSTRUCTION_BARREL", "CONSTRUCTION_CONE", "DOG", "MESSAGE_BOARD_TRAILER"),
    *("MOBILE_PEDESTRIAN_CROSSING_SIGN", "MOTORCYCLE", "RAILED_VEHICLE", "SIGN", "STOP_SIGN", "STROLLER"),
    *("TRAFFIC_LIGHT_TRAILER", "WHEELCHAIR", "WHEELED_DEVICE"),
)
"""The 30 categories of the annotations."""

_CHANNELS = (*XYZI, "laser_number", "offset_ns")
_POSE = ("qw", "qx", "qy", "qz", "tx_m", "ty_m", "tz_m")
_SIZE = ("length_m", "width_m", "height_m")


@DATASETS.register_module()
class Argoverse2(LidarDataset):
    """Sweeps of both LiDARs of the car, in the frame of the car (x forward, y left, z up, origin at the rear axle).

    A frame's name is ``<log>/<timestamp_ns>``. Frames are the clouds that are there: annotations of sweeps that were
    not copied do no harm.

    Args:
        root: folder with ``sensor/`` in it.
        split: ``"train"``, ``"val"`` or ``"test"`` (without labels): a folder below ``sensor/``.
        logs: names of the logs to use; ``None``: all of the split.
        channels: of ``x, y, z, intensity, laser_number, offset_ns``, starting with x, y, z. Intensity becomes 0..1.
        labels: whether to read the annotations; a split without any is unlabelled anyway.
        class_map: category to class name, ``"coarse"`` for ``COARSE_CLASSES``, or ``None``. Categories that it does not
            name keep their names.
        classes: classes whose boxes ``get`` keeps; ``None`` keeps all.
        transforms: sections of TRANSFORMS, or transforms.
        replace_empty_frames: see ``LidarDataset``.
        fraction: keep only the first part of the split, see ``LidarDataset``.
        interval: keep every ``interval``-th frame, see ``LidarDataset``.

    Raises:
        FileNotFoundError: for a missing folder, log or annotation file, naming it.
        ValueError: for unknown channels or categories, or a split without a cloud.
    """

    def __init__(
        self,
        root: str | Path,
        split: str = "train",
        logs: Sequence[str] | None = None,
        channels: Sequence[str] = XYZI,
        labels: bool = True,
        class_map: str | Mapping[str, str] | None = None,
        classes: Sequence[str] | None = None,
        transforms: Sequence[Mapping[str, Any] | Transform] = (),
        replace_empty_frames: bool = False,
        fraction: float = 1.0,
        interval: int = 1,
    ) -> None:
        self.root = Path(root)
        self.directory = self.root / "sensor" / split
        self.split = split if logs is None else tuple(logs)
        self.channels = tuple(channels)
        unknown = [c for c in self.channels if c not in _CHANNELS]
        if unknown or self.channels[:3] != ("x", "y", "z"):
            raise ValueError(
                f"Argoverse2: channels={', '.join(self.channels)} must start with x, y, z and be of "
                f"{', '.join(_CHANNELS)}."
            )
        self.class_map = _checked_map(class_map)
        super().__init__(self._list_frames(logs), transforms, classes, replace_empty_frames, fraction, interval)
        self.labelled = labels and self._has_annotations()
        self.bind_transforms()

    def read(self, index: int) -> LidarFrame:
        """Frame ``index``: its finite points and its boxes."""
        log, time = self._log_and_time(index)
        columns = read_feather(log / f"sensors/lidar/{time}.feather", self.channels)
        points = np.stack([columns[name].astype(np.float32) for name in self.channels], axis=1)
        if "intensity" in self.channels:
            points[:, self.channels.index("intensity")] /= 255
        cloud, dropped = drop_non_finite(PointCloud(points, self.channels))
        notes = [f"{dropped:,} of {len(points):,} points hold NaN or infinity and were dropped."] if dropped else []
        boxes = self.read_boxes(index)
        if boxes is not None and not boxes:
            notes.append("The annotations have no box of this sweep.")
        return LidarFrame(self.frame_ids[index], cloud, boxes, notes=tuple(notes))

    def read_boxes(self, index: int) -> Boxes3D | None:
        """The boxes of frame ``index`` without its cloud; ``None`` if unlabelled."""
        return self._annotations(index)[0] if self.labelled else None

    def stated_points(self, index: int) -> NDArray[np.int64] | None:
        """``(M,)`` numbers of points in the boxes as the annotations state them (``num_interior_pts``)."""
        return self._annotations(index)[1] if self.labelled else None

    def read_pose(self, index: int) -> NDArray[np.float64]:
        """``(4, 4)`` transform of the car's frame to the city's, metres, at the time of frame ``index``."""
        log, time = self._log_and_time(index)
        path = log / "city_SE3_egovehicle.feather"
        poses = read_feather(path, ("timestamp_ns", *_POSE))
        rows = np.flatnonzero(poses["timestamp_ns"] == time)
        if not len(rows):
            raise ValueError(
                f"{path}: no pose of the time {time} of frame {self.frame_ids[index]}. Copy the file again."
            )
        return np.asarray(_transforms(poses)[rows[0]])

    def read_sensor_poses(self, index: int) -> dict[str, NDArray[np.float64]]:
        """``(4, 4)`` transforms of each sensor's frame to the car's (``"up_lidar"``, ``"ring_front_center"``, ...)."""
        path = self._log_and_time(index)[0] / "calibration/egovehicle_SE3_sensor.feather"
        poses = read_feather(path, ("sensor_name", *_POSE))
        return dict(zip((str(n) for n in poses["sensor_name"]), _transforms(poses), strict=True))

    def annotated_times(self, log: str) -> set[int]:
        """Times (ns) of the sweeps of a log that the annotations have boxes of, whether or not their cloud is there."""
        table = read_feather(self.directory / log / "annotations.feather", ("timestamp_ns",))
        return set(table["timestamp_ns"].tolist())

    def variant(self) -> dict[str, str]:
        """Channels and names of classes."""
        names = ",".join(f"{category}={name}" for category, name in sorted(self.class_map.items()))
        return {"channels": ",".join(self.channels), "class_map": names}

    def _log_and_time(self, index: int) -> tuple[Path, int]:
        log, _, time = self.frame_ids[index].partition("/")
        return self.directory / log, int(time)

    def _annotations(self, index: int) -> tuple[Boxes3D, NDArray[np.int64]]:
        log, time = self._log_and_time(index)
        path = log / "annotations.feather"
        table = read_feather(path, ("timestamp_ns", "category", *_SIZE, *_POSE, "num_interior_pts"))
        rows = np.flatnonzero(table["timestamp_ns"] == time)
        chosen = {name: values[rows] for name, values in table.items()}
        turns = np.column_stack([chosen[name] for name in _POSE[:4]])
        values = np.column_stack([*(chosen[name] for name in (*_POSE[4:], *_SIZE)), yaw_from_quaternion(turns)])
        if not np.isfinite(values).all() or not (values[:, 3:6] > 0).all():
            bad = int(rows[np.flatnonzero(~(np.isfinite(values).all(axis=1) & (values[:, 3:6] > 0).all(axis=1)))[0]])
            raise ValueError(
                f"{path}: row {bad} (frame {self.frame_ids[index]}) is no box: a value is not finite or a size not "
                "above 0. Copy the file again."
            )
        names = tuple(self.class_map.get(str(c), str(c)) for c in chosen["category"])
        return Boxes3D(values.astype(np.float32), names), chosen["num_interior_pts"].astype(np.int64)

    def _list_frames(self, logs: Sequence[str] | None) -> list[str]:
        if not self.directory.is_dir():
            splits = sorted(p.name for p in self.directory.parent.glob("*") if p.is_dir())
            raise FileNotFoundError(
                f"Argoverse2: {self.directory} does not exist. Give root= the folder that holds sensor/, and split= "
                f"one of its folders: {', '.join(splits) or 'there is none'}."
            )
        present = sorted(p.name for p in self.directory.iterdir() if (p / "sensors/lidar").is_dir())
        missing = [log for log in logs or () if log not in present]
        if missing:
            raise FileNotFoundError(
                f"Argoverse2: {len(missing)} of {len(logs or ())} logs have no folder sensors/lidar in "
                f"{self.directory} (first: {missing[0]}). Copy them, or take them out of logs=."
            )
        names = list(self._frames_of(present if logs is None else logs))
        if not names:
            raise ValueError(
                f"Argoverse2: there is no cloud in {self.directory}/<log>/sensors/lidar/<timestamp_ns>.feather. Copy "
                "the clouds there, or give another root= or split=."
            )
        return names

    def _frames_of(self, logs: Sequence[str]) -> Iterator[str]:
        for log in logs:
            folder = self.directory / log / "sensors/lidar"
            stems = [p.stem for p in folder.glob("*.feather")]
            for stem in stems:
                if not stem.isdecimal():
                    raise ValueError(
                        f"Argoverse2: {folder / stem}.feather is not named by a time in nanoseconds. Move it elsewhere."
                    )
            yield from (f"{log}/{time}" for time in sorted(stems, key=int))

    def _has_annotations(self) -> bool:
        logs = list(dict.fromkeys(name.partition("/")[0] for name in self.frame_ids))
        bare = [log for log in logs if not (self.directory / log / "annotations.feather").is_file()]
        if bare and len(bare) < len(logs):
            raise FileNotFoundError(
                f"Argoverse2: {len(bare)} of {len(logs)} logs have no annotations.feather (first: "
                f"{self.directory / bare[0] / 'annotations.feather'}). Copy it, take the logs out with logs=, or give "
                "labels=False."
            )
        return not bare


def _checked_map(class_map: str | Mapping[str, str] | None) -> Mapping[str, str]:
    if class_map is None:
        return {}
    if isinstance(class_map, str):
        if class_map != "coarse":
            raise ValueError(f'Argoverse2: class_map="{class_map}" is not known. Use "coarse", or give a mapping.')
        return COARSE_CLASSES
    for category in class_map:
        if category not in CATEGORIES:
            raise ValueError(f'Argoverse2: class_map: "{category}" is no category.{nearest(category, CATEGORIES)}')
    return dict(class_map)


def _transforms(poses: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """``(N, 4, 4)`` of unit quaternions and translations."""
    w, x, y, z = (poses[name].astype(np.float64) for name in _POSE[:4])
    out = np.zeros((len(w), 4, 4))
    out[:, 0, :3] = np.column_stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)])
    out[:, 1, :3] = np.column_stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)])
    out[:, 2, :3] = np.column_stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)])
    out[:, :3, 3] = np.column_stack([poses[name] for name in _POSE[4:]])
    out[:, 3, 3] = 1
    return out
