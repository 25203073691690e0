"""``sensor.json``: what the cells of stored radar cubes mean, and how their axes lie."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adperception.structures import CARRADA_GRID, RadarGrid

__all__ = ["AXES", "SENSOR_FILE", "RadarSensor", "read_radar_sensor"]

SENSOR_FILE = "sensor.json"
AXES = ("range", "azimuth", "doppler")
_CHOICES = {
    "range_order": ("far_first", "near_first"),
    "azimuth_order": ("ascending", "descending"),
    "doppler_order": ("approaching_last", "approaching_first"),
    "label_axis": ("sin", "angle", "unknown"),
}


@dataclass(frozen=True)
class RadarSensor:
    """How cubes are stored.

    The defaults are the package's own order (see ``RadarGrid``); ``oriented`` brings any other into it. Straight ahead
    and standstill must be in the middle, column ``bins / 2`` (after ``numpy.fft.fftshift``).

    Attributes:
        grid: what the cells mean, in the package's order.
        axes: ``"range"``, ``"azimuth"`` and ``"doppler"`` in the order in which files have them.
        range_order: ``"far_first"``: index 0 is the farthest range; ``"near_first"``.
        azimuth_order: ``"ascending"``: azimuth grows with the index; ``"descending"``.
        doppler_order: ``"approaching_last"``: the columns after the middle approach; ``"approaching_first"``.
        label_axis: what the azimuth columns of the labels are linear in: ``"sin"``, ``"angle"`` or ``"unknown"``.
        radar: fields of an FMCW radar, for raw samples; may be empty.
    """

    grid: RadarGrid = CARRADA_GRID
    axes: tuple[str, ...] = AXES
    range_order: str = "far_first"
    azimuth_order: str = "ascending"
    doppler_order: str = "approaching_last"
    label_axis: str = "sin"
    radar: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if sorted(self.axes) != sorted(AXES):
            raise ValueError(f"axes {list(self.axes)} must be {', '.join(AXES)} in the order of the files.")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} {getattr(self, name)!r} must be one of {', '.join(choices)}.")

    @property
    def stored_shape(self) -> tuple[int, ...]:
        """Shape of a cube in a file."""
        bins = dict(zip(AXES, self.grid.shape, strict=True))
        return tuple(bins[axis] for axis in self.axes)

    def stored_mask_shape(self, view_axes: tuple[str, str]) -> tuple[int, ...]:
        """Shape of a mask of a view in a file: the cube's axes without the one that the view sums over."""
        bins = dict(zip(AXES, self.grid.shape, strict=True))
        return tuple(bins[axis] for axis in self.axes if axis in view_axes)

    def oriented(self, values: NDArray[Any], axes: tuple[str, ...] = AXES) -> NDArray[Any]:
        """Stored values of a cube, or of a view with some of its axes, in the package's order.

        Args:
            values: with the axes of ``self.axes`` that ``axes`` names.
            axes: the wanted axes, in the order of the result.
        """
        stored = [axis for axis in self.axes if axis in axes]
        values = values.transpose([stored.index(axis) for axis in axes])
        if self.range_order == "near_first" and "range" in axes:
            values = np.flip(values, axes.index("range"))
        if self.azimuth_order == "descending" and "azimuth" in axes:
            values = _about_the_middle(values, axes.index("azimuth"))
        if self.doppler_order == "approaching_first" and "doppler" in axes:
            values = _about_the_middle(values, axes.index("doppler"))
        return values

    def write(self, path: Path) -> None:
        """Write ``sensor.json``."""
        content = {"grid": self.grid.to_dict(), "axes": list(self.axes)}
        content |= {name: getattr(self, name) for name in _CHOICES}
        if self.radar:
            content["radar"] = dict(self.radar)
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8", newline="\n")


def read_radar_sensor(path: Path) -> RadarSensor:
    """The sensor that a ``sensor.json`` describes; only ``grid`` must be there.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for text that is not JSON, an unknown field or a value that makes no sense.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} does not exist: it says what the cells of the cubes mean. Write it with "
            "data_tools/radar_folder.py init."
        )
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}).") from error
    if not isinstance(content, dict) or not isinstance(content.get("grid"), dict):
        raise ValueError(f'{path}: must hold an object with "grid" (the fields of RadarGrid).')
    fields = {f.name for f in dataclasses.fields(RadarSensor)}
    grid_fields = {f.name for f in dataclasses.fields(RadarGrid)}
    unknown = sorted(set(content) - fields) + sorted(set(content["grid"]) - grid_fields)
    missing = sorted(grid_fields - set(content["grid"]) - {"element_spacing"})
    if unknown or missing:
        problem = f"{', '.join(unknown)} is not known" if unknown else f"grid lacks {', '.join(missing)}"
        raise ValueError(
            f"{path}: {problem}. Known are {', '.join(sorted(fields))}; in grid {', '.join(sorted(grid_fields))}."
        )
    try:
        options = {name: content[name] for name in (*_CHOICES, "radar") if name in content}
        return RadarSensor(RadarGrid(**content["grid"]), tuple(content.get("axes", AXES)), **options)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: {error}") from error


def _about_the_middle(values: NDArray[Any], axis: int) -> NDArray[Any]:
    """Index c of n to ``(n - c) mod n``: the middle stays in the middle."""
    return np.roll(np.flip(values, axis), 1, axis)
