"""A small tree in CARRADA's layout, made by hand: two objects that cross the scene, in frames 2 and later."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from adperception.datasets.formats.carrada_writer import (
    CarradaFrame,
    SequenceRecord,
    write_frame,
    write_indices,
    write_sequence_files,
)
from adperception.datasets.formats.radar_instances import RadarInstance, ViewLabel
from adperception.datasets.formats.radar_sensor import SENSOR_FILE, RadarSensor
from adperception.structures import RadarGrid, RadarMasks

GRID = RadarGrid(range_bins=32, azimuth_bins=24, doppler_bins=16, range_bin_m=0.5, doppler_bin_mps=1.0)
SPLITS = {"2020-01-01-00-00-00": "Train", "2020-01-01-00-01-00": "Train", "2020-01-01-00-02-00": "Test"}


def grown(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Pixels closer than 3 to a point."""
    rows, columns = np.indices(shape)
    near = np.zeros(shape, dtype=bool)
    for row, column in points:
        near |= (rows - row) ** 2 + (columns - column) ** 2 < 9
    return np.argwhere(near)


def label(points: list[tuple[int, int]], shape: tuple[int, int]) -> ViewLabel:
    sparse = np.array(points, dtype=np.int64)
    return ViewLabel(sparse, grown(sparse, shape), np.concatenate([sparse.min(0), sparse.max(0)]))


def instances_of(frame: int) -> tuple[RadarInstance, ...]:
    """A pedestrian (RD row 6 + frame, column 4) and a car (RD row 20, column 11); none before frame 2."""
    if frame < 2:
        return ()
    rows, azimuths, dopplers = GRID.shape
    near, far = 6 + frame, 20
    person = [(near, 4), (near + 1, 5)]
    car = [(far, 10), (far + 3, 12)]
    return (
        RadarInstance(
            "000017",
            1,
            label(person, (rows, dopplers)),
            label([(rows - near, 8), (rows - near - 1, 9)], (rows, azimuths)),
        ),
        RadarInstance(
            "000018",
            3,
            label(car, (rows, dopplers)),
            label([(rows - far, 17), (rows - far - 3, 18)], (rows, azimuths)),
        ),
    )


def masks_of(instances: tuple[RadarInstance, ...], pixels: str) -> RadarMasks:
    masks = {}
    for view, columns in (("range_doppler", GRID.doppler_bins), ("range_angle", GRID.azimuth_bins)):
        masks[view] = np.zeros((GRID.range_bins, columns), dtype=np.uint8)
        for instance in instances:
            rows, cols = getattr(getattr(instance, view), pixels).T
            masks[view][rows, cols] = instance.class_id
    return RadarMasks(**masks)


def make_frame(sequence: int, frame: int) -> CarradaFrame:
    rng = np.random.default_rng([sequence, frame])
    instances = instances_of(frame)
    magnitude = (100 * rng.rayleigh(size=GRID.shape)).astype(np.float32)
    return CarradaFrame(
        magnitude,
        masks_of(instances, "dense"),
        masks_of(instances, "sparse"),
    )


def make_tree(folder: Path, frames: int = 8) -> Path:
    """Write ``folder/Carrada`` and ``folder/Carrada_RAD``; returns the former."""
    root = folder / "Carrada"
    records = []
    for number, (name, split) in enumerate(SPLITS.items()):
        names = tuple(f"{i:06d}" for i in range(frames))
        for i, frame in enumerate(names):
            write_frame(root, folder / "Carrada_RAD", name, frame, make_frame(number, i))
        record = SequenceRecord(name, split, names, {frame: instances_of(i) for i, frame in enumerate(names)})
        write_sequence_files(root, record, [10**18 + i * 100_000_000 for i in range(frames)])
        records.append(record)
    write_indices(root, records)
    RadarSensor(GRID, label_axis="sin").write(root / SENSOR_FILE)
    return root
