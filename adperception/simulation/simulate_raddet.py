"""Simulated frames in RADDet's layout: complex cubes and labelled boxes, labels as converted (JSON)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.formats.radar_instances import circular_extent
from adperception.datasets.formats.radar_sensor import SENSOR_FILE, RadarSensor
from adperception.datasets.formats.raddet import FOLDERS, RADDetLabels, cube_file, label_file, write_labels
from adperception.registry import PREPARATIONS
from adperception.simulation.fmcw import FMCWRadar
from adperception.simulation.radar_labels import InstanceLabel
from adperception.simulation.radar_sequence import RadarSequence, SimulatedRadarFrame
from adperception.simulation.simulated_tree import SimulatedTree
from adperception.structures import RadarGrid

__all__ = ["SimulateRADDet", "boxes_of", "simulate_frame"]

_VERSION = 1
_CLASSES = {1: "person", 2: "bicycle", 3: "car"}
_PART_FRAMES = 100
# A scene of a few seconds; the frame is taken where somebody is in it.
_SCENE_FRAMES = 40
_TRIES = 8


@PREPARATIONS.register_module()
class SimulateRADDet(SimulatedTree):
    """Makes a tree of simulated frames in RADDet's layout, or finds it made (see ``SimulatedTree``).

    Every frame is a scene of its own with at least one labelled object, at most two; of RADDet's six classes there are
    person, bicycle and car. Numbers of frames are even: no two are consecutive in time, and none pretend to be.

    Args:
        root: folder of the tree.
        frames: number of frames.
        seed: names the recording; same seed, same bytes.
        workers: processes that simulate; 1 works in this process. Does not change the result.
        splits: folder (``train``, ``test``) to its share of the frames; shares sum to 1.
        radar: name of a preset of ``FMCWRadar``; ``"carrada"`` is RADDet's radar as well.

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
        radar: str = "carrada",
    ) -> None:
        super().__init__(root, frames, seed, workers, 1, splits or {"train": 0.8, "test": 0.2})
        if set(self.splits) - set(FOLDERS):
            raise ValueError(f"SimulateRADDet: splits={self.splits} may only name {', '.join(FOLDERS)}.")
        self.radar = FMCWRadar.preset(radar)
        self.radar_name = radar

    @property
    def options(self) -> dict[str, Any]:
        """What the bytes of the tree depend on, as the manifest stores it."""
        return {
            "version": _VERSION,
            "layout": "raddet",
            "frames": self.frames,
            "seed": self.seed,
            "splits": self.splits,
            "radar": self.radar_name,
        }

    def _make_folders(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)

    def _make(self) -> None:
        folders = tuple(self.split_of_pieces(self.frames))
        job = partial(_simulate_and_write, seed=self.seed, folders=folders, root=self.root, radar=self.radar)
        for _ in self._run(job, self.frames, lambda piece: 1):
            pass
        RadarSensor(self.radar.grid, radar=self.radar.to_dict()).write(self.root / SENSOR_FILE)


def simulate_frame(seed: int, number: int, radar: FMCWRadar) -> SimulatedRadarFrame:
    """Frame ``number`` of the endless recording that ``seed`` names: the first drawn scene with a labelled object."""
    for draw in range(100):
        own_seed = int(np.random.SeedSequence([seed, number, draw]).generate_state(1, np.uint64)[0])
        sequence = RadarSequence(own_seed, _SCENE_FRAMES, radar)
        moments = np.random.default_rng([own_seed, 2]).permutation(_SCENE_FRAMES)
        users = sequence.scene.road_users
        busy = [int(i) for i in moments if any(user.first_frame <= i < user.end_frame for user in users)]
        for moment in busy[:_TRIES]:
            frame = sequence[moment]
            if frame.instances:
                return frame
    raise ValueError(f"no scene of 100 with a visible object, radar {radar}: is its range that short?")


def boxes_of(instance: InstanceLabel, grid: RadarGrid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """An object's box ``(6,)`` in the cube and ``(4,)`` in the Cartesian map, RADDet's way.

    The box encloses the cells of the detections; along Doppler it may reach beyond the ends, where the axis wraps.
    """
    near, far = instance.range_doppler.sparse, instance.range_angle.sparse
    rows = grid.range_bins - 1 - near[:, 0]
    low = np.array([rows.min(), far[:, 1].min()], dtype=np.float64)
    high = np.array([rows.max(), far[:, 1].max()], dtype=np.float64)
    dopplers = near[:, 1]
    extent = circular_extent(dopplers, grid.doppler_bins)
    # The column from which all others lie within the extent.
    start = next(c for c in dopplers if np.mod(dopplers - c, grid.doppler_bins).max() < extent)
    middle = np.mod(start + (extent - 1) / 2, grid.doppler_bins)
    box = np.array([*(low + high) / 2, middle, *(high - low + 1), extent])
    return box, _cartesian_box(low, high, grid)


def _cartesian_box(low: NDArray[np.float64], high: NDArray[np.float64], grid: RadarGrid) -> NDArray[np.float64]:
    """Centre and size, down and across, in a map of R x 2R square cells with the radar at the middle of the bottom."""
    ranges = grid.range_m([low[0], high[0]]) / grid.range_bin_m
    angles = np.deg2rad(grid.azimuth_deg(np.linspace(low[1], high[1], 5)))
    down = grid.range_bins - 1 - np.outer(ranges, np.cos(angles))
    across = grid.range_bins - 1 + np.outer(ranges, np.sin(angles))
    first, last = np.array([down.min(), across.min()]), np.array([down.max(), across.max()])
    return np.concatenate([(first + last) / 2, last - first + 1])


def _simulate_and_write(number: int, *, seed: int, folders: tuple[str, ...], root: Path, radar: FMCWRadar) -> None:
    frame = simulate_frame(seed, number, radar)
    boxes = [boxes_of(instance, radar.grid) for instance in frame.instances]
    labels = RADDetLabels(
        tuple(_CLASSES[instance.class_id] for instance in frame.instances),
        np.stack([box for box, _ in boxes]),
        np.stack([cartesian for _, cartesian in boxes]),
    )
    frame_id = f"{folders[number]}/part{number // _PART_FRAMES + 1}/{2 * number:06d}"
    path = cube_file(root, frame_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, frame.cube.values)
    write_labels(label_file(root, frame_id), labels)
