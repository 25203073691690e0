"""Kinds of streets and what they look like."""

from __future__ import annotations

from dataclasses import dataclass

from adperception.simulation.materials import Material

__all__ = ["STYLES", "StreetStyle"]


@dataclass(frozen=True)
class StreetStyle:
    """What a kind of street looks like. Pairs are ranges that are drawn from uniformly; lengths are in metres.

    Attributes:
        name: of the style.
        share: relative frequency.
        lanes: lanes per direction, smallest and largest number.
        lane_width: of each lane.
        parking: probability of a parking lane on a side, and share of its places that are taken.
        sidewalk: width of the sidewalk.
        setback: from the sidewalk to the facades.
        buildings: share of the building line that is built on.
        gap: between buildings.
        height: of buildings.
        vehicle_spacing: between moving vehicles of a lane.
        pedestrians: on the sidewalks, smallest and largest number.
        cyclists: smallest and largest number.
        trees: spacing of the trees of a row.
        crossing: probability of an intersection.
        verge: material between sidewalk and facades.
        bank: probability that the land rises or falls beyond the road.
    """

    name: str
    share: float
    lanes: tuple[int, int]
    lane_width: tuple[float, float]
    parking: tuple[float, float]
    sidewalk: tuple[float, float]
    setback: tuple[float, float]
    buildings: float
    gap: tuple[float, float]
    height: tuple[float, float]
    vehicle_spacing: tuple[float, float]
    pedestrians: tuple[int, int]
    cyclists: tuple[int, int]
    trees: tuple[float, float]
    crossing: float
    verge: Material = Material.GRASS
    bank: float = 0.0


STYLES: tuple[StreetStyle, ...] = (
    StreetStyle(
        "residential", 0.46, (1, 1), (2.4, 3.0), (0.75, 0.75), (0.5, 1.6), (0.5, 4.0), 0.85, (1.5, 6.0), (5.0, 9.0),
        (25, 80), (0, 4), (0, 2), (7, 16), 0.5,
    ),
    StreetStyle(
        "city", 0.28, (1, 2), (2.7, 3.2), (0.8, 0.85), (1.0, 2.6), (0.0, 1.0), 0.95, (0.0, 2.0), (8.0, 16.0),
        (14, 45), (2, 12), (0, 4), (9, 20), 0.5, Material.PAVEMENT,
    ),
    StreetStyle(
        "arterial", 0.14, (2, 2), (3.1, 3.6), (0.1, 0.3), (1.2, 2.5), (1.5, 8.0), 0.5, (4.0, 25.0), (5.0, 14.0),
        (12, 40), (0, 3), (0, 2), (7, 14), 0.4,
    ),
    StreetStyle(
        "country", 0.12, (1, 2), (3.2, 3.8), (0.0, 0.0), (0.3, 0.8), (2.0, 12.0), 0.12, (10.0, 40.0), (4.0, 8.0),
        (25, 80), (0, 1), (0, 1), (5, 14), 0.2, Material.GRASS, 0.7,
    ),
)  # fmt: skip
"""Four kinds of streets; the shares are by eye from KITTI's frames."""
