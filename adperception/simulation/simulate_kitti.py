"""Simulated frames in KITTI's folder layout.

``simulate_frame`` makes one frame in memory. ``SimulateKitti`` makes a whole tree once: config files name it as their
``prepare`` step. Every frame has its own random generator from (seed, frame number), so the bytes of a tree do not
depend on the number of processes that made it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from adperception.datasets.formats.image_size import write_image_shapes
from adperception.datasets.formats.kitti_calib import write_calibration
from adperception.datasets.formats.kitti_label import KittiObject, write_labels
from adperception.datasets.formats.point_files import write_bin
from adperception.registry import PREPARATIONS
from adperception.simulation.kitti_labels import draw_calibration, label_objects
from adperception.simulation.lidar_sensor import LidarSensor
from adperception.simulation.simulated_tree import SimulatedTree
from adperception.simulation.street_scene import draw_scene
from adperception.structures import KittiCalibration, PointCloud

__all__ = ["SimulateKitti", "SimulatedFrame", "simulate_frame", "write_frame"]

_VERSION = 1


@dataclass(frozen=True)
class SimulatedFrame:
    """One frame as it is written.

    Attributes:
        frame_id: ``"000008"``.
        style: of the street.
        cloud: points of the whole turn, LiDAR frame.
        calibration: of the camera.
        image_size: ``(height, width)`` in pixels.
        labels: KITTI label lines.
    """

    frame_id: str
    style: str
    cloud: PointCloud
    calibration: KittiCalibration
    image_size: tuple[int, int]
    labels: tuple[KittiObject, ...]


def simulate_frame(index: int, seed: int, sensor: LidarSensor) -> SimulatedFrame:
    """Frame ``index`` of the endless recording that ``seed`` names."""
    rng = np.random.default_rng([seed, index])
    scene = draw_scene(rng, sensor.height_m)
    sweep = sensor.sweep(scene.parts, rng)
    calibration, image_size = draw_calibration(rng)
    labels = label_objects(scene.parts.labelled, sweep, calibration, image_size)
    cloud = PointCloud(sweep.points)
    return SimulatedFrame(f"{index:06d}", scene.style, cloud, calibration, image_size, tuple(labels))


def write_frame(frame: SimulatedFrame, root: Path, *, reduced: bool = False) -> None:
    """Write cloud, calibration and labels below ``root/training``; the folders must exist.

    Args:
        frame: the frame.
        root: of the tree.
        reduced: also write ``velodyne_reduced``, the cloud cut to the view of camera 2.
    """
    training = root / "training"
    write_bin(training / "velodyne" / f"{frame.frame_id}.bin", frame.cloud)
    write_calibration(training / "calib" / f"{frame.frame_id}.txt", frame.calibration)
    write_labels(training / "label_2" / f"{frame.frame_id}.txt", frame.labels)
    if reduced:
        height, width = frame.image_size
        pixels, depth = frame.calibration.rect_to_image(frame.calibration.to_rect(frame.cloud.xyz))
        seen = (depth >= 0) & np.all((pixels >= 0) & (pixels < (width, height)), axis=1)
        write_bin(training / "velodyne_reduced" / f"{frame.frame_id}.bin", frame.cloud.select(seen))


@PREPARATIONS.register_module()
class SimulateKitti(SimulatedTree):
    """Makes a tree of simulated frames in KITTI's layout, or finds it made (see ``SimulatedTree``).

    Args:
        root: folder of the tree.
        frames: number of frames.
        seed: names the recording; same seed, same bytes.
        workers: processes that simulate; 1 works in this process. Does not change the result.
        splits: split name to its share of the frames, in this order; shares sum to 1. ``trainval`` lists all frames.
        reduced: also write ``velodyne_reduced``.
        columns: firings of each beam per turn.

    Raises:
        ValueError: for options that make no sense.
    """

    def __init__(
        self,
        root: str | Path,
        frames: int = 200,
        seed: int = 0,
        workers: int = 1,
        splits: dict[str, float] | None = None,
        reduced: bool = False,
        columns: int = 2083,
    ) -> None:
        super().__init__(root, frames, seed, workers, columns, splits or {"train": 0.8, "val": 0.2})
        if "trainval" in self.splits:
            raise ValueError(f"SimulateKitti: splits={self.splits} must not name trainval, which lists all frames.")
        self.reduced = reduced

    @property
    def options(self) -> dict[str, Any]:
        """What the bytes of the tree depend on, as the manifest stores it."""
        return {
            "version": _VERSION,
            "frames": self.frames,
            "seed": self.seed,
            "splits": self.splits,
            "reduced": self.reduced,
            "columns": self.columns,
        }

    def _make_folders(self) -> None:
        names = ["velodyne", "calib", "label_2", *(["velodyne_reduced"] if self.reduced else [])]
        for name in names:
            (self.root / "training" / name).mkdir(parents=True, exist_ok=True)
        (self.root / "ImageSets").mkdir(exist_ok=True)

    def _make(self) -> None:
        job = partial(
            _simulate_and_write,
            seed=self.seed,
            sensor=LidarSensor(columns=self.columns),
            root=self.root,
            reduced=self.reduced,
        )
        shapes: dict[str, tuple[int, int]] = dict(self._run(job, self.frames, lambda _: 1))
        write_image_shapes(self.root / "image_shapes.csv", shapes)
        self._write_splits(sorted(shapes))

    def _write_splits(self, frame_ids: list[str]) -> None:
        split_of = self.split_of_pieces(len(frame_ids))
        for name in self.splits:
            self._write_ids(name, [i for i, split in zip(frame_ids, split_of, strict=True) if split == name])
        self._write_ids("trainval", frame_ids)

    def _write_ids(self, name: str, frame_ids: list[str]) -> None:
        text = "".join(f"{i}\n" for i in frame_ids)
        (self.root / "ImageSets" / f"{name}.txt").write_text(text, encoding="utf-8", newline="\n")


def _simulate_and_write(
    index: int, *, seed: int, sensor: LidarSensor, root: Path, reduced: bool
) -> tuple[str, tuple[int, int]]:
    frame = simulate_frame(index, seed, sensor)
    write_frame(frame, root, reduced=reduced)
    return frame.frame_id, frame.image_size
