"""Pedestrians, cyclists and cars as a radar sees them: a few dozen moving points."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adperception.simulation.fmcw import Scatterers

__all__ = ["CAR", "CLASS_NAMES", "CYCLIST", "PEDESTRIAN", "Body", "MovingPoints", "RoadUser", "Track", "draw_body"]

PEDESTRIAN, CYCLIST, CAR = 1, 2, 3
CLASS_NAMES = ("background", "pedestrian", "cyclist", "car")
"""Names of the class numbers, as CARRADA counts them."""

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Body:
    """P points in the frame of an object, x ahead, y to the left, metres; each may swing along x.

    Attributes:
        xy: ``(P, 2)`` mean positions.
        weight: ``(P,)`` amplitudes, one for an ordinary point.
        normal: ``(P, 2)`` outward normal of the face the point is on; zero for points that are seen from all sides.
        swing_m: ``(P,)`` amplitude of the swing.
        swing_rad_per_m: ``(P,)`` phase per metre the object has gone: a step, a turn of a wheel.
        swing_phase: ``(P,)`` at the start.
    """

    xy: Array
    weight: Array
    normal: Array
    swing_m: Array
    swing_rad_per_m: Array
    swing_phase: Array


@dataclass(frozen=True)
class Track:
    """A way through the scene: an arc with a slowly varying speed.

    Attributes:
        position: metres at time 0, (ahead, to the side of growing azimuth columns).
        heading: radians at time 0, from ahead to the side of growing columns.
        speed_mps: mean speed.
        turn_rad_per_m: curvature.
        sway: relative variation of the speed.
        sway_rad_per_s: how fast it varies.
    """

    position: tuple[float, float]
    heading: float
    speed_mps: float
    turn_rad_per_m: float = 0.0
    sway: float = 0.0
    sway_rad_per_s: float = 1.0

    def gone_m(self, seconds: float) -> float:
        """Metres since time 0."""
        varying = self.sway / self.sway_rad_per_s * (1 - np.cos(self.sway_rad_per_s * seconds))
        return float(self.speed_mps * (seconds + varying))

    def speed_at(self, seconds: float) -> float:
        """Metres per second."""
        return float(self.speed_mps * (1 + self.sway * np.sin(self.sway_rad_per_s * seconds)))

    def at(self, seconds: float) -> tuple[Array, float]:
        """Position and heading."""
        gone = self.gone_m(seconds)
        heading = self.heading + self.turn_rad_per_m * gone
        middle = self.heading + self.turn_rad_per_m * gone / 2
        chord = gone * np.sinc(self.turn_rad_per_m * gone / (2 * np.pi))
        return np.array(self.position) + chord * np.array([np.cos(middle), np.sin(middle)]), float(heading)


@dataclass(frozen=True)
class RoadUser:
    """An object, its way, and when it is there.

    Attributes:
        instance_id: number in the sequence, from 1.
        class_id: ``PEDESTRIAN``, ``CYCLIST`` or ``CAR``.
        body: its points.
        track: its way; time 0 is ``middle_frame``.
        first_frame: the first frame it is there.
        end_frame: the first frame it is no longer there.
        middle_frame: the frame of the track's time 0.
    """

    instance_id: int
    class_id: int
    body: Body
    track: Track
    first_frame: int
    end_frame: int
    middle_frame: float

    def position(self, frame: float, frame_period_s: float) -> Array:
        """Where it is, metres."""
        return self.track.at((frame - self.middle_frame) * frame_period_s)[0]

    def points(self, frame: float, frame_period_s: float) -> MovingPoints:
        """Its points at a frame."""
        seconds = (frame - self.middle_frame) * frame_period_s
        centre, heading = self.track.at(seconds)
        speed = self.track.speed_at(seconds)
        body = self.body
        phase = body.swing_rad_per_m * self.track.gone_m(seconds) + body.swing_phase
        along = body.xy[:, 0] + body.swing_m * np.sin(phase)
        speed_along = speed * (1 + body.swing_m * body.swing_rad_per_m * np.cos(phase))
        forward = np.array([np.cos(heading), np.sin(heading)])
        left = np.array([-forward[1], forward[0]])
        # A turning body moves sideways at its ends.
        turning = speed * self.track.turn_rad_per_m
        return MovingPoints(
            position=centre + np.multiply.outer(along, forward) + np.multiply.outer(body.xy[:, 1], left),
            velocity=np.multiply.outer(speed_along - turning * body.xy[:, 1], forward)
            + np.multiply.outer(turning * along, left),
            normal=np.multiply.outer(body.normal[:, 0], forward) + np.multiply.outer(body.normal[:, 1], left),
            weight=body.weight,
        )


@dataclass(frozen=True)
class MovingPoints:
    """P points of an object in the scene: metres and metres per second, (ahead, to the side of growing columns).

    Attributes:
        position: ``(P, 2)``.
        velocity: ``(P, 2)``.
        normal: ``(P, 2)`` outward normal, zero for points that are seen from all sides.
        weight: ``(P,)`` amplitudes.
    """

    position: Array
    velocity: Array
    normal: Array
    weight: Array

    def seen(self) -> Scatterers:
        """As scatterers with the amplitudes of weight and aspect; the path is left to others."""
        range_m = np.linalg.norm(self.position, axis=1)
        sight = self.position / range_m[:, None]
        facing = -np.einsum("pc,pc->p", self.normal, sight)
        everywhere = ~self.normal.any(axis=1)
        share = np.where(everywhere, 1.0, _HIDDEN + np.maximum(facing, 0) ** _LOBE)
        return Scatterers(range_m, -np.einsum("pc,pc->p", self.velocity, sight), sight[:, 1], self.weight * share)

    def by_way_of(self, wall: tuple[float, float, float], direct: Scatterers) -> Scatterers:
        """The echo that comes back by way of a wall (unit normal, distance): half-way between object and mirror image.

        Only the way back is mirrored, so range and speed are means of both; the angle is that of the mirror image.
        """
        normal = np.array(wall[:2])
        image = self.position - 2 * np.multiply.outer(self.position @ normal - wall[2], normal)
        velocity = self.velocity - 2 * np.multiply.outer(self.velocity @ normal, normal)
        image_range = np.linalg.norm(image, axis=1)
        approach = -np.einsum("pc,pc->p", velocity, image) / image_range
        return Scatterers(
            (direct.range_m + image_range) / 2,
            (direct.velocity_mps + approach) / 2,
            image[:, 1] / image_range,
            direct.amplitude,
        )


_HIDDEN = 0.02
"""What comes from a face turned away: around edges, under the car."""
_LOBE = 1.5
_DIAGONAL = float(np.sqrt(0.5))
Point = tuple[float, float, float, float, float, float, float, float]


def draw_body(class_id: int, speed_mps: float, rng: np.random.Generator) -> Body:
    """A body of a class."""
    return {PEDESTRIAN: _pedestrian, CYCLIST: _cyclist, CAR: _car}[class_id](speed_mps, rng)


def _body(points: list[Point], spread: float, rng: np.random.Generator) -> Body:
    """Rows (x, y, weight, normal x, normal y, swing, swing per metre, phase); weights vary by ``spread`` nepers."""
    table = np.array(points, dtype=np.float64)
    weight = table[:, 2] * np.exp(rng.normal(0, spread, len(table)))
    return Body(table[:, :2], weight, table[:, 3:5], table[:, 5], table[:, 6], table[:, 7])


def _pedestrian(speed_mps: float, rng: np.random.Generator) -> Body:
    """Torso, two legs and two arms; legs and arms on opposite sides swing together."""
    step_hz = 0.75 + 0.06 * rng.standard_normal() + 0.18 * speed_mps
    per_metre = 2 * np.pi * step_hz / max(speed_mps, 0.2)
    start = rng.uniform(0, 2 * np.pi)
    torso = rng.normal(0, 0.14, (5, 2))
    points: list[Point] = [(x, y, 1.0, 0, 0, 0.02, 2 * per_metre, start) for x, y in torso]
    for side, phase in ((1.0, start), (-1.0, start + np.pi)):
        # A foot stands still in one half of the step and goes at twice the speed in the other.
        points += [(0, 0.1 * side, 0.45, 0, 0, share / per_metre, per_metre, phase) for share in (0.4, 0.8, 1.2)]
        points += [(0, 0.3 * side, 0.25, 0, 0, share / per_metre, per_metre, phase + np.pi) for share in (0.3, 0.6)]
    return _body(points, 0.3, rng)


def _cyclist(speed_mps: float, rng: np.random.Generator) -> Body:
    """Rider and frame, two pedalling legs, two wheels."""
    frame = ((-0.5, 0.3), (-0.25, 0.7), (-0.1, 1.0), (0.0, 1.0), (0.1, 1.0), (0.25, 0.7), (0.4, 0.4), (0.55, 0.3))
    points: list[Point] = [(x, float(rng.normal(0, 0.14)), weight, 0, 0, 0, 0, 0) for x, weight in frame]
    metres_per_turn, start = rng.uniform(3.0, 5.5), rng.uniform(0, 2 * np.pi)
    for phase in (start, start + np.pi):
        points += [(0, 0.12, 0.45, 0, 0, 0.17 * share, 2 * np.pi / metres_per_turn, phase) for share in (0.5, 1.0)]
    for x in (-0.55, 0.55):
        points += [(x, 0, 0.2, 0, 0, 0.34, 1 / 0.34, k * np.pi / 2 + start) for k in range(4)]
    return _body(points, 0.3, rng)


def _car(speed_mps: float, rng: np.random.Generator) -> Body:
    """Points on four faces, corners, wheels, and echoes from inside and from under the car, which arrive late."""
    half_length, half_width = float(rng.uniform(1.9, 2.4)), float(rng.uniform(0.83, 0.95))
    points: list[Point] = []
    for sign in (1.0, -1.0):
        points += [(sign * half_length, y * half_width, 1.0, sign, 0, 0, 0, 0) for y in np.linspace(-0.8, 0.8, 5)]
        points += [(x * half_length, sign * half_width, 0.8, 0, sign, 0, 0, 0) for x in np.linspace(-0.85, 0.85, 8)]
        for end in (1.0, -1.0):
            points.append((end * half_length, sign * half_width, 1.4, end * _DIAGONAL, sign * _DIAGONAL, 0, 0, 0))
            hub, turn = end * 0.62 * half_length, rng.uniform(0, 2 * np.pi)
            points += [(hub, sign * half_width, 0.35, 0, sign, 0.3, 1 / 0.3, turn + k) for k in (0, 2, 4)]
    for x, y in rng.uniform(-0.7, 0.7, (4, 2)):
        points.append((x * half_length, y * half_width, 0.12, 0, 0, 0, 0, 0))
    return _body(points, 0.4, rng)
