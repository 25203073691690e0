"""A short drive through one street: the same scene seen from a moving car.

Everything but the car stands still. Positions are in the *street frame*: that of the car at time 0, its origin on the
road, x forward, y left, z up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adperception.simulation.objects import PlacedParts
from adperception.simulation.street_scene import draw_scene

__all__ = ["Drive", "Pose", "draw_drive"]

_TOP_SPEED_M_S = 11.0
_HALF_WIDTH_M = 1.8
_GAP_M = 5.0


@dataclass(frozen=True)
class Pose:
    """Where the car is: x, y in metres and yaw in radians, street frame."""

    x: float
    y: float
    yaw: float

    def to_street(self, xyz: NDArray[np.float64]) -> NDArray[np.float64]:
        """Positions ``(N, 3)`` of the car's frame in the street frame."""
        return np.asarray(xyz @ self.matrix[:3, :3].T + self.matrix[:3, 3])

    def from_street(self, xyz: NDArray[np.float64]) -> NDArray[np.float64]:
        """Positions ``(N, 3)`` of the street frame in the car's frame."""
        return np.asarray((xyz - self.matrix[:3, 3]) @ self.matrix[:3, :3])

    @property
    def matrix(self) -> NDArray[np.float64]:
        """``(4, 4)`` from the car's frame to the street frame."""
        cos, sin = math.cos(self.yaw), math.sin(self.yaw)
        return np.array([[cos, -sin, 0, self.x], [sin, cos, 0, self.y], [0, 0, 1, 0], [0, 0, 0, 1]], dtype=np.float64)


@dataclass(frozen=True)
class Drive:
    """A street and the car's way through it, on a circle of large radius.

    Attributes:
        style: of the street.
        parts: what stands in it, street frame.
        speed: m/s.
        yaw_rate: rad/s, not zero.
        world_from_street: ``(4, 4)`` into a world whose origin is far away and whose up is not quite the street's.
    """

    style: str
    parts: PlacedParts
    speed: float
    yaw_rate: float
    world_from_street: NDArray[np.float64]

    def pose(self, seconds: float) -> Pose:
        """Of the car at a time."""
        radius, yaw = self.speed / self.yaw_rate, self.yaw_rate * seconds
        return Pose(radius * math.sin(yaw), radius * (1 - math.cos(yaw)), yaw)

    def world_pose(self, seconds: float) -> NDArray[np.float64]:
        """``(4, 4)`` of the car in the world at a time."""
        return np.asarray(self.world_from_street @ self.pose(seconds).matrix)

    def seen_from(self, seconds: float, mount: tuple[float, float, float]) -> PlacedParts:
        """The street in the frame of a sensor at ``mount`` of the car (metres), axes parallel to the car's."""
        pose = self.pose(seconds)
        x, y, z = pose.to_street(np.array([mount]))[0]
        return self.parts.seen_from(float(x), float(y), float(z), pose.yaw)


def draw_drive(rng: np.random.Generator, seconds: float) -> Drive:
    """A street and a way through it that ends before the next vehicle in the way."""
    scene = draw_scene(rng, sensor_height_m=0.0)
    room = 60.0
    for item in scene.parts.labelled:
        x, y, _ = item.position
        if x > 0 and abs(y) < _HALF_WIDTH_M + item.size[1] / 2:
            room = min(room, x - item.size[0] / 2)
    speed = min(float(rng.uniform(0.4, 1.0)) * _TOP_SPEED_M_S, max(room - _GAP_M, 0.5) / max(seconds, 0.1))
    yaw_rate = float(rng.choice([-1.0, 1.0]) * rng.uniform(0.002, 0.02)) * min(1.0, 5.0 / max(seconds, 0.1))
    roll, pitch = rng.normal(0, 0.01, 2)
    heading = rng.uniform(-math.pi, math.pi)
    world = np.eye(4)
    world[:3, :3] = _about_z(heading) @ _about_y(pitch) @ _about_x(roll)
    world[:3, 3] = rng.uniform(-2000, 2000, 3) * [1, 1, 0.02]
    return Drive(scene.style, scene.parts, speed, yaw_rate, world)


def _about_x(angle: float) -> NDArray[np.float64]:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def _about_y(angle: float) -> NDArray[np.float64]:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def _about_z(angle: float) -> NDArray[np.float64]:
    c, s = math.cos(angle), math.sin(angle)
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
