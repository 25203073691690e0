"""Road users and street furniture built of several convex parts.

A ``Model`` is a list of parts in the object's own frame: x along the heading, y left, z up from the ground. Labelled
models fill the unit box ``[-0.5, 0.5] x [-0.5, 0.5] x [0, 1]`` and are scaled to the drawn length, width and height,
so that their label box is exact. ``place`` puts many models into the sensor's frame at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from adperception.simulation.materials import Material
from adperception.simulation.ray_casting import CYLINDER, ELLIPSOID, POLYHEDRON, PartBatch

__all__ = ["Model", "Part", "PlacedParts", "Placement", "box", "cylinder", "ellipsoid", "frustum", "place", "prism"]

Array = NDArray[np.float64]
_NO_PLANES: Array = np.zeros((0, 4))


@dataclass(frozen=True)
class Part:
    """One convex part in the object's frame.

    Attributes:
        kind: ``POLYHEDRON``, ``ELLIPSOID`` or ``CYLINDER``.
        planes: ``(K, 4)`` outward normal and offset of a polyhedron's half spaces.
        lower, upper: corners of the bounding box.
        material: of the surface.
        porosity_m: mean depth that rays travel inside before they return, metres (0: solid).
    """

    kind: int
    planes: Array
    lower: tuple[float, float, float]
    upper: tuple[float, float, float]
    material: Material
    porosity_m: float = 0.0


@dataclass(frozen=True)
class Model:
    """Parts of one object and what the object is called.

    Attributes:
        parts: the convex parts.
        label: KITTI class name, ``None`` for what KITTI does not label.
    """

    parts: tuple[Part, ...]
    label: str | None = None

    @cached_property
    def kinds(self) -> NDArray[np.int64]:
        """``(P,)`` kind of each part."""
        return np.array([p.kind for p in self.parts], dtype=np.int64)

    @cached_property
    def planes(self) -> Array:
        """``(K, 4)`` half spaces of all parts."""
        return np.concatenate([p.planes for p in self.parts])

    @cached_property
    def plane_counts(self) -> NDArray[np.int64]:
        """``(P,)`` half spaces per part."""
        return np.array([len(p.planes) for p in self.parts], dtype=np.int64)

    @cached_property
    def bounds(self) -> Array:
        """``(P, 6)`` lower and upper corner of each part."""
        return np.array([(*p.lower, *p.upper) for p in self.parts])

    @cached_property
    def materials(self) -> NDArray[np.int64]:
        """``(P,)`` material of each part."""
        return np.array([int(p.material) for p in self.parts], dtype=np.int64)

    @cached_property
    def porosity(self) -> Array:
        """``(P,)`` mean free depth in metres."""
        return np.array([p.porosity_m for p in self.parts])


@dataclass(frozen=True)
class Placement:
    """A model somewhere in the sensor's frame.

    Attributes:
        model: what.
        position: ``(x, y, z)`` in metres of the point ``(0, 0, 0)`` of the model's frame: its middle on the ground.
        yaw: heading, radians counter-clockwise from +x.
        size: scale of the model's x, y and z: length, width and height in metres of a model that fills the unit box.
        paint: factor of the reflectance of all parts (dark and bright cars, clothes).
    """

    model: Model
    position: tuple[float, float, float]
    yaw: float = 0.0
    size: tuple[float, float, float] = (1.0, 1.0, 1.0)
    paint: float = 1.0


@dataclass(frozen=True)
class PlacedParts:
    """All parts of a scene.

    Attributes:
        batch: geometry.
        material: ``(P,)`` material of each part.
        paint: ``(P,)`` float32 factor of the reflectance.
        object_of_part: ``(P,)`` position in ``labelled`` or -1.
        labelled: the placements that carry a label.
    """

    batch: PartBatch
    material: NDArray[np.int64]
    paint: NDArray[np.float32]
    object_of_part: NDArray[np.int64]
    labelled: tuple[Placement, ...] = field(default=())

    def seen_from(self, x: float, y: float, z: float = 0.0, yaw: float = 0.0) -> PlacedParts:
        """The same parts in another upright frame.

        Args:
            x, y, z: origin of that frame in this one, metres.
            yaw: its heading in this one, radians counter-clockwise.
        """
        origin = np.array([x, y, z])
        turn = np.full(len(self.batch.planes), -yaw)
        planes = self.batch.planes.copy()
        planes[:, 3] -= planes[:, :3] @ origin
        planes[:, :2] = _turn(planes[:, :2], turn)
        centre = self.batch.centre - origin
        centre[:, :2] = _turn(centre[:, :2], np.full(len(centre), -yaw))
        batch = replace(self.batch, planes=planes, centre=centre, yaw=self.batch.yaw - yaw)
        positions = np.array([p.position for p in self.labelled]).reshape(-1, 3) - origin
        positions[:, :2] = _turn(positions[:, :2], np.full(len(positions), -yaw))
        labelled = tuple(
            replace(p, position=(float(u), float(v), float(w)), yaw=p.yaw - yaw)
            for p, (u, v, w) in zip(self.labelled, positions, strict=True)
        )
        return replace(self, batch=batch, labelled=labelled)


def box(
    lower: tuple[float, float, float],
    upper: tuple[float, float, float],
    material: Material,
    porosity_m: float = 0.0,
) -> Part:
    """An upright box between two corners."""
    (x0, y0, z0), (x1, y1, z1) = lower, upper
    rows = [(1, 0, 0, x1), (-1, 0, 0, -x0), (0, 1, 0, y1), (0, -1, 0, -y0), (0, 0, 1, z1), (0, 0, -1, -z0)]
    return Part(POLYHEDRON, np.array(rows, dtype=np.float64), lower, upper, material, porosity_m)


def prism(
    profile_xz: Sequence[tuple[float, float]], y0: float, y1: float, material: Material, porosity_m: float = 0.0
) -> Part:
    """A convex outline in the x-z plane, counter-clockwise seen from -y (x right, z up), drawn out from y0 to y1.

    Raises:
        ValueError: if the outline is not convex and counter-clockwise.
    """
    outline = np.array(profile_xz, dtype=np.float64)
    edge = np.roll(outline, -1, axis=0) - outline
    turn = edge[:, 0] * np.roll(edge, -1, axis=0)[:, 1] - edge[:, 1] * np.roll(edge, -1, axis=0)[:, 0]
    if len(outline) < 3 or np.any(turn < -1e-9):
        raise ValueError(f"prism: the outline {list(profile_xz)} is not convex and counter-clockwise.")
    normal = np.stack([edge[:, 1], np.zeros(len(edge)), -edge[:, 0]], axis=1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    offset = normal[:, 0] * outline[:, 0] + normal[:, 2] * outline[:, 1]
    planes = np.concatenate([np.column_stack([normal, offset]), [[0, 1, 0, y1], [0, -1, 0, -y0]]])
    (x0, z0), (x1, z1) = outline.min(axis=0), outline.max(axis=0)
    return Part(POLYHEDRON, planes, (x0, y0, z0), (x1, y1, z1), material, porosity_m)


def frustum(
    bottom: tuple[float, float, float], top: tuple[float, float, float], z0: float, z1: float, material: Material
) -> Part:
    """A block with a smaller (or larger) top: ``bottom`` and ``top`` are ``(x0, x1, half width)`` at z0 and z1."""
    height = z1 - z0
    rows = []
    for side, sign in ((0, -1.0), (1, 1.0)):
        slope = (top[side] - bottom[side]) / height
        rows.append((sign, 0.0, -sign * slope, sign * (bottom[side] - slope * z0)))
    slope = (top[2] - bottom[2]) / height
    rows += [(0.0, sign, -slope, bottom[2] - slope * z0) for sign in (1.0, -1.0)]
    rows += [(0.0, 0.0, 1.0, z1), (0.0, 0.0, -1.0, -z0)]
    half = max(bottom[2], top[2])
    lower, upper = (min(bottom[0], top[0]), -half, z0), (max(bottom[1], top[1]), half, z1)
    return Part(POLYHEDRON, np.array(rows), lower, upper, material)


def ellipsoid(
    centre: tuple[float, float, float], radii: tuple[float, float, float], material: Material, porosity_m: float = 0.0
) -> Part:
    """An ellipsoid with axes along the object's axes."""
    c, r = np.array(centre), np.array(radii)
    return Part(ELLIPSOID, _NO_PLANES, tuple(c - r), tuple(c + r), material, porosity_m)


def cylinder(x: float, y: float, radius: float, z0: float, z1: float, material: Material) -> Part:
    """An upright cylinder. Scale it equally along x and y."""
    lower, upper = (x - radius, y - radius, z0), (x + radius, y + radius, z1)
    return Part(CYLINDER, _NO_PLANES, lower, upper, material)


def place(placements: Sequence[Placement]) -> PlacedParts:
    """All parts of all placements in the sensor's frame, parts of an object next to each other."""
    models = [p.model for p in placements]
    counts = np.array([len(m.parts) for m in models], dtype=np.int64)
    if not len(counts):
        raise ValueError("place: no placements; a scene needs at least its ground.")
    position = np.array([p.position for p in placements])
    yaw = np.array([p.yaw for p in placements])
    size = np.array([p.size for p in placements])
    of_part = np.repeat(np.arange(len(models)), counts)
    plane_counts = np.concatenate([m.plane_counts for m in models])
    start = np.concatenate([[0], np.cumsum(plane_counts)])
    of_plane = np.repeat(of_part, plane_counts)

    planes = np.concatenate([m.planes for m in models])
    # A scaled body has the normals divided by the scale; then turn and shift.
    planes[:, :3] /= size[of_plane]
    planes[:, :2] = _turn(planes[:, :2], yaw[of_plane])
    planes[:, 3] += np.einsum("kc,kc->k", planes[:, :3], position[of_plane])

    bounds = np.concatenate([m.bounds for m in models])
    scale = size[of_part]
    centre = (bounds[:, :3] + bounds[:, 3:]) / 2 * scale
    half = (bounds[:, 3:] - bounds[:, :3]) / 2 * scale
    centre[:, :2] = _turn(centre[:, :2], yaw[of_part])
    centre += position[of_part]

    labelled = [i for i, m in enumerate(models) if m.label is not None]
    number = np.full(len(models), -1, dtype=np.int64)
    number[labelled] = np.arange(len(labelled))
    batch = PartBatch(
        kind=np.concatenate([m.kinds for m in models]),
        plane_start=start,
        planes=planes,
        centre=centre,
        half=half,
        yaw=yaw[of_part],
        porosity=np.concatenate([m.porosity for m in models]),
    )
    return PlacedParts(
        batch=batch,
        material=np.concatenate([m.materials for m in models]),
        paint=np.array([p.paint for p in placements], dtype=np.float32)[of_part],
        object_of_part=number[of_part],
        labelled=tuple(placements[i] for i in labelled),
    )


def _turn(xy: Array, yaw: Array) -> Array:
    cos, sin = np.cos(yaw), np.sin(yaw)
    return np.stack([xy[:, 0] * cos - xy[:, 1] * sin, xy[:, 0] * sin + xy[:, 1] * cos], axis=1)
