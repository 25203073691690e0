"""Radar cubes for a model, from files as they come: stored cubes, or raw ADC samples that are transformed first."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from adperception.datasets.formats.npy_arrays import NUMBERS, read_array_header
from adperception.datasets.formats.radar_sensor import RadarSensor, read_radar_sensor
from adperception.datasets.formats.ti_adc import read_ti_bin
from adperception.simulation.fmcw import FMCWRadar, range_azimuth_doppler
from adperception.structures import CARRADA_GRID, RadarGrid

__all__ = ["InputKind", "RadarDescription", "RadarMoment", "read_moments", "read_radar_description"]

InputKind = Literal["auto", "cube", "adc"]
Source = str | Path | NDArray[Any]

_TI_OPTIONS = ("lanes", "iq_swap")


@dataclass(frozen=True)
class RadarDescription:
    """What is known about the radar that files come from.

    Attributes:
        sensor: how stored cubes lie; ``None`` if nothing says so.
        radar: the radar, for raw samples; ``None`` if nothing says so.
        ti_options: ``lanes`` and ``iq_swap`` of ``read_ti_bin``.
    """

    sensor: RadarSensor | None = None
    radar: FMCWRadar | None = None
    ti_options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RadarMoment:
    """One moment, ready for a model.

    Attributes:
        name: of the file, with the number of the frame if it holds several.
        magnitude: ``(range, azimuth, Doppler)`` float32, row 0 far.
        grid: what the cells mean.
        reading: how it was read, in words.
    """

    name: str
    magnitude: NDArray[np.float32]
    grid: RadarGrid
    reading: str


def read_radar_description(path: str | Path) -> RadarDescription:
    """A sensor file: ``sensor.json`` of a radar folder, or only the fields of an ``FMCWRadar``.

    ``{"preset": "ti_indoor"}`` and ``{"grid": {...}, "radar": {"preset": "ti_indoor", "lanes": 4}}`` are examples;
    ``lanes`` and ``iq_swap`` tell how a TI recording is laid out.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for text that is not JSON, or a value that makes no sense.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no sensor file here.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}).") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must hold an object, the fields of sensor.json or of FMCWRadar.")
    sensor = read_radar_sensor(path) if "grid" in content else None
    fields = dict(content if sensor is None else sensor.radar)
    options = {name: fields.pop(name) for name in _TI_OPTIONS if name in fields}
    try:
        radar = FMCWRadar.from_dict(fields) if fields else None
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return RadarDescription(sensor, radar, options)


def read_moments(
    sources: Sequence[Source],
    description: RadarDescription | None = None,
    known_grid: RadarGrid | None = None,
    kind: InputKind = "auto",
) -> Iterator[RadarMoment]:
    """The moments of files or arrays one after the other, each read when it is asked for.

    Args:
        sources: ``.npy`` files or arrays of one moment or of several along a leading axis: cubes (complex or
            magnitudes) or complex ADC samples ``(loops, antennas, samples)``; ``.bin`` recordings of TI radars.
        description: of the radar; raw samples need one with a radar.
        known_grid: what the cells of cubes mean if there is no description: the model's.
        kind: what the arrays are; ``"auto"`` decides by their shape.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a shape that fits nothing known, or values that cannot be: NaN, negative magnitudes.
    """
    description = RadarDescription() if description is None else description
    for source in sources:
        if isinstance(source, (str, Path)) and Path(source).suffix.lower() == ".bin":
            yield from _ti_moments(Path(source), description)
            continue
        name, values = _open(source)
        reader = _reader(name, values, description, known_grid, kind)
        if values.ndim == 3:
            yield reader(name, np.asarray(values))
        else:
            for number in range(len(values)):
                yield reader(f"{name}[{number}]", np.asarray(values[number]))


def _open(source: Source) -> tuple[str, NDArray[Any]]:
    """Name and values; those of a file stay on the disk until they are used."""
    if isinstance(source, (str, Path)):
        path = Path(source)
        if path.suffix.lower() != ".npy":
            raise ValueError(f"{path}: radar input is a .npy file or a .bin recording of a TI radar.")
        if not path.is_file():
            raise FileNotFoundError(f"{path}: there is no such file.")
        shape, _ = read_array_header(path, kinds=NUMBERS + "c")
        name, values = path.name, np.load(path, mmap_mode="r" if np.prod(shape) else None, allow_pickle=False)
    else:
        name, values = "array", np.asarray(source)
    if values.ndim not in (3, 4) or values.size == 0 or values.dtype.kind not in NUMBERS + "c":
        raise ValueError(
            f"{name}: {values.dtype} {values.shape} is no radar input. A cube has the axes (range, azimuth, Doppler), "
            "an ADC frame (loops, antennas, samples), several of them a leading axis of moments. A view of two axes is "
            "not enough."
        )
    return name, values


class _CubeReader:
    """Stored cubes of a known shape."""

    def __init__(self, sensor: RadarSensor) -> None:
        self.sensor = sensor

    def __call__(self, name: str, values: NDArray[Any]) -> RadarMoment:
        magnitude = np.abs(values) if np.iscomplexobj(values) else values
        low, high = magnitude.min(), magnitude.max()  # NaN wins both
        if not (low >= 0 and high < np.inf):
            bad = int(np.count_nonzero(~np.isfinite(magnitude)))
            problem = f"{bad:,} of {magnitude.size:,} values are NaN or infinite" if bad else f"the least is {low:g}"
            raise ValueError(
                f"{name}: {problem}; a cube holds complex amplitudes or magnitudes of at least 0 (not decibels)."
            )
        cube = np.ascontiguousarray(self.sensor.oriented(magnitude), dtype=np.float32)
        what = "complex cube" if np.iscomplexobj(values) else "cube of magnitudes"
        return RadarMoment(name, cube, self.sensor.grid, f"{what}, {_cells(self.sensor.grid)}")


class _ADCReader:
    """Raw samples that go through the Fourier transforms."""

    def __init__(self, radar: FMCWRadar) -> None:
        self.radar = radar

    def __call__(self, name: str, values: NDArray[Any]) -> RadarMoment:
        note = ""
        if _is_unsigned_16_bit(values):
            values = _signed(values.real) + 1j * _signed(values.imag)
            note = ", unsigned 16-bit numbers taken as signed"
        try:
            cube = range_azimuth_doppler(values, self.radar)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        loops, antennas, samples = self.radar.adc_shape
        reading = f"ADC frame of {loops} loops, {antennas} antennas, {samples} samples{note}; {_cells(cube.grid)}"
        return RadarMoment(name, cube.magnitude(), cube.grid, reading)


def _reader(
    name: str,
    values: NDArray[Any],
    description: RadarDescription,
    known_grid: RadarGrid | None,
    kind: InputKind,
) -> _CubeReader | _ADCReader:
    """How to read values of this shape."""
    shape, radar, sensor = values.shape[-3:], description.radar, description.sensor
    if sensor is None:
        sensor = RadarSensor((known_grid or CARRADA_GRID) if radar is None else radar.grid)
    is_adc = radar is not None and shape == radar.adc_shape
    is_cube = shape == sensor.stored_shape
    if is_adc and is_cube and kind == "auto":
        raise ValueError(f"{name}: {shape} could be a cube as well as raw samples. Say which with kind (--kind).")
    if radar is not None and is_adc and kind != "cube":
        return _ADCReader(radar)
    if is_cube and kind != "adc":
        return _CubeReader(sensor)
    fits = [f"a cube ({', '.join(sensor.axes)}) has {sensor.stored_shape}"] if kind != "adc" else []
    if kind != "cube":
        fits.append(
            "raw samples need a sensor file that describes the radar (--sensor)"
            if radar is None
            else f"an ADC frame (loops, antennas, samples) has {radar.adc_shape}"
        )
    raise ValueError(
        f"{name}: shape {shape} fits nothing: {'; '.join(fits)}. Check the order of the axes and the sensor file."
    )


def _ti_moments(path: Path, description: RadarDescription) -> Iterator[RadarMoment]:
    radar = description.radar
    if radar is None:
        raise ValueError(f"{path}: a TI recording needs a sensor file that describes the radar (--sensor).")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no ADC recording here.")
    layout = (radar.samples, radar.receivers, radar.transmitters, radar.loops)
    frame_bytes = 4 * int(np.prod(layout))
    count, rest = divmod(path.stat().st_size, frame_bytes)
    if rest or not count:
        # Reading all of it says what is wrong with the size.
        read_ti_bin(path, *layout, **description.ti_options)
        raise ValueError(f"{path}: holds no frame.")
    read = _ADCReader(radar)
    for number in range(count):
        frame = read_ti_bin(path, *layout, **description.ti_options, first=number, frames=1)[0]
        yield read(path.name if count == 1 else f"{path.name}[{number}]", frame)


def _is_unsigned_16_bit(values: NDArray[Any]) -> bool:
    """Whether signed 16-bit numbers were stored as unsigned ones: all whole, none negative, some in the upper half."""
    parts = np.stack([values.real, values.imag])
    if not (parts.min() >= 0 and 32768 <= parts.max() <= 65535):
        return False
    return bool((parts == np.round(parts)).all())


def _signed(values: NDArray[Any]) -> NDArray[np.float64]:
    signed: NDArray[np.float64] = np.mod(values.astype(np.float64) + 32768, 65536) - 32768
    return signed


def _cells(grid: RadarGrid) -> str:
    rows, azimuths, dopplers = grid.shape
    return f"{rows} x {azimuths} x {dopplers} cells of {grid.range_bin_m:.4g} m and {grid.doppler_bin_mps:.4g} m/s"
