"""Simulated drives in the Parquet layout of Waymo Open Dataset v2.

Five LiDARs as Waymo's cars carry them: one with 64 unevenly spaced beams on the roof, which turns while the car moves
(every pixel has its own pose), and four short-range ones with evenly spaced beams around the car. Angles, mounts and
ranges are ours, of Waymo's order of magnitude; the files' structure is theirs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.formats.waymo_parquet import BOX_TYPES, COMPONENTS, ComponentWriter, require_pyarrow
from adperception.datasets.formats.waymo_range_image import LASER_NAMES, TOP, pose_angles
from adperception.geometry import points_in_boxes
from adperception.registry import PREPARATIONS
from adperception.simulation.drive import Drive, draw_drive
from adperception.simulation.kitti_labels import placement_boxes
from adperception.simulation.lidar_sensor import LidarSensor, Returns
from adperception.simulation.objects import PlacedParts
from adperception.simulation.ray_casting import RayGrid
from adperception.simulation.simulated_tree import SimulatedTree
from adperception.structures import Boxes3D

__all__ = [
    "Laser",
    "SimulateWaymo",
    "SimulatedWaymoFrame",
    "car_lasers",
    "segment_name",
    "simulate_segment",
    "write_segment",
]

_VERSION = 1
_FRAME_SECONDS = 0.1
_ROWS_PER_GROUP = 50  # Waymo's own files have 256, a gigabyte in memory
_FIRST_TIME_US = 1_550_000_000_000_000
_LABEL_REACH_M = 75.0
_HIDDEN_SHARE = 0.1
_NAMES = {"Pedestrian": "Pedestrian", "Cyclist": "Cyclist"}  # everything else on wheels is a vehicle
_TYPE_NUMBERS = {name: number for number, name in BOX_TYPES.items()}


@dataclass(frozen=True)
class Laser:
    """A LiDAR on the car.

    Attributes:
        number: Waymo's, see ``LASER_NAMES``.
        sensor: beams and imperfections; what of its turn the car hides is in ``own_vehicle``.
        mount: ``(x, y, z)`` in the vehicle's frame, metres.
        heading: of the LiDAR's own x axis, radians; decides how its files are read, not what it sees.
        limits: lower and upper end of the vertical field of view in radians if the beams are evenly spaced in it.
        parts_of_turn: steps in which the car's motion during the turn is simulated; 0 for none.
    """

    number: int
    sensor: LidarSensor
    mount: tuple[float, float, float]
    heading: float
    limits: tuple[float, float] | None = None
    parts_of_turn: int = 0

    @property
    def grid(self) -> RayGrid:
        """The rays, from the back of the car counter-clockwise: the columns of the range image from right to left."""
        return self.sensor.grid(-np.pi + np.pi / self.sensor.columns)

    @property
    def extrinsic(self) -> NDArray[np.float64]:
        """``(4, 4)`` from the LiDAR's frame to the vehicle's."""
        matrix = np.eye(4)
        cos, sin = np.cos(self.heading), np.sin(self.heading)
        matrix[:2, :2] = [[cos, -sin], [sin, cos]]
        matrix[:3, 3] = self.mount
        return matrix


@dataclass(frozen=True)
class SimulatedWaymoFrame:
    """One frame as it is written, and where its points really are.

    Attributes:
        time: microseconds.
        vehicle_pose: ``(4, 4)`` of the car in the world.
        images: LiDAR number to the ``(2, H, W, 4)`` float32 range images of its two returns.
        pixel_poses: ``(H, W, 6)`` float32 of the top LiDAR.
        boxes: labelled objects, vehicle frame.
        object_ids: as long as ``boxes``; the same object has the same in all frames.
        points: as long as ``boxes``: LiDAR points inside.
        top_points: of these, those of the top LiDAR.
        hard: as long as ``boxes``: nearly hidden, to be flagged as difficult.
        positions: LiDAR number to the ``(N, 3)`` positions of its first returns, vehicle frame at the frame's time, in
            the order of the image.
    """

    time: int
    vehicle_pose: NDArray[np.float64]
    images: dict[int, NDArray[np.float32]]
    pixel_poses: NDArray[np.float32]
    boxes: Boxes3D
    object_ids: tuple[str, ...]
    points: NDArray[np.int64]
    top_points: NDArray[np.int64]
    hard: NDArray[np.bool_]
    positions: dict[int, NDArray[np.float64]]


def car_lasers(columns: int = 2650) -> tuple[Laser, ...]:
    """The five LiDARs; ``columns`` of the one on the roof, the others have 600 / 2650 of them."""
    # Beams lie closer together towards the horizon.
    depth = np.linspace(0, 1, 64)
    top = 2.4 - 20.0 * (0.55 * depth + 0.45 * depth**2)
    roof = LidarSensor(tuple(top.tolist()), columns, max_range_m=75.0, own_vehicle=())
    low, high, rows = -1.45, 0.52, 200
    middles = np.degrees(high - (np.arange(rows) + 0.5) * (high - low) / rows)
    short = []
    for name, mount, facing in (
        ("FRONT", (4.07, 0.0, 0.69), 0.0),
        ("SIDE_LEFT", (3.25, 1.03, 0.98), 90.0),
        ("SIDE_RIGHT", (3.25, -1.03, 0.98), -90.0),
        ("REAR", (-1.15, 0.0, 0.47), 180.0),
    ):
        behind = (facing + 92.0, facing + 268.0, -90.0, 90.0)
        sensor = LidarSensor(
            tuple(middles.tolist()), max(round(columns * 600 / 2650), 4), max_range_m=20.0, own_vehicle=(behind,)
        )
        short.append(Laser(LASER_NAMES[name], sensor, mount, np.radians(facing), (low, high)))
    return (Laser(TOP, roof, (1.43, 0.0, 2.18), 2.58, parts_of_turn=12), *short)


def segment_name(seed: int, number: int) -> str:
    """Of segment ``number`` of the endless recording that ``seed`` names, formed like Waymo's."""
    code = int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:8], "big")
    return f"{code:020d}_{number * 60}_000_{number * 60 + 20}_000"


def simulate_segment(seed: int, number: int, frames: int, lasers: tuple[Laser, ...]) -> Iterator[SimulatedWaymoFrame]:
    """The frames of segment ``number`` of the endless recording that ``seed`` names, one after the other."""
    rng = np.random.default_rng([seed, number])
    drive = draw_drive(rng, frames * _FRAME_SECONDS)
    for index in range(frames):
        yield _simulate_frame(drive, index, _FIRST_TIME_US + number * 60_000_000, lasers, rng)


def write_segment(name: str, frames: Iterable[SimulatedWaymoFrame], lasers: tuple[Laser, ...], folder: Path) -> None:
    """Write the component files of a segment below ``folder`` (``training``); the component folders must exist."""
    with ExitStack() as stack:
        files = {
            component: stack.enter_context(
                ComponentWriter(folder / component / f"{name}.parquet", component, _ROWS_PER_GROUP)
            )
            for component in COMPONENTS
        }
        for laser in lasers:
            files["lidar_calibration"].add(_calibration_row(name, laser))
        for frame in frames:
            key = {"key.segment_context_name": name, "key.frame_timestamp_micros": frame.time}
            for laser in lasers:
                first, second = frame.images[laser.number]
                images = {"range_image_return1": first, "range_image_return2": second}
                files["lidar"].add({**key, "key.laser_name": laser.number, **_flat("LiDARComponent", images)})
            poses = {"range_image_return1": frame.pixel_poses}
            files["lidar_pose"].add({**key, "key.laser_name": TOP, **_flat("LiDARPoseComponent", poses)})
            pose = frame.vehicle_pose.ravel().tolist()
            files["vehicle_pose"].add({**key, "[VehiclePoseComponent].world_from_vehicle.transform": pose})
            for row in _box_rows(key, frame):
                files["lidar_box"].add(row)


@PREPARATIONS.register_module()
class SimulateWaymo(SimulatedTree):
    """Makes a tree of simulated drives in Waymo's layout, or finds it made (see ``SimulatedTree``).

    Args:
        root: folder of the tree.
        frames: number of frames of all drives; the last drive may be shorter than the others.
        seed: names the recording; same seed, same bytes.
        workers: processes that simulate; 1 works in this process. Does not change the result.
        splits: split folder (``training``, ``validation``) to its share of the drives, in this order; shares sum to 1.
        segment_frames: frames per drive, 0.1 s apart.
        columns: firings of the roof LiDAR's beams per turn; Waymo's has 2,650.

    Raises:
        ValueError: for options that make no sense.
        ImportError: without pyarrow.
    """

    def __init__(
        self,
        root: str | Path,
        frames: int = 40,
        seed: int = 0,
        workers: int = 1,
        splits: dict[str, float] | None = None,
        segment_frames: int = 10,
        columns: int = 2650,
    ) -> None:
        require_pyarrow()
        super().__init__(root, frames, seed, workers, columns, splits or {"training": 0.8, "validation": 0.2})
        if segment_frames < 1:
            raise ValueError(f"SimulateWaymo: segment_frames={segment_frames} must be at least 1.")
        self.segment_frames = segment_frames

    @property
    def options(self) -> dict[str, Any]:
        """What the bytes of the tree depend on, as the manifest stores it."""
        return {
            "version": _VERSION,
            "layout": "waymo",
            "frames": self.frames,
            "seed": self.seed,
            "splits": self.splits,
            "segment_frames": self.segment_frames,
            "columns": self.columns,
        }

    def _make_folders(self) -> None:
        for split in self.splits:
            for component in COMPONENTS:
                (self.root / split / component).mkdir(parents=True, exist_ok=True)

    def _make(self) -> None:
        pieces = -(-self.frames // self.segment_frames)
        job = partial(
            _simulate_and_write,
            seed=self.seed,
            frames=tuple(self._frames_of(p) for p in range(pieces)),
            folders=tuple(self.root / split for split in self.split_of_pieces(pieces)),
            columns=self.columns,
        )
        for _ in self._run(job, pieces, self._frames_of):
            pass

    def _frames_of(self, piece: int) -> int:
        return min(self.segment_frames, self.frames - piece * self.segment_frames)


def _simulate_and_write(
    number: int, *, seed: int, frames: tuple[int, ...], folders: tuple[Path, ...], columns: int
) -> None:
    lasers = car_lasers(columns)
    drive = simulate_segment(seed, number, frames[number], lasers)
    write_segment(segment_name(seed, number), drive, lasers, folders[number])


def _simulate_frame(
    drive: Drive, index: int, start: int, lasers: tuple[Laser, ...], rng: np.random.Generator
) -> SimulatedWaymoFrame:
    seconds = index * _FRAME_SECONDS
    images: dict[int, NDArray[np.float32]] = {}
    positions: dict[int, NDArray[np.float64]] = {}
    both: dict[int, NDArray[np.float64]] = {}
    pixel_poses = np.zeros((0, 0, 6), dtype=np.float32)
    alone = met = np.zeros(len(drive.parts.labelled), dtype=np.int64)
    for laser in lasers:
        image, times, seen_alone, seen_met = _turn(drive, seconds, laser, rng)
        images[laser.number] = image
        places = [_positions(drive, seconds, laser, image[r], times) for r in range(2)]
        positions[laser.number], both[laser.number] = places[0], np.concatenate(places)
        if laser.number == TOP:
            pixel_poses = _pixel_poses(drive, times, image.shape[1])
            alone, met = seen_alone, seen_met
    boxes, near = _label_boxes(drive, seconds)
    top = points_in_boxes(both[TOP], boxes.boxes).sum(axis=1)
    total = points_in_boxes(np.concatenate(list(both.values())), boxes.boxes).sum(axis=1)
    return SimulatedWaymoFrame(
        time=start + round(seconds * 1e6),
        vehicle_pose=drive.world_pose(seconds),
        images=images,
        pixel_poses=pixel_poses,
        boxes=boxes,
        object_ids=tuple(hashlib.sha256(f"{start}/{i}".encode()).hexdigest()[:22] for i in near),
        points=total.astype(np.int64),
        top_points=top.astype(np.int64),
        hard=(met[near] < _HIDDEN_SHARE * alone[near]),
        positions=positions,
    )


def _turn(
    drive: Drive, seconds: float, laser: Laser, rng: np.random.Generator
) -> tuple[NDArray[np.float32], NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Both range images of a turn, the time of each column, and rays that would meet and do meet each object."""
    grid, sensor = laser.grid, laser.sensor
    image = np.full((2, grid.beams, grid.columns, 4), -1, dtype=np.float32)
    times = np.full(grid.columns, seconds)
    alone = np.zeros(len(drive.parts.labelled), dtype=np.int64)
    met = alone.copy()
    bounds = np.linspace(0, grid.columns, max(laser.parts_of_turn, 1) + 1).round().astype(int)
    for first, end in pairwise(bounds.tolist()):
        if laser.parts_of_turn:  # image columns, and with them time, run against the grid's
            middle = 1 - (first + end) / 2 / grid.columns
            times[grid.columns - end : grid.columns - first] = seconds + middle * _FRAME_SECONDS
        at = float(times[grid.columns - end]) if end > first else seconds
        scene = drive.seen_from(at, laser.mount)
        returns = sensor.returns(scene, grid, rng, columns=(first, end))
        alone, met = alone + returns.rays_alone, met + returns.rays_met
        column = grid.columns - 1 - returns.column
        image[0, returns.beam, column] = _pixels(returns, scene, rng)
    # A beam that grazes an edge brings back a second, farther return: what the neighbouring firing meets.
    behind = np.roll(image[0], -1, axis=1)
    split = (image[0, ..., 0] > 0) & (behind[..., 0] > image[0, ..., 0] + 1) & (rng.random(image[0].shape[:2]) < 0.5)
    image[1, split] = behind[split]
    return image, times, alone, met


def _pixels(returns: Returns, scene: PlacedParts, rng: np.random.Generator) -> NDArray[np.float32]:
    """``(N, 4)`` range, raw intensity, elongation (longer in foliage), and -1: no zones without labels."""
    pixels = np.full((len(returns.part), 4), -1, dtype=np.float32)
    pixels[:, 0] = returns.range_m
    pixels[:, 1] = np.arctanh(returns.intensity)  # readers take the tanh
    porous = scene.batch.porosity[returns.part] > 0
    pixels[:, 2] = np.clip(rng.exponential(np.where(porous, 0.25, 0.02)), 0, 1.5)
    return pixels


def _positions(
    drive: Drive, seconds: float, laser: Laser, image: NDArray[np.float32], times: NDArray[np.float64]
) -> NDArray[np.float64]:
    """``(N, 3)`` where the returns of an image are, from the rays that were cast: vehicle frame at ``seconds``."""
    grid = laser.grid
    row, column = np.nonzero(image[..., 0] > 0)
    azimuth = grid.azimuth[grid.columns - 1 - column]
    tangent = grid.elevation_tangent.astype(np.float64)[row]
    horizontal = image[row, column, 0] / np.sqrt(1 + tangent**2)
    car = np.stack([horizontal * np.cos(azimuth), horizontal * np.sin(azimuth), horizontal * tangent], axis=1)
    car += laser.mount
    now = drive.pose(seconds)
    moved = np.empty_like(car)
    for at in np.unique(times):
        mine = times[column] == at
        moved[mine] = now.from_street(drive.pose(float(at)).to_street(car[mine]))
    return moved


def _pixel_poses(drive: Drive, times: NDArray[np.float64], rows: int) -> NDArray[np.float32]:
    poses = np.stack([pose_angles(drive.world_pose(float(at))) for at in times])
    return np.repeat(poses[None].astype(np.float32), rows, axis=0)


def _label_boxes(drive: Drive, seconds: float) -> tuple[Boxes3D, NDArray[np.int64]]:
    """Boxes of the objects near the car in its frame, and their numbers."""
    boxes = placement_boxes(drive.seen_from(seconds, (0.0, 0.0, 0.0)).labelled)
    near = np.flatnonzero(np.hypot(boxes.boxes[:, 0], boxes.boxes[:, 1]) < _LABEL_REACH_M)
    chosen = boxes.select(near)
    return Boxes3D(chosen.boxes, tuple(_NAMES.get(name, "Vehicle") for name in chosen.names)), near


def _flat(component: str, images: dict[str, NDArray[np.float32]]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, image in images.items():
        out[f"[{component}].{name}.values"] = image.ravel()
        out[f"[{component}].{name}.shape"] = list(image.shape)
    return out


def _calibration_row(name: str, laser: Laser) -> dict[str, Any]:
    beams = np.radians(laser.sensor.elevations_deg)[::-1]
    low, high = laser.limits or (float(beams[0]), float(beams[-1]))
    prefix = "[LiDARCalibrationComponent]"
    return {
        "key.segment_context_name": name,
        "key.laser_name": laser.number,
        f"{prefix}.extrinsic.transform": laser.extrinsic.ravel().tolist(),
        f"{prefix}.beam_inclination.min": low,
        f"{prefix}.beam_inclination.max": high,
        f"{prefix}.beam_inclination.values": None if laser.limits else beams.tolist(),
    }


def _box_rows(key: dict[str, Any], frame: SimulatedWaymoFrame) -> list[dict[str, Any]]:
    prefix, rows = "[LiDARBoxComponent]", []
    for i, (box, name) in enumerate(zip(frame.boxes.boxes.tolist(), frame.boxes.names, strict=True)):
        row: dict[str, Any] = {**key, "key.laser_object_id": frame.object_ids[i]}
        columns = ("center.x", "center.y", "center.z", "size.x", "size.y", "size.z", "heading")
        row.update({f"{prefix}.box.{column}": value for column, value in zip(columns, box, strict=True)})
        row.update({f"{prefix}.{what}.{axis}": 0.0 for what in ("speed", "acceleration") for axis in "xyz"})
        row[f"{prefix}.type"] = _TYPE_NUMBERS[name]
        row[f"{prefix}.num_lidar_points_in_box"] = int(frame.points[i])
        row[f"{prefix}.num_top_lidar_points_in_box"] = int(frame.top_points[i])
        if frame.hard[i]:  # empty for all others, as in Waymo's files
            row[f"{prefix}.difficulty_level.detection"] = row[f"{prefix}.difficulty_level.tracking"] = 2
        rows.append(row)
    return rows
