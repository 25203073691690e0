"""Simulated drives in ONCE's layout: JSON per sequence, one ``.bin`` per sweep of a 40-beam LiDAR.

The beams are those of the sensor class that recorded ONCE: 1/3 of a degree apart around the horizon, sparse above and
below, 1,800 firings per turn. Cameras are not simulated; their calibrations in the files are plausible stand-ins.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.formats.once_json import CAMERAS, boxes_from_once, to_once
from adperception.datasets.formats.point_files import write_bin
from adperception.geometry import count_points_in_boxes
from adperception.registry import PREPARATIONS
from adperception.simulation.drive import Drive, draw_drive
from adperception.simulation.kitti_labels import placement_boxes
from adperception.simulation.lidar_sensor import LidarSensor
from adperception.simulation.simulated_tree import SimulatedTree
from adperception.structures import Boxes3D, PointCloud

__all__ = ["SimulateOnce", "SimulatedOnceFrame", "simulate_sequence", "spinning_40_elevations", "write_sequence"]

_VERSION = 1
_FRAME_SECONDS = 0.5
_FIRST_TIME_MS = 1_616_000_000_000
_LABEL_REACH_M = 90.0
_NAMES = {"Van": "Car"}
_CAMERA_YAWS = {"cam01": 0, "cam03": 0, "cam05": 135, "cam06": 60, "cam07": -60, "cam08": -135, "cam09": 180}


@dataclass(frozen=True)
class SimulatedOnceFrame:
    """One frame as it is written, in our axes (x forward, y left).

    Attributes:
        frame_id: time in milliseconds.
        cloud: points, LiDAR frame.
        boxes: labelled objects with at least one point.
        points: as long as ``boxes``: points inside.
        pose: ``(4, 4)`` of the LiDAR in its frame at the first frame.
    """

    frame_id: str
    cloud: PointCloud
    boxes: Boxes3D
    points: NDArray[np.int64]
    pose: NDArray[np.float64]


def spinning_40_elevations() -> NDArray[np.float64]:
    """``(40,)`` elevations of the beams in degrees, highest first."""
    middle = 2 - np.arange(25) / 3
    return np.concatenate([[15, 11, 8, 5, 3], middle, -np.arange(7.0, 15.0), [-19, -25]])


def simulate_sequence(seed: int, number: int, frames: int, sensor: LidarSensor) -> list[SimulatedOnceFrame]:
    """The frames of sequence ``number`` of the endless recording that ``seed`` names, 0.5 s apart."""
    rng = np.random.default_rng([seed, number])
    drive = draw_drive(rng, frames * _FRAME_SECONDS)
    start = _FIRST_TIME_MS + number * 600_000
    return [_simulate_frame(drive, i * _FRAME_SECONDS, start, sensor, rng) for i in range(frames)]


def write_sequence(name: str, frames: list[SimulatedOnceFrame], root: Path, *, annotate_every: int = 2) -> None:
    """Write the JSON file and the clouds of a sequence below ``root/data``, in ONCE's axes.

    Args:
        name: of the sequence.
        frames: in the order of time.
        root: of the tree.
        annotate_every: annotate every so many frames, from the first on; 0 annotates none.
    """
    clouds = root / "data" / name / "lidar_roof"
    clouds.mkdir(parents=True, exist_ok=True)
    entries = []
    for number, frame in enumerate(frames):
        points = np.concatenate([to_once(frame.cloud.xyz), frame.cloud.points[:, 3:]], axis=1)
        write_bin(clouds / f"{frame.frame_id}.bin", PointCloud(points))
        entry: dict[str, Any] = {"sequence_id": name, "frame_id": frame.frame_id, "pose": _pose_in_once(frame.pose)}
        if annotate_every and number % annotate_every == 0:
            entry["annos"] = _annotations(frame)
        entries.append(entry)
    content = {
        "meta_info": {"weather": "sunny", "period": "noon", "image_size": [1920, 1020], "point_feature_num": 4},
        "calib": {camera: _camera(yaw) for camera, yaw in _CAMERA_YAWS.items()},
        "frames": entries,
    }
    path = root / "data" / name / f"{name}.json"
    path.write_text(json.dumps(content), encoding="utf-8", newline="\n")


@PREPARATIONS.register_module()
class SimulateOnce(SimulatedTree):
    """Makes a tree of simulated drives in ONCE's layout, or finds it made (see ``SimulatedTree``).

    Sequences of splits whose name starts with ``raw`` or ``test`` are not annotated; of the others every second frame.

    Args:
        root: folder of the tree.
        frames: number of frames of all sequences; the last sequence may be shorter than the others.
        seed: names the recording; same seed, same bytes.
        workers: processes that simulate; 1 works in this process. Does not change the result.
        splits: split name to its share of the sequences, in this order; shares sum to 1.
        sequence_frames: frames per sequence, 0.5 s apart.
        columns: firings of each beam per turn.

    Raises:
        ValueError: for options that make no sense.
    """

    def __init__(
        self,
        root: str | Path,
        frames: int = 100,
        seed: int = 0,
        workers: int = 1,
        splits: dict[str, float] | None = None,
        sequence_frames: int = 10,
        columns: int = 1800,
    ) -> None:
        shares = splits or {"train": 0.3, "val": 0.2, "raw_small": 0.5}
        super().__init__(root, frames, seed, workers, columns, shares)
        if sequence_frames < 1:
            raise ValueError(f"SimulateOnce: sequence_frames={sequence_frames} must be at least 1.")
        self.sequence_frames = sequence_frames

    @property
    def options(self) -> dict[str, Any]:
        """What the bytes of the tree depend on, as the manifest stores it."""
        return {
            "version": _VERSION,
            "layout": "once",
            "frames": self.frames,
            "seed": self.seed,
            "splits": self.splits,
            "sequence_frames": self.sequence_frames,
            "columns": self.columns,
        }

    def _make_folders(self) -> None:
        (self.root / "data").mkdir(parents=True, exist_ok=True)
        (self.root / "ImageSets").mkdir(exist_ok=True)

    def _make(self) -> None:
        pieces = -(-self.frames // self.sequence_frames)
        split_of = self.split_of_pieces(pieces)
        job = partial(
            _simulate_and_write,
            seed=self.seed,
            frames=tuple(self._frames_of(p) for p in range(pieces)),
            annotated=tuple(not split.startswith(("raw", "test")) for split in split_of),
            root=self.root,
            columns=self.columns,
        )
        for _ in self._run(job, pieces, self._frames_of):
            pass
        for split in self.splits:
            names = "".join(f"{piece:06d}\n" for piece in range(pieces) if split_of[piece] == split)
            (self.root / "ImageSets" / f"{split}.txt").write_text(names, encoding="utf-8", newline="\n")

    def _frames_of(self, piece: int) -> int:
        return min(self.sequence_frames, self.frames - piece * self.sequence_frames)


def _simulate_and_write(
    number: int, *, seed: int, frames: tuple[int, ...], annotated: tuple[bool, ...], root: Path, columns: int
) -> None:
    sequence = simulate_sequence(seed, number, frames[number], _sensor(columns))
    write_sequence(f"{number:06d}", sequence, root, annotate_every=2 if annotated[number] else 0)


def _sensor(columns: int) -> LidarSensor:
    roof = ((150.0, 210.0, -90.0, -18.0), (340.0, 380.0, -90.0, -20.0))
    return LidarSensor(
        tuple(spinning_40_elevations().tolist()), columns, height_m=1.9, max_range_m=100.0, own_vehicle=roof
    )


def _simulate_frame(
    drive: Drive, seconds: float, start: int, sensor: LidarSensor, rng: np.random.Generator
) -> SimulatedOnceFrame:
    scene = drive.seen_from(seconds, (0.0, 0.0, sensor.height_m))
    cloud = PointCloud(sensor.sweep(scene, rng).points)
    boxes = placement_boxes(scene.labelled)
    counts = count_points_in_boxes(cloud.xyz, boxes.boxes)
    seen = np.flatnonzero((counts > 0) & (np.hypot(boxes.boxes[:, 0], boxes.boxes[:, 1]) < _LABEL_REACH_M))
    chosen = boxes.select(seen)
    named = Boxes3D(chosen.boxes, tuple(_NAMES.get(name, name) for name in chosen.names))
    pose = drive.pose(seconds).matrix
    return SimulatedOnceFrame(str(start + round(seconds * 1000)), cloud, named, counts[seen], pose)


def _annotations(frame: SimulatedOnceFrame) -> dict[str, Any]:
    unseen = [[-1.0, -1.0, -1.0, -1.0]] * len(frame.boxes)
    return {
        "names": list(frame.boxes.names),
        "boxes_3d": boxes_from_once(frame.boxes.boxes, inverse=True).astype(float).round(6).tolist(),
        "boxes_2d": dict.fromkeys(CAMERAS, unseen),
        "num_points_in_gt": frame.points.tolist(),
    }


def _pose_in_once(pose: NDArray[np.float64]) -> list[float]:
    """Quaternion x, y, z, w and position, in ONCE's axes: a turn about z stays the same, positions are converted."""
    half = np.arctan2(pose[1, 0], pose[0, 0]) / 2
    return [0.0, 0.0, float(np.sin(half)), float(np.cos(half)), *to_once(pose[None, :3, 3])[0].astype(float).tolist()]


def _camera(yaw_deg: float) -> dict[str, Any]:
    """A camera 0.3 m below the LiDAR that looks ``yaw_deg`` to the left of forward."""
    yaw = np.radians(yaw_deg)
    forward, left = np.array([np.cos(yaw), np.sin(yaw), 0.0]), np.array([-np.sin(yaw), np.cos(yaw), 0.0])
    axes = np.stack([-left, [0.0, 0.0, -1.0], forward])  # camera x right, y down, z forward
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = to_once(axes).T, [0.0, 0.0, -0.3]
    return {
        "cam_to_velo": matrix.tolist(),
        "cam_intrinsic": [[960.0, 0.0, 960.0], [0.0, 960.0, 510.0], [0.0, 0.0, 1.0]],
        "distortion": [0.0] * 7,
    }
