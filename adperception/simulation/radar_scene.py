"""What surrounds a parked radar, and who comes by: everything but the labels and the recording.

Amplitudes are those of a point's peak in the cube, so that a scene looks alike to radars of other cell numbers. The
unit is CARRADA's. ``docs/radar_simulator.md`` compares the outcome with CARRADA's statistics.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adperception.simulation.fmcw import Scatterers
from adperception.simulation.radar_objects import CAR, CYCLIST, PEDESTRIAN, RoadUser, Track, draw_body
from adperception.structures.radar_grid import RadarGrid

__all__ = ["NOISE_POWER", "RadarScene", "draw_scene", "echo_gain", "receiver_gain"]

Array = NDArray[np.float64]

NOISE_POWER = 3150.0
"""Mean |X|^2 of noise in a cell of CARRADA's cubes, where the receiver's filter does not cut it."""

_VIEW_SINE = 0.9


def echo_gain(class_id: int, range_m: Array, sin_azimuth: Array) -> Array:
    """Amplitude in the cube of a body point of weight one: path loss, element pattern, reflectivity of the class."""
    pattern = np.maximum(1 - sin_azimuth**2, 0) ** 0.5
    law = np.exp(np.interp(np.log(np.maximum(range_m, 0.5)), np.log(_KNOTS_M), np.log(_AMPLITUDE[class_id])))
    return np.asarray(law * pattern)


_KNOTS_M = (2.3, 3.9, 5.5, 7.0, 8.6, 11.7, 14.8, 19.5, 24.2, 30.5, 38.3, 44.5)
_AMPLITUDE: dict[int, tuple[float, ...]] = {
    PEDESTRIAN: (13000, 12000, 14000, 9500, 5600, 1500, 1050, 1000, 480, 190, 130, 70),
    CYCLIST: (13500, 18500, 11500, 9500, 8500, 2900, 1300, 1250, 720, 290, 130, 80),
    CAR: (17000, 36000, 33000, 19500, 16000, 9200, 5000, 4700, 3300, 1750, 1150, 490),
}


def receiver_gain(range_m: Array, max_range_m: float) -> Array:
    """Amplitude response of the receiver's filters: the last 7 % of the range are cut by about 8 dB."""
    share = range_m / max_range_m
    cut_db = 8.0 / (1 + np.exp(-(share - 0.925) / 0.008))
    return np.asarray(10 ** (-cut_db / 20))


@dataclass(frozen=True)
class RadarScene:
    """A place and the objects that come by in a number of frames.

    Attributes:
        static: what stands still, amplitudes in the cube (complex).
        road_users: the objects; never more than two at a time.
        wall: a mirror for the second way of echoes: unit normal and distance (3,), or ``None``.
        ghost_gain: amplitude of the mirrored echo.
    """

    static: Scatterers
    road_users: tuple[RoadUser, ...]
    wall: tuple[float, float, float] | None
    ghost_gain: float


def draw_scene(rng: np.random.Generator, frames: int, frame_period_s: float, grid: RadarGrid) -> RadarScene:
    """A scene for a recording of ``frames`` frames."""
    wall = None
    if rng.random() < 0.6:
        angle = rng.uniform(0.8, 1.57) * rng.choice([-1.0, 1.0])
        wall = (float(np.cos(angle)), float(np.sin(angle)), float(rng.uniform(6, 20)))
    return RadarScene(
        static=_static(rng, grid),
        road_users=tuple(_road_users(rng, frames, frame_period_s, grid.max_range_m)),
        wall=wall,
        ghost_gain=float(10 ** (-rng.uniform(14, 24) / 20)),
    )


def _static(rng: np.random.Generator, grid: RadarGrid) -> Scatterers:
    """Ground, things beside the road, a few strong reflectors, the bumper and the coupling from TX to RX."""
    # As many as there are rows, so that coarse cells are not fuller of ground than CARRADA's.
    count, max_range_m = 6 * grid.range_bins, grid.max_range_m
    ranges = rng.uniform(1.5, max_range_m, count)
    level = 150 * np.exp(rng.normal(0, 0.7))
    ground = level * np.exp(rng.normal(0, 0.9, count)) * np.sqrt(1 + (14 / ranges) ** 2)
    strong = int(rng.integers(3, 10))
    strong_range = rng.uniform(4, 0.9 * max_range_m, strong)
    reflectors = np.exp(rng.normal(np.log(2500), 1.0, strong)) * np.minimum(1, 20 / strong_range)
    near_range = np.concatenate([rng.uniform(0.02, 0.35, 4), rng.uniform(1.6, 2.6, 4)])
    near = np.concatenate([rng.uniform(4e3, 1.6e4, 4), rng.uniform(1e3, 6e3, 4)])
    ranges = np.concatenate([ranges, strong_range, near_range])
    amplitude = np.concatenate([ground, reflectors, near])
    turn = np.exp(2j * np.pi * rng.random(len(ranges)))
    sine = rng.uniform(-0.95, 0.95, len(ranges))
    return Scatterers(ranges, np.zeros(len(ranges)), sine, amplitude * turn)


_CLASS_SHARE = {PEDESTRIAN: 0.20, CYCLIST: 0.20, CAR: 0.60}
_LONGEST_FRAMES = 120
_SHORTEST_FRAMES = 12
_PAUSE = 0.40
"""Mean pause before an object, as a share of the time it is in view: a third of CARRADA's frames are empty."""
_SECOND = 0.38
"""Share of objects that are met by a second one: 11 % of CARRADA's frames hold two."""


def _road_users(rng: np.random.Generator, frames: int, frame_period_s: float, max_range_m: float) -> list[RoadUser]:
    """Objects one after the other, with pauses; now and then a second one at the same time."""
    users: list[RoadUser] = []
    frame = -int(rng.integers(0, _LONGEST_FRAMES))
    while frame < frames:
        class_id, track, length = _passage(rng, frame_period_s, max_range_m)
        start = frame + round(rng.exponential(_PAUSE) * length)
        drawn = [(class_id, track, length, start, start + length)]
        if rng.random() < _SECOND:
            second_id, second, second_length = _passage(rng, frame_period_s, max_range_m)
            share = min(second_length, round(rng.uniform(0.25, 0.75) * length))
            inner = start + int(rng.integers(0, length - share + 1))
            drawn.append((second_id, second, second_length, inner, inner + share))
        for who, way, whole, first, end in drawn:
            if end > 0 and first < frames:
                body = draw_body(who, way.speed_mps, rng)
                # The middle of its way is the middle of the time it could be in view.
                users.append(RoadUser(len(users) + 1, who, body, way, first, end, first + (whole - 1) / 2))
        frame = start + length
    return users


def _passage(rng: np.random.Generator, frame_period_s: float, max_range_m: float) -> tuple[int, Track, int]:
    """Class, way and frames in view of an object; time 0 of the way is half-way through the view."""
    class_id = int(rng.choice(list(_CLASS_SHARE), p=list(_CLASS_SHARE.values())))
    while True:
        track = _draw_track(class_id, rng, max_range_m)
        half = 0
        while half < _LONGEST_FRAMES // 2 and all(
            _in_view(track, sign * (half + 1) * frame_period_s, max_range_m) for sign in (1, -1)
        ):
            half += 1
        if 2 * half >= _SHORTEST_FRAMES:
            return class_id, track, 2 * half + 1


def _draw_track(class_id: int, rng: np.random.Generator, max_range_m: float) -> Track:
    """Where and how objects of a class move about in CARRADA: people everywhere, cars along the road ahead."""
    if class_id == CAR:
        speed = float(rng.uniform(2.0, 10.0))
        range_m = float(rng.uniform(0.04, 0.96)) * max_range_m
        along = rng.random() < 0.9
        sine = float(rng.normal(0, 0.1 if along else 0.35))
        heading = rng.normal(0, 0.12) + np.pi * rng.integers(2) if along else rng.uniform(-np.pi, np.pi)
    else:
        low, high, mean = (0.4, 1.7, 12.5) if class_id == PEDESTRIAN else (1.2, 4.2, 12.5)
        speed = float(rng.uniform(low, high))
        range_m = mean * float(np.exp(rng.normal(0, 0.6)))
        sine = float(rng.normal(0, 0.33))
        heading = rng.uniform(-np.pi, np.pi)
    sine = float(np.clip(sine, -0.85, 0.85))
    position = (range_m * np.sqrt(1 - sine**2), range_m * sine)
    return Track(position, float(heading), speed, float(rng.normal(0, 0.01)), 0.2, float(rng.uniform(0.5, 1.5)))


def _in_view(track: Track, seconds: float, max_range_m: float) -> bool:
    position, _ = track.at(seconds)
    distance = float(np.linalg.norm(position))
    return 1.8 < distance < 0.97 * max_range_m and position[0] > 0 and abs(position[1]) < _VIEW_SINE * distance
