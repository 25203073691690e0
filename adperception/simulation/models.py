"""The bodies of road users, trees and street furniture, as lists of convex parts.

Road users fill the unit box (see ``objects``): their proportions are relative to length, width and height. Furniture
and trees are in metres.
"""

from __future__ import annotations

import numpy as np

from adperception.simulation.materials import Material
from adperception.simulation.objects import Model, Part, box, cylinder, ellipsoid, frustum, prism

__all__ = [
    "CARS",
    "CYCLISTS",
    "FURNITURE",
    "PEDESTRIANS",
    "PEDESTRIAN_LENGTHS_M",
    "TREES",
    "TRUCKS",
    "VANS",
]


def _wheels(front: float, rear: float, radius_x: float, radius_z: float, half_track: float) -> list[Part]:
    """Four wheels whose outer faces lie just inside the body's sides."""
    return [
        ellipsoid((x, side * half_track, radius_z), (radius_x, 0.055, radius_z), Material.RUBBER)
        for x in (front, rear)
        for side in (1, -1)
    ]


def _car(hood: float, windscreen: tuple[float, float], rear_window: tuple[float, float], deck: float) -> Model:
    """A car: lower body with bumpers, hood wedge, glass house, roof, wheels, plates.

    Args:
        hood: height of the hood's front edge.
        windscreen: x of its foot and of its top.
        rear_window: x of its top and of its foot.
        deck: height of the rear edge (boot lid, or tailgate for a hatchback).
    """
    body = [(-0.48, 0.13), (0.47, 0.12), (0.5, 0.24), (0.49, hood), (0.30, 0.60), (-0.42, 0.62), (-0.49, deck)]
    body.append((-0.5, 0.28))
    house_bottom = (rear_window[1], windscreen[0], 0.47)
    house_top = (rear_window[0] - 0.01, windscreen[1] + 0.02, 0.395)
    roof = (rear_window[0], windscreen[1], 0.385)
    parts = [
        prism(body, -0.5, 0.5, Material.CAR_PAINT),
        frustum(house_bottom, house_top, 0.58, 0.945, Material.GLASS),
        frustum(
            (roof[0] - 0.02, roof[1] + 0.03, 0.40),
            (roof[0] + 0.02, roof[1] - 0.02, 0.36),
            0.93,
            1.0,
            Material.CAR_PAINT,
        ),
        # Pillars between the side windows.
        frustum((-0.06, -0.02, 0.475), (-0.05, -0.02, 0.40), 0.58, 0.94, Material.CAR_PAINT),
        box((0.488, -0.15, 0.25), (0.502, 0.15, 0.33), Material.PLATE),
        box((-0.502, -0.15, 0.42), (-0.488, 0.15, 0.49), Material.PLATE),
        *_wheels(0.31, -0.30, 0.078, 0.215, 0.445),
    ]
    return Model(tuple(parts), "Car")


CARS: tuple[Model, ...] = (
    _car(0.47, (0.24, 0.06), (-0.24, -0.38), 0.62),  # sedan
    _car(0.48, (0.27, 0.10), (-0.36, -0.46), 0.58),  # hatchback
    _car(0.48, (0.25, 0.09), (-0.42, -0.475), 0.60),  # estate
    _car(0.52, (0.28, 0.14), (-0.43, -0.47), 0.60),  # tall compact
)
"""Sedan, hatchback, estate and tall compact."""


def _van(glazed: bool) -> Model:
    body = [(-0.49, 0.13), (0.40, 0.13), (0.40, 0.56), (0.27, 0.97), (-0.48, 1.0), (-0.5, 0.3)]
    nose = [(0.38, 0.12), (0.48, 0.12), (0.5, 0.22), (0.49, 0.42), (0.38, 0.56)]
    parts = [
        prism(body, -0.48, 0.48, Material.CAR_PAINT),
        prism(nose, -0.47, 0.47, Material.CAR_PAINT),
        prism([(0.38, 0.57), (0.402, 0.57), (0.288, 0.93), (0.27, 0.93)], -0.42, 0.42, Material.GLASS),
        box((0.12, -0.5, 0.58), (0.27, 0.5, 0.84), Material.GLASS),
        box((0.49, -0.13, 0.22), (0.502, 0.13, 0.28), Material.PLATE),
        box((-0.502, -0.13, 0.30), (-0.49, 0.13, 0.36), Material.PLATE),
        *_wheels(0.32, -0.30, 0.07, 0.16, 0.44),
    ]
    if glazed:
        parts.append(box((-0.44, -0.49, 0.58), (0.08, 0.49, 0.84), Material.GLASS))
    return Model(tuple(parts), "Van")


VANS: tuple[Model, ...] = (_van(True), _van(False))
"""A minibus and a delivery van."""


def _truck() -> Model:
    parts = [
        prism([(0.27, 0.14), (0.5, 0.14), (0.5, 0.45), (0.48, 0.80), (0.27, 0.80)], -0.48, 0.48, Material.CAR_PAINT),
        box((0.485, -0.40, 0.50), (0.497, 0.40, 0.74), Material.GLASS),
        box((-0.5, -0.5, 0.32), (0.24, 0.5, 1.0), Material.CAR_PAINT),
        box((-0.48, -0.2, 0.2), (0.28, 0.2, 0.33), Material.METAL),
        box((-0.502, -0.10, 0.24), (-0.49, 0.10, 0.29), Material.PLATE),
        ellipsoid((0.36, 0.43, 0.135), (0.06, 0.06, 0.135), Material.RUBBER),
        ellipsoid((0.36, -0.43, 0.135), (0.06, 0.06, 0.135), Material.RUBBER),
        ellipsoid((-0.28, 0.41, 0.135), (0.06, 0.08, 0.135), Material.RUBBER),
        ellipsoid((-0.28, -0.41, 0.135), (0.06, 0.08, 0.135), Material.RUBBER),
    ]
    return Model(tuple(parts), "Truck")


TRUCKS: tuple[Model, ...] = (_truck(),)
"""A box truck."""


def _pedestrian(stride: float) -> Model:
    """Head, torso, shoulders, two legs, two arms.

    Args:
        stride: half distance of the feet; everything along x is then scaled so that the body fills the unit box.
    """
    cloth, k = Material.CLOTH, 0.5 / max(stride + 0.14, 0.22)

    def limb(foot: float, width: float, z0: float, top: float, z1: float, y0: float, y1: float) -> Part:
        outline = [(foot - width, z0), (foot + width, z0), (top, z1), (-top, z1)]
        return prism([(k * x, z) for x, z in outline], y0, y1, cloth)

    parts = (
        ellipsoid((0.02 * k, 0.0, 0.925), (0.16 * k, 0.15, 0.075), Material.SKIN),
        frustum((-0.20 * k, 0.20 * k, 0.30), (-0.22 * k, 0.22 * k, 0.38), 0.47, 0.82, cloth),
        ellipsoid((0.0, 0.0, 0.81), (0.20 * k, 0.40, 0.055), cloth),
        limb(stride, 0.14, 0.0, 0.16, 0.5, 0.03, 0.28),
        limb(-stride, 0.14, 0.0, 0.16, 0.5, -0.28, -0.03),
        limb(-stride + 0.02, 0.08, 0.42, 0.08, 0.80, 0.36, 0.5),
        limb(stride - 0.02, 0.08, 0.42, 0.08, 0.80, -0.5, -0.36),
    )
    return Model(parts, "Pedestrian")


PEDESTRIANS: tuple[Model, ...] = (_pedestrian(0.33), _pedestrian(0.20), _pedestrian(0.05))
"""Walking with long and short strides, and standing."""

PEDESTRIAN_LENGTHS_M: tuple[float, ...] = (0.95, 0.70, 0.45)
"""Mean length of each of ``PEDESTRIANS``."""


def _cyclist() -> Model:
    """Two wheels, frame, handlebar, and a rider leaning forward."""
    cloth, skin, metal = Material.CLOTH, Material.SKIN, Material.METAL
    parts = (
        ellipsoid((0.31, 0.0, 0.19), (0.19, 0.05, 0.19), Material.RUBBER, 0.08),
        ellipsoid((-0.31, 0.0, 0.19), (0.19, 0.05, 0.19), Material.RUBBER, 0.08),
        prism([(-0.1, 0.2), (0.0, 0.2), (0.24, 0.5), (-0.12, 0.5)], -0.05, 0.05, metal, 0.15),
        box((0.20, -0.48, 0.54), (0.25, 0.48, 0.58), metal),
        prism([(-0.22, 0.50), (0.02, 0.50), (0.20, 0.82), (0.02, 0.86)], -0.36, 0.36, cloth),
        ellipsoid((0.18, 0.0, 0.925), (0.075, 0.16, 0.075), skin),
        prism([(-0.02, 0.14), (0.06, 0.14), (0.10, 0.5), (-0.14, 0.56)], 0.10, 0.32, cloth),
        prism([(-0.06, 0.24), (0.02, 0.24), (0.10, 0.5), (-0.14, 0.56)], -0.32, -0.10, cloth),
        prism([(0.18, 0.54), (0.25, 0.54), (0.19, 0.80), (0.11, 0.80)], 0.36, 0.5, cloth),
        prism([(0.18, 0.54), (0.25, 0.54), (0.19, 0.80), (0.11, 0.80)], -0.5, -0.36, cloth),
    )
    return Model(parts, "Cyclist")


CYCLISTS: tuple[Model, ...] = (_cyclist(),)
"""A rider on a bicycle."""


def _tree(seed: int) -> Model:
    """A trunk and a crown of several porous ellipsoids, about 7 m high; scale for others."""
    rng = np.random.default_rng(seed)
    parts = [cylinder(0.0, 0.0, 0.16, 0.0, 3.2, Material.BARK)]
    for _ in range(4):
        angle, reach = rng.uniform(0, 2 * np.pi), rng.uniform(0.2, 1.3)
        centre = (reach * np.cos(angle), reach * np.sin(angle), rng.uniform(3.2, 5.4))
        radii = (rng.uniform(1.0, 1.9), rng.uniform(1.0, 1.9), rng.uniform(1.0, 1.7))
        parts.append(ellipsoid(centre, radii, Material.FOLIAGE, rng.uniform(0.8, 1.6)))
    return Model(tuple(parts))


def _bush(seed: int) -> Model:
    """Three porous ellipsoids on the ground, about 1.5 m high and 2 m wide."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(3):
        centre = (rng.uniform(-0.5, 0.5), rng.uniform(-0.4, 0.4), rng.uniform(0.3, 0.8))
        radii = (rng.uniform(0.5, 0.9), rng.uniform(0.5, 0.9), rng.uniform(0.5, 0.8))
        parts.append(ellipsoid(centre, radii, Material.FOLIAGE, rng.uniform(0.1, 0.4)))
    return Model(tuple(parts))


TREES: tuple[Model, ...] = tuple(_tree(seed) for seed in range(6))
"""Trees of metres; the crown begins at about 2.5 m."""

FURNITURE: dict[str, tuple[Model, ...]] = {
    "bush": tuple(_bush(seed) for seed in range(4)),
    "lamp": (
        Model(
            (
                cylinder(0.0, 0.0, 0.09, 0.0, 1.2, Material.METAL),
                cylinder(0.0, 0.0, 0.06, 1.2, 6.5, Material.METAL),
                box((-0.1, -0.1, 6.4), (1.2, 0.1, 6.6), Material.METAL),
            )
        ),
    ),
    "sign": (
        Model(
            (
                cylinder(0.0, 0.0, 0.035, 0.0, 2.7, Material.METAL),
                box((-0.03, -0.33, 2.05), (0.03, 0.33, 2.7), Material.SIGN),
            )
        ),
    ),
    "signal": (
        Model(
            (
                cylinder(0.0, 0.0, 0.08, 0.0, 3.4, Material.METAL),
                box((-0.15, -0.17, 2.4), (0.15, 0.17, 3.4), Material.METAL),
            )
        ),
    ),
    "bin": (
        Model(
            (
                frustum((-0.28, 0.28, 0.28), (-0.33, 0.33, 0.33), 0.08, 1.0, Material.CAR_PAINT),
                box((-0.36, -0.34, 1.0), (0.34, 0.34, 1.08), Material.CAR_PAINT),
            )
        ),
    ),
    "bollard": (Model((cylinder(0.0, 0.0, 0.07, 0.0, 0.9, Material.METAL),)),),
}
"""Bushes, lamps, signs, traffic signals, bins and bollards, in metres."""
