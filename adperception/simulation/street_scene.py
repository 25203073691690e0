"""Procedural streets around the sensor.

A scene is laid out in the road's frame (u along the road, v to the left, the sensor at u = 0), where streets are
straight, and then turned and shifted into the sensor's frame. The ground has up to three grades along the road; city
blocks stand on it as kerbs high prisms, so that streets are what lies between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from adperception.simulation.materials import Material
from adperception.simulation.models import (
    CARS,
    CYCLISTS,
    FURNITURE,
    PEDESTRIAN_LENGTHS_M,
    PEDESTRIANS,
    TREES,
    TRUCKS,
    VANS,
)
from adperception.simulation.objects import Model, Part, PlacedParts, Placement, box, place
from adperception.simulation.ray_casting import POLYHEDRON
from adperception.simulation.street_style import STYLES, StreetStyle

__all__ = ["StreetScene", "draw_scene"]

_REACH_M = 95.0
_DEPTH_M = 6.0
_UNIT = ((-0.5, -0.5, 0.0), (0.5, 0.5, 1.0))
_BLOCKS = {m: Model((box(*_UNIT, m),)) for m in (Material.FACADE, Material.METAL, Material.WALL)}
_HEDGES = tuple(Model((box(*_UNIT, Material.FOLIAGE, depth),)) for depth in (0.15, 0.5))
_GABLE = Model(
    (
        Part(
            POLYHEDRON,
            np.array(
                [[0, 2, 1, 1.0], [0, -2, 1, 1.0], [1, 0, 0, 0.5], [-1, 0, 0, 0.5], [0, 0, -1, 0.0]], dtype=np.float64
            ),
            *_UNIT,
            Material.WALL,
        ),
    )
)


@dataclass(frozen=True)
class StreetScene:
    """A drawn scene in the sensor's frame.

    Attributes:
        style: name of the street style.
        parts: geometry, materials and labelled objects.
    """

    style: str
    parts: PlacedParts


def draw_scene(rng: np.random.Generator, sensor_height_m: float = 1.73) -> StreetScene:
    """Draw a street with everything on it.

    Args:
        rng: all randomness.
        sensor_height_m: of the sensor above the road.
    """
    shares = np.array([s.share for s in STYLES])
    style = STYLES[int(rng.choice(len(STYLES), p=shares / shares.sum()))]
    builder = _Builder(rng, style, sensor_height_m)
    builder.ground()
    builder.buildings()
    builder.greenery()
    builder.backdrop()
    builder.furniture()
    builder.parked()
    builder.traffic()
    builder.people()
    return StreetScene(style.name, place(builder.placements))


class _Builder:
    """Lays out one street; coordinates are in the road's frame unless said otherwise."""

    def __init__(self, rng: np.random.Generator, style: StreetStyle, height: float) -> None:
        self.rng, self.style = rng, style
        self.placements: list[Placement] = []
        self.taken: list[tuple[float, float, float]] = [(0.0, 0.0, 3.0)]
        lanes = int(rng.integers(style.lanes[0], style.lanes[1] + 1))
        self.lane_width = self._draw(style.lane_width)
        self.lane_centres = [(i + 0.5) * self.lane_width for i in range(lanes)]
        self.parking = {side: bool(rng.random() < style.parking[0]) for side in (1, -1)}
        self.edge = {side: lanes * self.lane_width + (2.1 if self.parking[side] else 0.3) for side in (1, -1)}
        self.sidewalk = {side: self._draw(style.sidewalk) for side in (1, -1)}
        self.setback = {side: self._draw(style.setback) for side in (1, -1)}
        own_lane = int(rng.integers(lanes))
        self.ego_v = -self.lane_centres[own_lane] + rng.normal(0, 0.15)
        self.yaw = rng.normal(0, 0.025)
        self.cos, self.sin = math.cos(self.yaw), math.sin(self.yaw)
        self.crossings = self._draw_crossings()
        # Grades: along and across at the sensor, and a change ahead and behind.
        self.grade_u, self.grade_v = float(rng.normal(0, 0.012)), float(rng.normal(0, 0.008))
        self.break_ahead, self.break_behind = rng.uniform(15, 50), -rng.uniform(15, 50)
        self.grade_ahead, self.grade_behind = float(rng.normal(0, 0.02)), float(rng.normal(0, 0.02))
        # Where something closes the view along the road, ahead and behind.
        self.ends = {end: float(rng.uniform(60, 85)) if rng.random() < 0.7 else _REACH_M for end in (1, -1)}
        self.height = height
        self.kerb = rng.uniform(0.06, 0.15) if style.name != "country" else rng.uniform(0.02, 0.06)

    def _draw(self, bounds: tuple[float, float]) -> float:
        return float(self.rng.uniform(*bounds))

    def _draw_crossings(self) -> list[tuple[float, float]]:
        """Centre and half width of the cross streets."""
        crossings: list[tuple[float, float]] = []
        if self.rng.random() < self.style.crossing:
            crossings.append((float(self.rng.uniform(-30, 45)), float(self.rng.uniform(2.8, 6.0))))
            if self.rng.random() < 0.5:
                centre = crossings[0][0] + self.rng.choice([-1, 1]) * self.rng.uniform(35, 60)
                crossings.append((float(centre), float(self.rng.uniform(2.8, 6.0))))
        return sorted(crossings)

    def _runs(self, margin: float = 0.0) -> list[tuple[float, float]]:
        """The stretches of the road between cross streets, shortened by a margin at both ends."""
        limits = [-_REACH_M]
        for centre, half in self.crossings:
            limits += [centre - half, centre + half]
        limits.append(_REACH_M)
        pairs = [(limits[i] + margin, limits[i + 1] - margin) for i in range(0, len(limits), 2)]
        return [(a, b) for a, b in pairs if b - a > 1]

    def _ground_z(self, u: float, v: float) -> float:
        """Height of the road's surface in the sensor's frame."""
        z = -self.height + self.grade_u * u + self.grade_v * (v - self.ego_v)
        z += self.grade_ahead * max(0.0, u - self.break_ahead)
        return z + self.grade_behind * max(0.0, self.break_behind - u)

    def _position(self, u: float, v: float, z: float) -> tuple[float, float, float]:
        v -= self.ego_v
        return (self.cos * u + self.sin * v, self.cos * v - self.sin * u, z)

    def _add(
        self,
        model: Model,
        u: float,
        v: float,
        *,
        lift: float = 0.0,
        yaw: float = 0.0,
        size: tuple[float, float, float] = (1.0, 1.0, 1.0),
        paint: float = 1.0,
    ) -> None:
        z = self._ground_z(u, v) + lift
        self.placements.append(Placement(model, self._position(u, v, z), yaw - self.yaw, size, paint))

    def _free(self, u: float, v: float, radius: float) -> bool:
        """Whether a disc is free; if so it is taken. Nothing is free where the view along the road ends."""
        if not 6 - self.ends[-1] < u < self.ends[1] - 6:
            return False
        own_v = v - self.ego_v
        if any(math.hypot(u - a, own_v - b) < radius + c for a, b, c in self.taken):
            return False
        self.taken.append((u, own_v, radius))
        return True

    def _slab(
        self, u0: float, u1: float, v0: float, v1: float, lift: float, material: Material, rise: float = 0.0
    ) -> None:
        """Ground between two u and two v, raised by ``lift`` at the edge nearer to the road and rising by ``rise`` per
        metre from there, cut where the grade changes.
        """
        near, side = (v0, 1.0) if v0 >= 0 else (v1, -1.0)
        for a, b, extra, at in (
            (max(u0, -_REACH_M), min(u1, self.break_behind), -self.grade_behind, self.break_behind),
            (max(u0, self.break_behind), min(u1, self.break_ahead), 0.0, 0.0),
            (max(u0, self.break_ahead), min(u1, _REACH_M), self.grade_ahead, self.break_ahead),
        ):
            if b - a < 1e-3:
                continue
            # z = offset + slope_u u + slope_v v on this stretch, in the road's frame.
            slope_u, slope_v = self.grade_u + extra, self.grade_v + side * rise
            offset = -self.height - self.grade_v * self.ego_v - extra * at + lift - side * rise * near
            planes = np.array(
                [
                    [1, 0, 0, b],
                    [-1, 0, 0, -a],
                    [0, 1, 0, v1],
                    [0, -1, 0, -v0],
                    [-slope_u, -slope_v, 1, offset],
                ],
                dtype=np.float64,
            )
            corners = [offset + slope_u * u + slope_v * v for u in (a, b) for v in (v0, v1)]
            part = Part(POLYHEDRON, planes, (a, v0, min(corners) - _DEPTH_M), (b, v1, max(corners)), material)
            self.placements.append(Placement(Model((part,)), self._position(0.0, 0.0, 0.0), -self.yaw))

    def ground(self) -> None:
        """The road's surface everywhere, and blocks of sidewalk and verge between the streets."""
        self._slab(-_REACH_M, _REACH_M, -_REACH_M, _REACH_M, 0.0, Material.ASPHALT)
        self.bank = dict.fromkeys((1, -1), 0.0)
        for side in (1, -1):
            if self.rng.random() < self.style.bank:
                self.bank[side] = float(self.rng.uniform(-0.12, 0.3))
            for a, b in self._runs():
                inner, outer = self.edge[side], self.edge[side] + self.sidewalk[side]
                material = Material.PAVEMENT if self.style.name != "country" else Material.GRASS
                for v0, v1, lift, what, rise in (
                    (inner, _REACH_M if self.style.verge == material else outer, self.kerb, material, 0.0),
                    (outer, _REACH_M, self.kerb + 0.03, self.style.verge, self.bank[side]),
                ):
                    if what == self.style.verge == material and v0 == outer and rise == 0:
                        continue
                    low, high = (v0, v1) if side > 0 else (-v1, -v0)
                    self._slab(a, b, low, high, lift, what, max(rise, 0.0))

    def buildings(self) -> None:
        """Rows of houses along the road and along the cross streets, with roofs and projections."""
        style, rng = self.style, self.rng
        for side in (1, -1):
            line = self.edge[side] + self.sidewalk[side] + self.setback[side]
            for a, b in self._runs(self._draw((1.0, 4.0))):
                u = a
                while u < b:
                    length = float(rng.uniform(8, 20))
                    if rng.random() < style.buildings:
                        self._building(u + length / 2, side * line, min(length, max(b - u, 3.0)), side)
                    u += length + self._draw(style.gap)
            for centre, half in self.crossings:
                for edge in (1, -1):
                    v = line + rng.uniform(14, 18)
                    while v < 70:
                        width = float(rng.uniform(8, 18))
                        if rng.random() < style.buildings:
                            depth, height = rng.uniform(8, 12), self._draw(style.height)
                            u = centre + edge * (half + 2.0 + depth / 2 + rng.uniform(0, 2))
                            place_at = (u, side * (v + width / 2))
                            self._add(_BLOCKS[Material.FACADE], *place_at, lift=-1.0, size=(depth, width, height + 1))
                        v += width + self._draw(style.gap)

    def _building(self, u: float, v_front: float, length: float, side: int) -> None:
        rng = self.rng
        depth, height = float(rng.uniform(9, 13)), self._draw(self.style.height)
        front = v_front + side * float(rng.uniform(0, 0.8))
        paint = float(rng.uniform(0.6, 1.25))
        middle = front + side * depth / 2
        block = _BLOCKS[Material.FACADE]
        self._add(block, u, middle, lift=-1.0, size=(length, depth, height + 1), paint=paint)
        if self.style.name != "city":
            self._add(
                _GABLE, u, middle, lift=height, size=(length + 0.6, depth + 0.8, rng.uniform(2.5, 4.5)), paint=0.7
            )
        for _ in range(int(rng.integers(0, 3))):  # bays, porches, balconies
            width, reach = rng.uniform(1.0, 3.5), rng.uniform(0.2, 1.0)
            at = u + rng.uniform(-0.5, 0.5) * max(length - width, 0.1)
            lift, tall = (0.0, rng.uniform(2.2, height)) if rng.random() < 0.6 else (2.6, 1.1)
            self._add(block, at, front - side * reach / 2, lift=lift, size=(width, reach, tall), paint=paint)

    def greenery(self) -> None:
        """Tree rows, garden hedges, walls, fences and loose bushes."""
        rng, style = self.rng, self.style
        for side in (1, -1):
            outer = self.edge[side] + self.sidewalk[side]
            has_row = rng.random() < 0.7
            spacing = self._draw(style.trees)
            for a, b in self._runs(5.0):
                if has_row:
                    at = (
                        max(outer - 0.7, self.edge[side] + 0.5) if rng.random() < 0.5 else outer + rng.uniform(0.8, 2.0)
                    )
                    for u in np.arange(a + rng.uniform(0, spacing), b, spacing):
                        self._tree(u + rng.normal(0, 0.8), side * (at + rng.normal(0, 0.2)))
                if self.setback[side] > 1.5:
                    self._garden_line(a, b, side, outer + 0.3)
                if style.name in ("country", "arterial"):
                    self._thicket(a, b, side, outer + self.setback[side] * rng.uniform(0.5, 1.0) + 2.0)

    def backdrop(self) -> None:
        """What closes the view behind the houses and at the ends of the road: tree lines, hills, other houses."""
        rng = self.rng
        for side in (1, -1):
            v = side * (self.edge[side] + self.sidewalk[side] + self.setback[side] + rng.uniform(12, 30))
            u = -80.0
            while u < 80:
                length = float(rng.uniform(10, 30))
                middle = u + length / 2
                if not any(abs(middle - c) < half + length / 2 for c, half in self.crossings) and rng.random() < 0.8:
                    size = (length, float(rng.uniform(3, 6)), float(rng.uniform(4, 10)))
                    self._add(_HEDGES[1], middle, v + rng.normal(0, 3), yaw=rng.normal(0, 0.1), size=size)
                u += length + float(rng.uniform(0, 6))
        for end in (1, -1):
            if self.ends[end] < _REACH_M:
                model = _HEDGES[1] if rng.random() < 0.6 else _BLOCKS[Material.FACADE]
                size = (float(rng.uniform(4, 10)), float(rng.uniform(25, 60)), float(rng.uniform(4, 9)))
                u = end * (self.ends[end] + size[0] / 2)
                self._add(model, u, rng.normal(0, 5), lift=-1.0, yaw=rng.normal(0, 0.1), size=size)
        for centre, _ in self.crossings:
            for side in (1, -1):
                if rng.random() < 0.7:
                    model = _HEDGES[1] if rng.random() < 0.5 else _BLOCKS[Material.FACADE]
                    size = (float(rng.uniform(15, 40)), float(rng.uniform(4, 10)), float(rng.uniform(4, 9)))
                    self._add(model, centre, side * rng.uniform(45, 75), lift=-1.0, yaw=rng.normal(0, 0.2), size=size)

    def _tree(self, u: float, v: float, share: float = 1.0) -> None:
        if abs(u) > 75 or self.rng.random() > share or not self._free(u, v, 0.5):
            return
        scale = float(self.rng.uniform(0.7, 1.35))
        size = (scale, scale, float(scale * self.rng.uniform(0.9, 1.2)))
        self._add(TREES[int(self.rng.integers(len(TREES)))], u, v, yaw=self.rng.uniform(0, 6.3), size=size)

    def _garden_line(self, a: float, b: float, side: int, v: float) -> None:
        rng = self.rng
        u = a
        while u < b:
            length = float(rng.uniform(4, 14))
            kind, middle = rng.random(), u + length / 2
            if kind < 0.5:
                model = _HEDGES[int(rng.integers(2))]
                self._add(model, middle, side * (v + 0.4), size=(length, rng.uniform(0.5, 1.2), rng.uniform(0.9, 2.4)))
            elif kind < 0.72:
                self._add(_BLOCKS[Material.WALL], middle, side * (v + 0.15), size=(length, 0.25, rng.uniform(0.5, 2.0)))
            elif kind < 0.95 and self.setback[side] > 2.5:
                for _ in range(2):
                    self._bush(rng.uniform(u, u + length), side * (v + rng.uniform(0.8, self.setback[side] - 1)))
            u += length + float(rng.uniform(0.2, 3.0))

    def _bush(self, u: float, v: float) -> None:
        if abs(u) < 75 and self._free(u, v, 0.8):
            bushes = FURNITURE["bush"]
            size = tuple(float(s) for s in self.rng.uniform(0.7, 1.6, 3))
            model = bushes[int(self.rng.integers(len(bushes)))]
            self._add(model, u, v, yaw=self.rng.uniform(0, 6.3), size=(size[0], size[1], size[2]))

    def _thicket(self, a: float, b: float, side: int, v: float) -> None:
        """A dense strip of bushes and trees, or a noise barrier, along the road."""
        rng = self.rng
        kind = rng.random()
        if kind < 0.45:
            for u in np.arange(max(a, -70), min(b, 70), 3.2):
                rise = max(self.bank[side], 0.0) * (v - self.edge[side] - self.sidewalk[side])
                size = (float(rng.uniform(3, 4.5)), float(rng.uniform(1.2, 2.5)), float(rng.uniform(1.5, 4)) + rise)
                self._add(_HEDGES[1], u, side * (v + rng.normal(0, 0.5)), yaw=rng.normal(0, 0.3), size=size)
        elif kind < 0.85:
            for u in np.arange(max(a, -60), min(b, 60), self._draw((4, 8))):
                self._tree(u + rng.normal(0, 1), side * (v + rng.normal(0, 1.0)))
                self._bush(u + rng.normal(0, 2), side * (v + rng.normal(0, 1.5)))
        elif a < 80 and b > -80:
            size = (min(b, 90) - max(a, -90), 0.3, float(rng.uniform(1.5, 3.5)))
            self._add(_BLOCKS[Material.WALL], (max(a, -90) + min(b, 90)) / 2, side * v, lift=-0.5, size=size)

    def furniture(self) -> None:
        """Lamps, signs, signals, bins, bollards and guard rails."""
        rng = self.rng
        for side in (1, -1):
            edge = self.edge[side] + 0.45
            for a, b in self._runs(2.0):
                for u in np.arange(max(a, -75) + rng.uniform(0, 20), min(b, 75), rng.uniform(22, 35)):
                    self._pole("lamp", float(u), side * edge, -side * math.pi / 2)
                for _ in range(int(rng.integers(0, 5))):
                    self._pole("sign", rng.uniform(a, b), side * edge, rng.choice([0.0, math.pi]) + rng.normal(0, 0.1))
                for _ in range(int(rng.integers(0, 6)) if self.setback[side] < 8 else 0):
                    self._pole("bin", rng.uniform(a, b), side * (edge + self.sidewalk[side] - 0.6), 0.0)
                if self.style.name == "city" and rng.random() < 0.3:
                    for u in np.arange(max(a, -25), min(b, 25), 2.5):
                        self._pole("bollard", float(u), side * (edge - 0.1), 0.0)
                if self.style.name == "country" and rng.random() < 0.5 and a < 80 and b > -80:
                    size = (min(b, 90) - max(a, -90), 0.12, 0.32)
                    middle = (max(a, -90) + min(b, 90)) / 2
                    self._add(_BLOCKS[Material.METAL], middle, side * (edge + 0.2), lift=0.45, size=size)
            for centre, half in self.crossings:
                if self.style.name in ("city", "arterial"):
                    for end in (1, -1):
                        self._pole("signal", centre + end * (half + 1.0), side * edge, rng.choice([0.0, math.pi]))

    def _pole(self, kind: str, u: float, v: float, yaw: float) -> None:
        if abs(u) < 78 and self._free(u, v, 0.35):
            models = FURNITURE[kind]
            self._add(models[int(self.rng.integers(len(models)))], u, v, lift=self.kerb, yaw=yaw)

    def _vehicle(self, u: float, v: float, yaw: float, *, clear: float = 2.4, truck_share: float = 0.03) -> None:
        """A car, van or truck if there is room."""
        if abs(u) > 78 or abs(v) > 75 or not self._free(u, v, clear):
            return
        rng = self.rng
        kind = rng.random()
        if kind < truck_share:
            models, size = TRUCKS, (rng.normal(8.0, 1.2), rng.normal(2.5, 0.1), rng.normal(3.3, 0.25))
        elif kind < truck_share + 0.08:
            models, size = VANS, (rng.normal(4.9, 0.4), rng.normal(1.9, 0.08), rng.normal(2.1, 0.2))
        else:
            models, size = CARS, (rng.normal(3.95, 0.35), rng.normal(1.64, 0.08), rng.normal(1.52, 0.08))
        dimensions = tuple(float(x) for x in size)
        self._add(
            models[int(rng.integers(len(models)))],
            u,
            v,
            yaw=yaw,
            size=(max(dimensions[0], 3.0), dimensions[1], dimensions[2]),
            paint=float(rng.choice([0.6, 0.8, 0.95, 1.0, 1.1, 1.25])),
        )

    def parked(self) -> None:
        """Cars along the kerbs and in driveways."""
        rng = self.rng
        for side in (1, -1):
            v = side * (self.edge[side] - 1.0)
            for a, b in self._runs(4.5):
                u = max(a, -75) + 2.3
                while self.parking[side] and u < min(b, 75):
                    if rng.random() < self.style.parking[1]:
                        backwards = rng.random() < (0.9 if side > 0 else 0.05)
                        yaw = (math.pi if backwards else 0.0) + rng.normal(0, 0.03)
                        self._vehicle(u, v + rng.normal(0, 0.08), yaw, clear=2.2, truck_share=0.005)
                    u += float(rng.uniform(4.9, 6.6))
                if self.setback[side] > 4.5:
                    for _ in range(int(rng.integers(0, 3))):
                        at = self.edge[side] + self.sidewalk[side] + min(self.setback[side] - 2.2, 3.0)
                        self._vehicle(rng.uniform(a, b), side * at, side * math.pi / 2 + rng.normal(0, 0.05))

    def traffic(self) -> None:
        """Moving vehicles in the lanes and in the cross streets."""
        rng, spacing = self.rng, self.style.vehicle_spacing
        for direction in (1, -1):  # right-hand traffic: the own direction lies at negative v
            for centre in self.lane_centres:
                u = -70 + self._draw(spacing) * rng.random()
                while u < 75:
                    yaw = (0.0 if direction > 0 else math.pi) + rng.normal(0, 0.02)
                    if abs(u) > 6.0 or abs(-direction * centre - self.ego_v) > 2.2:
                        self._vehicle(float(u), -direction * centre + rng.normal(0, 0.2), yaw, truck_share=0.06)
                    u += max(6.5, self._draw(spacing))
        for centre, half in self.crossings:
            for side in (1, -1):
                for direction in (1, -1):
                    v = self.edge[side] + self._draw(spacing) * rng.random() * 0.5
                    while v < 36:
                        self._vehicle(centre + direction * half * 0.5, side * v, direction * math.pi / 2)
                        v += max(6.5, self._draw(spacing))
                if half > 4.2:  # room for parked cars
                    for v in np.arange(self.edge[side] + 8, 40, 6.0):
                        if rng.random() < 0.4:
                            self._vehicle(
                                centre + rng.choice([-1, 1]) * (half - 0.95), side * float(v), math.pi / 2, clear=2.0
                            )

    def people(self) -> None:
        """Pedestrians on sidewalks and crossings, cyclists at the road's edge."""
        rng = self.rng
        for _ in range(int(rng.integers(self.style.pedestrians[0], self.style.pedestrians[1] + 1))):
            side = int(rng.choice([-1, 1]))
            u = float(np.clip(rng.normal(12, 22), -60, 65))
            walking = rng.choice([0.0, math.pi])
            if rng.random() < 0.8:
                v = side * (self.edge[side] + rng.uniform(0.4, max(self.sidewalk[side] - 0.3, 0.6)))
                lift = self.kerb
                if any(abs(u - centre) < half for centre, half in self.crossings):
                    lift = 0.0
            else:
                v, lift, walking = rng.uniform(-self.edge[-1], self.edge[1]), 0.0, walking + math.pi / 2
            if self._free(u, v, 0.4):
                pose = int(rng.integers(len(PEDESTRIANS)))
                size = (rng.normal(PEDESTRIAN_LENGTHS_M[pose], 0.08), rng.normal(0.62, 0.06), rng.normal(1.74, 0.09))
                dimensions = (max(float(size[0]), 0.35), max(float(size[1]), 0.4), float(size[2]))
                paint = float(rng.uniform(0.4, 1.3))
                self._add(
                    PEDESTRIANS[pose], u, v, lift=lift, yaw=walking + rng.normal(0, 0.3), size=dimensions, paint=paint
                )
        for _ in range(int(rng.integers(self.style.cyclists[0], self.style.cyclists[1] + 1))):
            side = int(rng.choice([-1, 1]))
            u = float(np.clip(rng.normal(15, 22), -60, 65))
            inside = 2.9 if self.parking[side] else 0.8
            v = side * (self.edge[side] - inside)
            if self._free(u, v, 1.0):
                size = (float(rng.normal(1.76, 0.06)), float(rng.normal(0.6, 0.05)), float(rng.normal(1.73, 0.06)))
                yaw = (0.0 if side < 0 else math.pi) + rng.normal(0, 0.06)
                self._add(CYCLISTS[0], u, v, yaw=yaw, size=size, paint=float(rng.uniform(0.5, 1.3)))
