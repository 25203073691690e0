"""Simulated frames for the GPU benchmarks: made once, kept in a temporary folder, quick to read.

KITTI frames come from a tree in KITTI's layout through the real dataset, cut to the camera's view and augmented as the
config says; Waymo frames straight from the simulator, since their files would take longer to write than everything
else; radar frames from one simulated recording. Voxel limits are those of the configs, so that densities are those of
training.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import adperception.datasets  # registers datasets and transforms
import adperception.datasets.transforms  # noqa: F401
from adperception.registry import DATASETS, TRANSFORMS, build
from adperception.simulation.radar_sequence import RadarSequence
from adperception.simulation.simulate_kitti import SimulateKitti
from adperception.simulation.simulate_waymo import car_lasers, simulate_segment
from adperception.structures import LidarFrame, PointCloud, RadarFrame, RadarViews

__all__ = [
    "SMALL_RANGE",
    "Frames",
    "cache_folder",
    "kitti_dataset",
    "kitti_frames",
    "kitti_tree",
    "radar_frames",
    "waymo_frames",
]

SMALL_RANGE = [0.0, -6.4, -3.0, 12.8, 6.4, 1.0]
"""Metres, of small runs on KITTI frames."""

WAYMO_CHANNELS = ("x", "y", "z", "intensity", "elongation")


def cache_folder() -> Path:
    """Where frames are kept between runs: a folder of this user among the temporary ones."""
    user = os.getuid() if hasattr(os, "getuid") else "user"
    folder = Path(tempfile.gettempdir()) / f"adperception-benchmarks-{user}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


@dataclass
class Frames:
    """A list of frames in the shape of a dataset.

    Attributes:
        frames: what it holds.
        transforms: applied by ``get``.
        frame_ids: their names.
    """

    frames: Sequence[Any]
    transforms: Sequence[Any] = field(default=())
    frame_ids: Sequence[str] = field(init=False)

    def __post_init__(self) -> None:
        self.frame_ids = [str(frame.frame_id) for frame in self.frames]

    def __len__(self) -> int:
        return len(self.frames)

    def read(self, index: int) -> Any:
        """Frame ``index``."""
        return self.frames[index]

    def get(self, index: int, rng: np.random.Generator) -> Any:
        """Frame ``index``, transformed."""
        frame = self.frames[index]
        for transform in self.transforms:
            frame = transform(frame, rng)
        return frame


def kitti_tree(frames: int, *, small: bool = False) -> Path:
    """A tree of simulated frames in KITTI's layout."""
    folder = cache_folder() / f"kitti-{frames}{'-small' if small else ''}"
    workers = min(frames, os.cpu_count() or 1)
    make = SimulateKitti(folder, frames=frames, seed=0, workers=workers, columns=200 if small else 2083)
    try:
        return make()
    except ValueError:  # from another version of the simulator
        shutil.rmtree(folder)
        return make()


def kitti_dataset(section: Mapping[str, Any], frames: int, *, small: bool = False) -> Any:
    """A config's KITTI dataset over simulated frames, all of them.

    ``GroundTruthSampling`` is left out, since it needs a database of objects; the simulated streets have their own.
    """
    transforms = [t for t in section.get("transforms", ()) if t["type"] != "GroundTruthSampling"]
    root = kitti_tree(frames, small=small)
    return build(DATASETS, {**section, "root": str(root), "split": "trainval", "transforms": transforms})


def kitti_frames(section: Mapping[str, Any], frames: int, *, small: bool = False) -> list[LidarFrame]:
    """Different frames of such a dataset, augmented."""
    dataset = kitti_dataset(section, frames, small=small)
    return [dataset.get(index, np.random.default_rng([0, index])) for index in range(frames)]


def waymo_frames(section: Mapping[str, Any], frames: int, *, small: bool = False) -> list[LidarFrame]:
    """Labelled frames of all five simulated LiDARs in the vehicle's frame, augmented as the config says.

    At most eight scenes are made; further frames are other augmentations of them. Intensity and elongation are random:
    what they are changes no speed.
    """
    transforms = [
        build(TRANSFORMS, dict(t)) for t in section.get("transforms", ()) if t["type"] != "GroundTruthSampling"
    ]
    lasers = car_lasers(300 if small else 2650)
    scenes = [next(simulate_segment(0, number, 1, lasers)) for number in range(min(frames, 8))]
    made = []
    for number in range(frames):
        rng = np.random.default_rng([1, number])
        frame = scenes[number % len(scenes)]
        xyz = np.concatenate([positions.reshape(-1, 3) for positions in frame.positions.values()])
        rest = rng.uniform(size=(len(xyz), 2))
        cloud = PointCloud(np.concatenate([xyz, rest], axis=1).astype(np.float32), WAYMO_CHANNELS)
        lidar_frame = LidarFrame(f"{number:06d}", cloud, frame.boxes)
        for transform in transforms:
            lidar_frame = transform(lidar_frame, rng)
        made.append(lidar_frame)
    return made


def radar_frames(frames: int, moments: int, radar: str = "carrada") -> list[RadarFrame]:
    """Labelled frames of one simulated recording, each with the moments before it; at least half show an object.

    Args:
        frames: how many.
        moments: cubes of each.
        radar: a preset: ``"carrada"`` with 256 x 256 x 64 cells, ``"carrada_small"`` with 64 x 64 x 16.
    """
    sequences = (RadarSequence(seed, frames + moments - 1, radar) for seed in itertools.count())
    sequence = next(s for s in sequences if sum(bool(s[i].instances) for i in range(moments - 1, len(s))) * 2 >= frames)
    recording = list(sequence)
    magnitudes = [np.abs(one.cube.values).astype(np.float32) for one in recording]
    made = []
    for number in range(frames):
        last = number + moments - 1
        cubes = np.stack(magnitudes[number : last + 1])
        views = RadarViews.processed(cubes)
        grid, masks, objects = recording[last].cube.grid, recording[last].masks, recording[last].objects
        made.append(RadarFrame(f"simulated/{last:06d}", grid, cubes, views, masks, objects))
    return made
