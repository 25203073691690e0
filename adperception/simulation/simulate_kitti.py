"""Simulated frames in KITTI's folder layout.

``simulate_frame`` makes one frame in memory. ``SimulateKitti`` makes a whole tree once: config files name it as their
``prepare`` step. Every frame has its own random generator from (seed, frame number), so the bytes of a tree do not
depend on the number of processes that made it.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from adperception.datasets.formats.image_size import write_image_shapes
from adperception.datasets.formats.kitti_calib import write_calibration
from adperception.datasets.formats.kitti_label import KittiObject, write_labels
from adperception.datasets.formats.point_files import write_bin
from adperception.registry import PREPARATIONS
from adperception.simulation.kitti_labels import draw_calibration, label_objects
from adperception.simulation.lidar_sensor import LidarSensor
from adperception.simulation.street_scene import draw_scene
from adperception.structures import KittiCalibration, PointCloud

__all__ = ["SimulateKitti", "SimulatedFrame", "simulate_frame", "write_frame"]

MANIFEST = "simulation.json"
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
class SimulateKitti:
    """Makes a tree of simulated frames, or finds it made.

    A complete tree carries a manifest, ``simulation.json``, with its options; a tree that is not complete is begun
    again.

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
        self.root = Path(root)
        self.splits = {"train": 0.8, "val": 0.2} if splits is None else dict(splits)
        if frames < 1 or workers < 1 or columns < 1 or seed < 0:
            raise ValueError(
                f"SimulateKitti: frames={frames}, workers={workers}, columns={columns} must be at least 1 and "
                f"seed={seed} at least 0."
            )
        if abs(sum(self.splits.values()) - 1) > 1e-6 or min(self.splits.values()) < 0 or "trainval" in self.splits:
            raise ValueError(f"SimulateKitti: splits={self.splits} must be shares that sum to 1, without trainval.")
        self.frames, self.seed, self.workers = frames, seed, workers
        self.reduced, self.columns = reduced, columns

    def __call__(self) -> Path:
        """Make the tree unless it is there.

        Returns:
            The root of the tree.

        Raises:
            ValueError: if the folder holds a complete tree of other options, or files that no simulation made.
        """
        if self._complete():
            return self.root
        self._make_folders()
        started = time.perf_counter()
        shapes: dict[str, tuple[int, int]] = {}
        with tqdm(total=self.frames, desc=f"simulating {self.root.name}", unit="frame", miniters=1) as bar:
            for frame_id, size in self._simulate():
                shapes[frame_id] = size
                bar.update()
        write_image_shapes(self.root / "image_shapes.csv", shapes)
        self._write_splits(sorted(shapes))
        self._write_manifest(complete=True)
        elapsed = time.perf_counter() - started
        self.frames_per_second_per_core = self.frames / elapsed / min(self.workers, os.cpu_count() or 1)
        return self.root

    frames_per_second_per_core: float | None = None
    """Measured speed of the last call that simulated, writing included; ``None`` if nothing was simulated."""

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

    def _complete(self) -> bool:
        """Whether the tree is there; refuses a folder that this simulation must not touch."""
        manifest = self.root / MANIFEST
        if not manifest.is_file():
            if self.root.is_dir() and any(self.root.iterdir()):
                raise ValueError(
                    f"SimulateKitti: {self.root} is not empty and has no {MANIFEST}, so no simulation made it. "
                    "Choose another root, or remove the folder."
                )
            return False
        try:
            stored = json.loads(manifest.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{manifest}: not readable ({error}). Remove the folder {self.root}.") from error
        differing = [
            f"{key}: there {stored.get('options', {}).get(key)!r}, wanted {value!r}"
            for key, value in self.options.items()
            if stored.get("options", {}).get(key) != value
        ]
        if differing:
            raise ValueError(
                f"SimulateKitti: {self.root} was made with other options ({'; '.join(differing)}). Choose another "
                "root, or remove the folder."
            )
        return bool(stored.get("complete"))

    def _make_folders(self) -> None:
        names = ["velodyne", "calib", "label_2", *(["velodyne_reduced"] if self.reduced else [])]
        for name in names:
            (self.root / "training" / name).mkdir(parents=True, exist_ok=True)
        (self.root / "ImageSets").mkdir(exist_ok=True)
        self._write_manifest(complete=False)

    def _write_manifest(self, *, complete: bool) -> None:
        text = json.dumps({"options": self.options, "complete": complete}, indent=2) + "\n"
        temporary = self.root / f"{MANIFEST}.part"
        temporary.write_text(text, encoding="utf-8", newline="\n")
        temporary.replace(self.root / MANIFEST)

    def _simulate(self) -> Iterator[tuple[str, tuple[int, int]]]:
        job = partial(
            _simulate_and_write,
            seed=self.seed,
            sensor=LidarSensor(columns=self.columns),
            root=self.root,
            reduced=self.reduced,
        )
        if self.workers == 1:
            yield from map(job, range(self.frames))
            return
        # Forked processes start at once (spawned ones import everything again) and need only numpy, as those of a
        # torch data loader do.
        method = "fork" if sys.platform == "linux" else "spawn"
        with multiprocessing.get_context(method).Pool(min(self.workers, self.frames)) as pool:
            yield from pool.imap_unordered(job, range(self.frames), chunksize=2)

    def _write_splits(self, frame_ids: list[str]) -> None:
        """Splits are drawn, not cut, and the same for the same seed."""
        order = np.random.default_rng([self.seed, self.frames, 1]).permutation(len(frame_ids))
        first, total = 0, 0.0
        for name, share in self.splits.items():
            total += share
            end = round(total * len(frame_ids))
            self._write_ids(name, sorted(frame_ids[i] for i in order[first:end]))
            first = end
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
