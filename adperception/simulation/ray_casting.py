"""Rays from one origin against convex parts, as fast as numpy allows.

All rays leave the sensor's origin and their directions form a grid: beam ``b`` has the elevation tangent ``tan[b]``,
column ``c`` the azimuth with ``cos[c], sin[c]``. A point at *horizontal* range ``s`` on such a ray is
``s * (cos, sin, tan)``. Everything here works with the **inverse horizontal range** ``w = 1 / s``, in which a plane
``n . x = d`` is linear and separable::

    w[b, c] = (n_x cos[c] + n_y sin[c]) / d  +  tan[b] n_z / d

so a plane costs one broadcast addition per ray, a vertical plane one value per *column*, and no division at all. A
convex part is entered at the smallest ``w`` of the planes that face the sensor (``d < 0``) and left at the largest
``w`` of the others; it is hit where the first exceeds the second. Nearest means largest ``w``.

Every part is evaluated only in the window of beams and columns that its bounding box can be seen in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CYLINDER",
    "ELLIPSOID",
    "POLYHEDRON",
    "PartBatch",
    "RangeImage",
    "RayGrid",
    "Windows",
    "cast_parts",
    "windows_of",
]

Float = NDArray[np.float32]

POLYHEDRON, ELLIPSOID, CYLINDER = 0, 1, 2


@dataclass(frozen=True)
class RayGrid:
    """Directions of a spinning sensor, in the sensor's frame (x forward, y left, z up).

    Attributes:
        elevation_tangent: ``(B,)`` float32, from the highest beam to the lowest.
        azimuth_start: azimuth of column 0, radians counter-clockwise from +x.
        columns: number C of columns of a turn, counter-clockwise.
    """

    elevation_tangent: Float
    azimuth_start: float
    columns: int

    def __post_init__(self) -> None:
        if self.columns < 1 or self.elevation_tangent.ndim != 1 or np.any(np.diff(self.elevation_tangent) >= 0):
            raise ValueError("RayGrid: needs at least one column, and elevations from the highest beam to the lowest.")

    @property
    def beams(self) -> int:
        """Number B of beams."""
        return len(self.elevation_tangent)

    @property
    def azimuth_step(self) -> float:
        """Angle between columns, radians."""
        return 2 * np.pi / self.columns

    @property
    def azimuth(self) -> NDArray[np.float64]:
        """``(C,)`` azimuths, radians."""
        return np.asarray(self.azimuth_start + np.arange(self.columns) * self.azimuth_step)

    @property
    def elevation_cosine(self) -> Float:
        """``(B,)`` cosine of the elevation: horizontal range over range."""
        return np.asarray(1 / np.sqrt(1 + self.elevation_tangent**2), dtype=np.float32)


@dataclass(frozen=True)
class PartBatch:
    """P convex parts in the sensor's frame, metres.

    A part is a polyhedron (half spaces ``normal . x <= offset``), an ellipsoid or an upright cylinder. Each has an
    upright bounding box for its window.

    Attributes:
        kind: ``(P,)`` ``POLYHEDRON``, ``ELLIPSOID`` or ``CYLINDER``.
        plane_start: ``(P + 1,)`` first plane of each part in ``planes`` (equal neighbours for parts without planes).
        planes: ``(K, 4)`` float64 outward normal and offset. Normals need not have unit length.
        centre: ``(P, 3)`` centre of the bounding box, of the ellipsoid and of the cylinder.
        half: ``(P, 3)`` half length, width and height of the bounding box; the radii of an ellipsoid; radius, radius
            and half height of a cylinder.
        yaw: ``(P,)`` heading of the bounding box and the ellipsoid, radians counter-clockwise.
        porosity: ``(P,)`` mean depth in metres that a ray travels in the part before it returns; 0 for solid parts,
            which return at their surface. Rays that travel further than the part is deep pass through it (foliage).
    """

    kind: NDArray[np.int64]
    plane_start: NDArray[np.int64]
    planes: NDArray[np.float64]
    centre: NDArray[np.float64]
    half: NDArray[np.float64]
    yaw: NDArray[np.float64]
    porosity: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.kind)


@dataclass(frozen=True)
class Windows:
    """The rays that may meet each of P parts: beams ``first_beam..end_beam``, columns ``first_column..+width``.

    Columns are counted modulo the number of columns. A width of 0 means that no ray can meet the part.
    """

    first_beam: NDArray[np.int64]
    end_beam: NDArray[np.int64]
    first_column: NDArray[np.int64]
    width: NDArray[np.int64]

    def blocks(self, part: int, columns: int) -> Iterator[tuple[int, int, int, int]]:
        """The window of ``part`` as one or two rectangles ``(beam, end beam, column, end column)``."""
        b0, b1 = int(self.first_beam[part]), int(self.end_beam[part])
        c0, width = int(self.first_column[part]), int(self.width[part])
        if b0 >= b1 or width == 0:
            return
        end = c0 + width
        yield b0, b1, c0, min(end, columns)
        if end > columns:
            yield b0, b1, 0, end - columns


def windows_of(parts: PartBatch, grid: RayGrid) -> Windows:
    """The window of each part's bounding box; a box around or above the origin is seen in all columns."""
    cos, sin = np.cos(parts.yaw), np.sin(parts.yaw)
    signs = np.array([[1, 1], [-1, 1], [-1, -1], [1, -1]], dtype=np.float64)
    local = signs[None] * parts.half[:, None, :2]
    corner_x = parts.centre[:, None, 0] + local[..., 0] * cos[:, None] - local[..., 1] * sin[:, None]
    corner_y = parts.centre[:, None, 1] + local[..., 0] * sin[:, None] + local[..., 1] * cos[:, None]
    # The origin in the box's own frame gives the smallest horizontal range.
    origin_x = -(parts.centre[:, 0] * cos + parts.centre[:, 1] * sin)
    origin_y = parts.centre[:, 0] * sin - parts.centre[:, 1] * cos
    outside_x = np.maximum(np.abs(origin_x) - parts.half[:, 0], 0)
    outside_y = np.maximum(np.abs(origin_y) - parts.half[:, 1], 0)
    nearest = np.maximum(np.hypot(outside_x, outside_y), 1e-6)
    farthest = np.hypot(corner_x, corner_y).max(axis=1)
    around = nearest <= 1e-3

    middle = np.arctan2(parts.centre[:, 1], parts.centre[:, 0])
    offset = np.arctan2(corner_y, corner_x) - middle[:, None]
    offset = (offset + np.pi) % (2 * np.pi) - np.pi
    first = np.ceil((middle + offset.min(axis=1) - grid.azimuth_start) / grid.azimuth_step - 1e-6).astype(np.int64)
    last = np.floor((middle + offset.max(axis=1) - grid.azimuth_start) / grid.azimuth_step + 1e-6).astype(np.int64)
    width = np.clip(last - first + 1, 0, grid.columns)
    first, width = np.where(around, 0, first % grid.columns), np.where(around, grid.columns, width)

    bottom, top = parts.centre[:, 2] - parts.half[:, 2], parts.centre[:, 2] + parts.half[:, 2]
    highest = np.where(top > 0, top / nearest, top / farthest)
    lowest = np.where(bottom < 0, bottom / nearest, bottom / farthest)
    descending = -grid.elevation_tangent.astype(np.float64)
    first_beam = np.searchsorted(descending, -highest - 1e-6, side="left")
    end_beam = np.searchsorted(descending, -lowest + 1e-6, side="right")
    return Windows(first_beam, end_beam, first, width)


class RangeImage:
    """What each ray meets first.

    Attributes:
        inverse: ``(B, C)`` float32, 1 / horizontal range in 1/m; the given starting value where nothing was met.
        part: ``(B, C)`` int32 number of the part, -1 where nothing was met.
    """

    def __init__(self, grid: RayGrid, max_range_m: float) -> None:
        start = 1 / (max_range_m * grid.elevation_cosine)
        self.inverse = np.repeat(start.astype(np.float32)[:, None], grid.columns, axis=1)
        self.part = np.full((grid.beams, grid.columns), -1, dtype=np.int32)


def cast_parts(
    parts: PartBatch,
    grid: RayGrid,
    image: RangeImage,
    rng: np.random.Generator,
    *,
    object_of_part: NDArray[np.int64] | None = None,
    columns: tuple[int, int] | None = None,
) -> NDArray[np.int64]:
    """Enter all parts into the range image, nearest first seen.

    Args:
        parts: the parts, at most 2**31.
        grid: directions of the rays.
        image: changed in place.
        rng: draws the depths in porous parts.
        object_of_part: ``(P,)`` number of the object that a part belongs to, -1 for none. Parts of an object are
            neighbours.
        columns: first and end column of the rays that are cast; all by default.

    Returns:
        ``(objects,)`` for each object the number of rays that would meet it if it stood alone (0..max number).
    """
    if object_of_part is None:
        object_of_part = np.full(len(parts), -1, dtype=np.int64)
    first_column, end_column = (0, grid.columns) if columns is None else columns
    n_objects = int(object_of_part.max(initial=-1)) + 1
    alone = np.zeros(n_objects, dtype=np.int64)
    caster = _Caster(parts, grid)
    windows = windows_of(parts, grid)
    owner = object_of_part.tolist()
    met: NDArray[np.bool_] | None = None
    met_rows = (0, 0)
    for part in range(len(parts)):
        number = owner[part]
        if number >= 0 and (part == 0 or owner[part - 1] != number):
            members = np.flatnonzero(object_of_part == number)
            met_rows = int(windows.first_beam[members].min()), int(windows.end_beam[members].max())
            met = np.zeros((max(met_rows[1] - met_rows[0], 0), grid.columns), dtype=np.bool_)
        for b0, b1, c0, c1 in windows.blocks(part, grid.columns):
            c0, c1 = max(c0, first_column), min(c1, end_column)
            if b1 <= b0 or c1 <= c0:
                continue
            nearest, hit = caster.block(part, b0, b1, c0, c1, rng)
            if number >= 0 and met is not None:
                met[b0 - met_rows[0] : b1 - met_rows[0], c0:c1] |= hit
            view = image.inverse[b0:b1, c0:c1]
            hit &= nearest > view
            np.copyto(view, nearest, where=hit)
            np.copyto(image.part[b0:b1, c0:c1], np.int32(part), where=hit)
        if number >= 0 and met is not None and (part + 1 == len(parts) or owner[part + 1] != number):
            alone[number] = np.count_nonzero(met)
    return alone


class _Caster:
    """Evaluates one part in one rectangle of rays."""

    def __init__(self, parts: PartBatch, grid: RayGrid) -> None:
        self.parts = parts
        azimuth = grid.azimuth
        self.cos = np.cos(azimuth).astype(np.float32)
        self.sin = np.sin(azimuth).astype(np.float32)
        self.tan = grid.elevation_tangent[:, None]
        self.secant = (1 / grid.elevation_cosine)[:, None]
        # Planes through the origin would divide by zero: move them by a hair to the outside.
        offset = parts.planes[:, 3]
        offset = np.where(np.abs(offset) < 1e-6, 1e-6, offset)
        self.scaled = (parts.planes[:, :3] / offset[:, None]).astype(np.float32)
        self.front = offset < 0
        self.vertical = np.abs(parts.planes[:, 2]) < 1e-9
        self.kind = parts.kind.tolist()
        self.start = parts.plane_start.tolist()
        self.porosity = parts.porosity.tolist()
        cos, sin = np.cos(parts.yaw), np.sin(parts.yaw)
        x, y, z = parts.centre.T
        rx, ry, rz = np.maximum(parts.half, 1e-6).T
        # Rows that take a direction or point into the frame in which the ellipsoid (cylinder) is the unit sphere.
        self.along = np.stack([cos / rx, sin / rx], axis=1).astype(np.float32)
        self.across = np.stack([-sin / ry, cos / ry], axis=1).astype(np.float32)
        self.centre = np.stack([(cos * x + sin * y) / rx, (cos * y - sin * x) / ry, z / rz, 1 / rz], axis=1).tolist()
        self.z_range = np.stack([z - rz, z + rz], axis=1).tolist()

    def block(
        self, part: int, b0: int, b1: int, c0: int, c1: int, rng: np.random.Generator
    ) -> tuple[Float, NDArray[np.bool_]]:
        """Inverse horizontal range of the first meeting and where there is one, both ``(b1 - b0, c1 - c0)``."""
        kind = self.kind[part]
        if kind == POLYHEDRON:
            enter, leave = self._polyhedron(part, b0, b1, c0, c1)
        elif kind == ELLIPSOID:
            enter, leave = self._ellipsoid(part, b0, b1, c0, c1)
        else:
            enter, leave = self._cylinder(part, b0, b1, c0, c1)
        hit = enter > leave
        if self.porosity[part] > 0:
            depth = rng.standard_exponential((b1 - b0, c1 - c0), dtype=np.float32) * np.float32(self.porosity[part])
            # Horizontal share of the depth; 1 / (1 / w + d) = w / (1 + w d).
            depth /= self.secant[b0:b1]
            enter = enter / (1 + enter * depth)
            hit &= enter > leave
        return enter, hit

    def _polyhedron(self, part: int, b0: int, b1: int, c0: int, c1: int) -> tuple[Float, Float]:
        first, end = self.start[part], self.start[part + 1]
        scaled = self.scaled[first:end]
        per_column = scaled[:, 0:1] * self.cos[c0:c1] + scaled[:, 1:2] * self.sin[c0:c1]
        tan = self.tan[b0:b1]
        enter: Float | None = None
        leave: Float = np.zeros((1, 1), dtype=np.float32)
        # Vertical planes first: they stay one value per column until a sloping plane comes.
        order = [p for p in range(end - first) if self.vertical[first + p]]
        order += [p for p in range(end - first) if not self.vertical[first + p]]
        for p in order:
            w: Float = per_column[None, p]
            if not self.vertical[first + p]:
                w = w + tan * scaled[p, 2]
            if self.front[first + p]:
                enter = w if enter is None else np.minimum(enter, w)
            else:
                leave = np.maximum(leave, w)
        if enter is None:  # the origin is inside
            enter = np.zeros((1, 1), dtype=np.float32)
        shape = (b1 - b0, c1 - c0)
        return np.broadcast_to(enter, shape), np.broadcast_to(leave, shape)

    def _ellipsoid(self, part: int, b0: int, b1: int, c0: int, c1: int) -> tuple[Float, Float]:
        x, y, z, inverse_height = self.centre[part]
        cos, sin, tan = self.cos[c0:c1], self.sin[c0:c1], self.tan[b0:b1]
        along = self.along[part, 0] * cos + self.along[part, 1] * sin
        across = self.across[part, 0] * cos + self.across[part, 1] * sin
        up = tan * np.float32(inverse_height)
        squared = (along * along + across * across)[None] + up * up
        product = (along * np.float32(x) + across * np.float32(y))[None] + up * np.float32(z)
        constant = np.float32(x * x + y * y + z * z - 1)
        if constant <= 0:  # the origin is inside
            return np.zeros_like(squared), np.ones_like(squared)
        discriminant = product * product - constant * squared
        miss = (discriminant <= 0) | (product <= 0)
        root = np.sqrt(np.maximum(discriminant, 0))
        enter, leave = (product + root) / constant, (product - root) / constant
        enter[miss] = 0
        return enter, np.maximum(leave, 0)

    def _cylinder(self, part: int, b0: int, b1: int, c0: int, c1: int) -> tuple[Float, Float]:
        x, y, _, _ = self.centre[part]
        cos, sin, tan = self.cos[c0:c1], self.sin[c0:c1], self.tan[b0:b1]
        along = self.along[part, 0] * cos + self.along[part, 1] * sin
        across = self.across[part, 0] * cos + self.across[part, 1] * sin
        squared = along * along + across * across
        product = along * np.float32(x) + across * np.float32(y)
        constant = np.float32(x * x + y * y - 1)
        bottom, top = self.z_range[part]
        if constant <= 0:
            shape = (b1 - b0, c1 - c0)
            return np.zeros(shape, dtype=np.float32), np.ones(shape, dtype=np.float32)
        discriminant = product * product - constant * squared
        root = np.sqrt(np.maximum(discriminant, 0))
        side = np.where((discriminant > 0) & (product > 0), (product + root) / constant, np.float32(0))
        enter: Float = side[None]
        leave: Float = np.maximum((product - root) / constant, 0)[None]
        for offset, sign in ((top, 1.0), (-bottom, -1.0)):
            limit = tan * np.float32(sign / (offset if abs(offset) > 1e-6 else 1e-6))
            if offset < 0:
                enter = np.minimum(enter, limit)
            else:
                leave = np.maximum(leave, limit)
        shape = (b1 - b0, c1 - c0)
        return np.broadcast_to(enter, shape), np.broadcast_to(leave, shape)
