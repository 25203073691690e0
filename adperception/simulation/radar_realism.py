"""Statistics that say how much simulated recordings are like CARRADA: of the maps, and of the labelled objects."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from adperception.simulation.radar_labels import InstanceLabel, ViewLabel
from adperception.simulation.radar_sequence import SimulatedRadarFrame
from adperception.structures.radar_cube import RadarViews

__all__ = ["InstanceStatistics", "MapStatistics", "instance_statistics", "map_statistics", "median_by_bin"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class InstanceStatistics:
    """N labelled objects, one entry for each frame they are labelled in.

    "Inside" a label are the dense pixels within the box of the detections: so CARRADA's statistics by range bin count.

    Attributes:
        class_id: ``(N,)``.
        range_bin: ``(N,)`` bin of 1/32 of the rows, from the range-angle label, 0 nearest.
        doppler: ``(N,)`` mean column from standstill.
        amplitude: ``(N, 2)`` mean raw amplitude inside the label: range-angle, range-Doppler.
        area: ``(N, 2)`` pixels inside the label: range-angle, range-Doppler.
        dense: ``(N, 2)`` pixels of the mask: range-angle, range-Doppler.
        extent: ``(N, 3)`` rows, azimuth columns, Doppler columns from the first to the last detection.
        level_db: for each class, processed values of all mask pixels: range-angle, range-Doppler.
    """

    class_id: NDArray[np.int64]
    range_bin: NDArray[np.int64]
    doppler: Array
    amplitude: Array
    area: Array
    dense: Array
    extent: Array
    level_db: dict[int, tuple[Array, Array]]


@dataclass(frozen=True)
class MapStatistics:
    """Of whole maps: name to (mean, standard deviation). The logarithm is log10(|X|^2 + 1) over the cube.

    Attributes:
        values: the statistics.
        objects: share of frames with 0, 1, 2, ... labelled objects.
    """

    values: dict[str, tuple[float, float]]
    objects: Array


def _inside(label: ViewLabel) -> NDArray[np.int64]:
    low, high = label.box[:2], label.box[2:]
    kept: NDArray[np.int64] = label.dense[((label.dense >= low) & (label.dense <= high)).all(1)]
    return kept


def instance_statistics(frames: Iterable[SimulatedRadarFrame]) -> InstanceStatistics:
    """Of all labelled objects of some frames."""
    rows: list[tuple[float, ...]] = []
    levels: dict[int, tuple[list[Array], list[Array]]] = {}
    for frame in frames:
        if not frame.instances:
            continue
        magnitude = frame.cube.magnitude()
        raw, processed = RadarViews.raw(magnitude), RadarViews.processed(magnitude)
        for label in frame.instances:
            rows.append(_measure(label, raw, frame.cube.grid.range_bins, frame.cube.grid.doppler_bins))
            angle, doppler = levels.setdefault(label.class_id, ([], []))
            angle.append(processed.range_angle[tuple(label.range_angle.dense.T)])
            doppler.append(processed.range_doppler[tuple(label.range_doppler.dense.T)])
    table = np.array(rows, dtype=np.float64).reshape(-1, 12)
    return InstanceStatistics(
        class_id=table[:, 0].astype(np.int64),
        range_bin=table[:, 1].astype(np.int64),
        doppler=table[:, 2],
        amplitude=table[:, 3:5],
        area=table[:, 5:7],
        dense=table[:, 7:9],
        extent=table[:, 9:12],
        level_db={c: (np.concatenate(a), np.concatenate(d)) for c, (a, d) in sorted(levels.items())},
    )


def _measure(label: InstanceLabel, raw: RadarViews, range_bins: int, doppler_bins: int) -> tuple[float, ...]:
    angle, doppler = _inside(label.range_angle), _inside(label.range_doppler)
    from_near = range_bins - 1 - angle[:, 0].mean()
    rows, columns = label.range_angle.box[2:] - label.range_angle.box[:2]
    return (
        label.class_id,
        from_near // (range_bins / 32),
        doppler[:, 1].mean() - doppler_bins / 2,
        raw.range_angle[tuple(angle.T)].mean(),
        raw.range_doppler[tuple(doppler.T)].mean(),
        len(angle),
        len(doppler),
        len(label.range_angle.dense),
        len(label.range_doppler.dense),
        rows,
        columns,
        label.range_doppler.box[3] - label.range_doppler.box[1],
    )


def map_statistics(frames: Iterable[SimulatedRadarFrame]) -> MapStatistics:
    """Of all cells of some frames."""
    sums: dict[str, Array] = {}
    objects: list[int] = []
    for frame in frames:
        objects.append(len(frame.instances))
        magnitude = frame.cube.magnitude()
        raw, processed = RadarViews.raw(magnitude), RadarViews.processed(magnitude)
        maps = {
            "range-Doppler, dB": processed.range_doppler,
            "range-angle, dB": processed.range_angle,
            "angle-Doppler, dB": processed.angle_doppler,
            "range-Doppler, raw": raw.range_doppler,
            "range-angle, raw": raw.range_angle,
            "angle-Doppler, raw": raw.angle_doppler,
            "log10(X^2 + 1)": np.log10(np.square(magnitude) + 1),
        }
        for name, values in maps.items():
            moments = np.array([1.0, values.mean(dtype=np.float64), np.square(values, dtype=np.float64).mean()])
            sums[name] = sums.get(name, np.zeros(3)) + moments
    result = {name: (float(s / n), float(np.sqrt(q / n - (s / n) ** 2))) for name, (n, s, q) in sums.items()}
    return MapStatistics(result, np.bincount(objects) / max(len(objects), 1))


def median_by_bin(bins: NDArray[np.int64], values: Array, least: int = 10) -> dict[int, float]:
    """Median of the values in each bin that has at least ``least``; NaN is left out."""
    usable = ~np.isnan(values)
    bins, values = bins[usable], values[usable]
    return {int(b): float(np.median(values[bins == b])) for b in np.unique(bins) if (bins == b).sum() >= least}
