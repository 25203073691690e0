"""What surrounds a parked radar, and who comes by: everything but the labels and the recording.

Amplitudes are those of a point's peak in the cube, so that a scene looks alike to radars of other cell numbers: CARRADA's
numbers are the unit. ``docs/radar_simulator.md`` compares the outcome with CARRADA's statistics.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adperception.simulation.fmcw import Scatterers
from adperception.simulation.radar_objects import CAR, CYCLIST, PEDESTRIAN, RoadUser, Track, draw_body

__all__ = ["NOISE_POWER", "RadarScene", "draw_scene", "echo_gain", "receiver_gain"]

Array = NDArray[np.float64]

NOISE_POWER = 3280.0
"""Mean |X|^2 of noise in a cell of CARRADA's cubes, where the receiver's filter does not cut it."""

_SIZES = {PEDESTRIAN: 1.0, CYCLIST: 1.0, CAR: 1.0}
_VIEW_SINE = 0.9


def echo_gain(class_id: int, range_m: Array, sin_azimuth: Array) -> Array:
    """Amplitude in the cube of a body point of weight one: path loss, element pattern, reflectivity of the class."""
    pattern = np.maximum(1 - sin_azimuth**2, 0) ** 0.5
    knots, amplitude = _AMPLITUDE[class_id]
    law = np.exp(np.interp(np.log(np.maximum(range_m, 0.5)), np.log(knots), np.log(amplitude)))
    return np.asarray(law * pattern)


_AMPLITUDE: dict[int, tuple[list[float], list[float]]] = {
    PEDESTRIAN: ([2.0, 5.0, 10.0, 20.0, 40.0], [2500.0, 1500.0, 500.0, 180.0, 70.0]),
    CYCLIST: ([2.0, 5.0, 10.0, 20.0, 40.0], [2500.0, 1500.0, 500.0, 180.0, 70.0]),
    CAR: ([2.0, 5.0, 10.0, 20.0, 45.0], [2500.0, 2500.0, 1200.0, 450.0, 150.0]),
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


def draw_scene(rng: np.random.Generator, frames: int, frame_period_s: float, max_range_m: float) -> RadarScene:
    """A scene for a recording of ``frames`` frames."""
    wall = None
    if rng.random() < 0.6:
        angle = rng.uniform(0.8, 1.57) * rng.choice([-1.0, 1.0])
        wall = (float(np.cos(angle)), float(np.sin(angle)), float(rng.uniform(6, 20)))
    return RadarScene(
        static=_static(rng, max_range_m),
        road_users=tuple(_road_users(rng, frames, frame_period_s, max_range_m)),
        wall=wall,
        ghost_gain=float(10 ** (-rng.uniform(14, 24) / 20)),
    )


def _static(rng: np.random.Generator, max_range_m: float) -> Scatterers:
    """Ground, things beside the road, a few strong reflectors, the bumper and the coupling from TX to RX."""
    count = 1500
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


_FIRST = (0.345, 0.545, 0.11)
"""Share of frames without object, with one, with two: CARRADA's test split."""
_CLASS_SHARE = {PEDESTRIAN: 0.45, CYCLIST: 0.2, CAR: 0.35}


def _road_users(rng: np.random.Generator, frames: int, frame_period_s: float, max_range_m: float) -> list[RoadUser]:
    """Objects one after the other, with pauses; now and then a second one at the same time."""
    users: list[RoadUser] = []
    frame = -int(rng.integers(0, 80))
    while frame < frames:
        empty = int(rng.exponential(1) * 40 * _FIRST[0] / (1 - _FIRST[0]) * 2)
        start = frame + empty
        end = start + int(rng.integers(40, 120))
        spans = [(start, end)]
        if rng.random() < 0.35:
            length = end - start
            inner = start + int(rng.uniform(0.0, 0.5) * length)
            spans.append((inner, min(end, inner + int(rng.uniform(0.25, 0.75) * length))))
        for first, last in spans:
            if last > 0 and first < frames:
                users.append(_road_user(rng, len(users) + 1, (first, last), frame_period_s, max_range_m))
        frame = end
    return users


_RANGE_OF_CLASS = {PEDESTRIAN: (2.26, 0.5), CYCLIST: (2.35, 0.5), CAR: (2.75, 0.75)}
"""Mean and deviation of the logarithm of the range, metres."""


def _road_user(
    rng: np.random.Generator, number: int, span: tuple[int, int], frame_period_s: float, max_range_m: float
) -> RoadUser:
    class_id = int(rng.choice(list(_CLASS_SHARE), p=list(_CLASS_SHARE.values())))
    first, end = span
    middle = (first + end - 1) / 2
    half_s = (end - first) / 2 * frame_period_s
    for _ in range(200):
        low, high = {PEDESTRIAN: (0.7, 1.8), CYCLIST: (1.4, 4.5), CAR: (1.5, 9.0)}[class_id]
        speed = float(rng.uniform(low, high))
        range_m = float(np.exp(rng.normal(*_RANGE_OF_CLASS[class_id])))
        sine = float(np.clip(rng.normal(0, 0.33), -0.8, 0.8))
        position = (range_m * np.sqrt(1 - sine**2), range_m * sine)
        turn = float(rng.normal(0, 0.02))
        track = Track(position, float(rng.uniform(-np.pi, np.pi)), speed, turn, 0.2, float(rng.uniform(0.5, 1.5)))
        if all(_in_view(track, seconds, max_range_m) for seconds in np.linspace(-half_s, half_s, 9)):
            return RoadUser(number, class_id, draw_body(class_id, speed, rng), track, first, end, middle)
        if rng.random() < 0.1:
            # A fast object in a long span does not fit: let it be slower, or pass in a shorter time.
            half_s *= 0.8
    track = Track((12.0, 0.0), 0.0, 0.0)
    return RoadUser(number, PEDESTRIAN, draw_body(PEDESTRIAN, 0.5, rng), track, first, end, middle)


def _in_view(track: Track, seconds: float, max_range_m: float) -> bool:
    position, _ = track.at(seconds)
    distance = float(np.linalg.norm(position))
    return 2.0 < distance < 0.96 * max_range_m and position[0] > 0 and abs(position[1]) < _VIEW_SINE * distance


def mirrored(scatterers: Scatterers, wall: tuple[float, float, float], gain: float) -> Scatterers:
    """The echo by way of a wall and back directly, or the other way round: half-way between object and mirror image."""
    normal = np.array(wall[:2])
    cosine = np.sqrt(1 - scatterers.sin_azimuth**2)
    position = scatterers.range_m[:, None] * np.stack([cosine, scatterers.sin_azimuth], 1)
    image = position - 2 * np.multiply.outer(position @ normal - wall[2], normal)
    image_range = np.linalg.norm(image, axis=1)
    return Scatterers(
        (scatterers.range_m + image_range) / 2,
        scatterers.velocity_mps,
        image[:, 1] / image_range,
        scatterers.amplitude * gain,
    )
