"""Compare simulated recordings with CARRADA's statistics, print the table and draw the pictures of the docs.

Run: ``python benchmarks/radar_simulated_vs_real.py --real ../shared/data/radar/carrada --images docs/images``

The real side: mean raw amplitude and area of every labelled object in CARRADA, the masks of its test split, the levels
of its labelled pixels. Labels are simulated with ``ra_label_axis="angle"``, because CARRADA's are displaced like that.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from adperception.simulation.radar_labels import AzimuthAxis
from adperception.simulation.radar_objects import CLASS_NAMES
from adperception.simulation.radar_realism import (
    InstanceStatistics,
    MapStatistics,
    instance_statistics,
    map_statistics,
    median_by_bin,
)
from adperception.simulation.radar_sequence import RadarSequence, SimulatedRadarFrame
from adperception.structures.radar_cube import RadarViews

CLASSES = (1, 2, 3)
PUBLISHED = {
    "range-Doppler, dB": (58.471, 3.749),
    "range-angle, dB": (56.002, 5.762),
    "angle-Doppler, dB": (59.622, 4.212),
    "range-Doppler, raw": (14884.8, 43694.0),
    "range-angle, raw": (3721.2, 2501.9),
    "angle-Doppler, raw": (14884.8, 19839.6),
    "log10(X^2 + 1)": (3.2145, 0.6444),
}
LENGTH = 400


def frames(
    radar: str, seeds: range, count: int, axis: AzimuthAxis, *, with_objects: bool
) -> Iterator[SimulatedRadarFrame]:
    """Some frames of each of many recordings."""
    for seed in seeds:
        sequence = RadarSequence(seed, LENGTH, radar, axis)
        chosen = np.arange(LENGTH)
        if with_objects:
            present = np.zeros(LENGTH, dtype=bool)
            for user in sequence.scene.road_users:
                present[max(user.first_frame, 0) : user.end_frame] = True
            chosen = np.flatnonzero(present)
        for index in np.random.default_rng(seed).permutation(chosen)[:count]:
            yield sequence[int(index)]


def real_masks(path: Path) -> dict[str, dict[int, list[int]]]:
    """Pixels of each class in each frame of the test split, by view."""
    result: dict[str, dict[int, list[int]]] = {
        view: {c: [] for c in CLASSES} for view in ("range_angle", "range_doppler")
    }
    with np.load(path) as stored:
        for key in stored.files:
            if not key.endswith("__gt"):
                continue
            for class_id in CLASSES:
                pixels = (stored[key] == class_id).sum((1, 2))
                result[key.split("__")[0]][class_id] += pixels[pixels > 0].tolist()
    return result


def tables(real: Path, simulated: InstanceStatistics, maps: MapStatistics) -> str:
    lines = ["| map | CARRADA mean, std | simulated mean, std |", "| --- | --- | --- |"]
    for name, (mean, std) in PUBLISHED.items():
        our_mean, our_std = maps.values[name]
        lines.append(f"| {name} | {mean:,.5g}, {std:,.5g} | {our_mean:,.5g}, {our_std:,.5g} |")
    shares = ", ".join(f"{share:.1%}" for share in maps.objects)
    lines += ["", f"Frames with 0, 1, 2 labelled objects: {shares} (CARRADA's test split 34 %, 55 %, 11 %).", ""]
    stored = np.load(real / "instance_power_area_by_bin.npz")
    levels = np.load(real / "train_class_pixel_power_db.npz")
    masks = real_masks(real / "test_masks_and_tmvanet_predictions.npz")
    lines += ["| median | " + " | ".join(CLASS_NAMES[1:]) + " |", "| --- | --- | --- | --- |"]
    rows: dict[str, list[str]] = {}
    for class_id in CLASSES:
        name, own = CLASS_NAMES[class_id], simulated.class_id == class_id

        def add(label: str, recorded: float, values: np.ndarray) -> None:
            ours = float(np.median(values))
            rows.setdefault(label, []).append(f"{recorded:,.0f} / {ours:,.0f} ({ours / recorded:.2f})")

        add("range-angle label, pixels", np.median(stored[f"{name}__range__area"]), simulated.area[own, 0])
        add("range-Doppler label, pixels", np.median(stored[f"{name}__doppler__area"]), simulated.area[own, 1])
        add("range-angle mask, pixels", np.median(masks["range_angle"][class_id]), simulated.dense[own, 0])
        add("range-Doppler mask, pixels", np.median(masks["range_doppler"][class_id]), simulated.dense[own, 1])
        add("range-angle amplitude", np.nanmedian(stored[f"{name}__range__power"]), simulated.amplitude[own, 0])
        add("range-Doppler amplitude", np.nanmedian(stored[f"{name}__doppler__power"]), simulated.amplitude[own, 1])
        for view, short in enumerate(("ra", "rd")):
            key = f"{short}_{name[:3]}"
            text = "n/a" if key not in levels else " ".join(f"{v:.0f}" for v in np.percentile(levels[key], [5, 50, 95]))
            ours = " ".join(f"{v:.0f}" for v in np.percentile(simulated.level_db[class_id][view], [5, 50, 95]))
            label = f"{('range-angle', 'range-Doppler')[view]} mask, dB at 5, 50, 95 %"
            rows.setdefault(label, []).append(f"{text} / {ours}")
    lines += [f"| {label} | {' | '.join(cells)} |" for label, cells in rows.items()]
    return "\n".join(lines)


def by_bin(real: Path, simulated: InstanceStatistics) -> list[tuple[int, int, int, int, float, float, float, float]]:
    """(class, bin, objects real, simulated, amplitude real, simulated, area real, simulated)."""
    stored = np.load(real / "instance_power_area_by_bin.npz")
    result = []
    for class_id in CLASSES:
        key, own = f"{CLASS_NAMES[class_id]}__range", simulated.class_id == class_id
        bins = stored[f"{key}__bin"].astype(np.int64)
        power = median_by_bin(bins, stored[f"{key}__power"].astype(np.float64), 20)
        area = median_by_bin(bins, stored[f"{key}__area"].astype(np.float64), 20)
        our_bins = simulated.range_bin[own]
        our_power = median_by_bin(our_bins, simulated.amplitude[own, 0], 10)
        our_area = median_by_bin(our_bins, simulated.area[own, 0], 10)
        for b in sorted(set(power) & set(our_power)):
            counts = int((bins == b).sum()), int((our_bins == b).sum())
            result.append((class_id, b, *counts, power[b], our_power[b], area[b], our_area[b]))
    return result


def report(rows: list[tuple[int, int, int, int, float, float, float, float]]) -> str:
    lines = []
    for class_id in CLASSES:
        own = [row for row in rows if row[0] == class_id]
        off = {row[1]: 20 * np.log10(row[5] / row[4]) for row in own}
        ratio = {row[1]: row[7] / row[6] for row in own}
        missed = ", ".join(f"bin {b} ({db:+.1f} dB)" for b, db in off.items() if abs(db) > 3) or "none"
        wide = ", ".join(f"{b} ({r:.2f})" for b, r in ratio.items() if not 0.75 <= r <= 1.25) or "none"
        name = CLASS_NAMES[class_id]
        lines.append(f"{name}: {len(own)} bins; amplitude off by more than 3 dB: {missed}; area outside 25 %: {wide}")
    return "\n".join(lines)


def draw_statistics(real: Path, simulated: InstanceStatistics, rows: list[Any], path: Path) -> None:
    levels = np.load(real / "train_class_pixel_power_db.npz")
    figure, axes = plt.subplots(3, 3, figsize=(13, 9.5), layout="constrained")
    for column, class_id in enumerate(CLASSES):
        own = [row for row in rows if row[0] == class_id]
        metres = [(row[1] + 0.5) * 1.5625 for row in own]
        name = CLASS_NAMES[class_id]
        for axis, index in ((axes[0, column], 4), (axes[1, column], 6)):
            axis.plot(metres, [row[index] for row in own], "o-", color="tab:gray", label="CARRADA", ms=4)
            axis.plot(metres, [row[index + 1] for row in own], "o-", color="tab:blue", label="simulated", ms=4)
            axis.set(yscale="log", xlabel="range, m", xlim=(0, 50))
            if index == 4:
                recorded = np.array([row[4] for row in own])
                axis.fill_between(metres, recorded / 2**0.5, recorded * 2**0.5, color="tab:gray", alpha=0.2, lw=0)
        axes[0, column].set_title(f"{name}: median raw amplitude (band: 3 dB)", fontsize=10)
        axes[1, column].set_title(f"{name}: median label area, range-angle pixels", fontsize=10)
        style: dict[str, Any] = {"density": True, "alpha": 0.6, "bins": np.arange(50, 105, 1.0)}
        axes[2, column].hist(levels[f"rd_{name[:3]}"], color="tab:gray", label="CARRADA", **style)
        axes[2, column].hist(simulated.level_db[class_id][1], color="tab:blue", label="simulated", **style)
        axes[2, column].set_title(f"{name}: range-Doppler level of mask pixels, dB", fontsize=10)
    axes[0, 0].legend(frameon=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def draw_frames(radar: str, seeds: tuple[int, ...], path: Path) -> None:
    """Both views of a labelled frame per recording, outlines of the masks in colours of the classes."""
    figure, axes = plt.subplots(2, len(seeds), figsize=(3.2 * len(seeds), 8), layout="constrained")
    colours = ("", "tab:red", "tab:orange", "cyan")
    for column, seed in enumerate(seeds):
        sequence = RadarSequence(seed, LENGTH, radar)
        index = next(i for i in range(10, LENGTH, 10) if sequence[i].instances)
        frame = sequence[index]
        views = RadarViews.processed(frame.cube.magnitude())
        pairs = (
            (views.range_doppler, frame.masks.range_doppler, True),
            (views.range_angle, frame.masks.range_angle, False),
        )
        for axis, (view, mask, near_first) in zip(axes[:, column], pairs, strict=True):
            origin: Any = "lower" if near_first else "upper"
            floor = float(np.median(view))
            axis.imshow(view, aspect="auto", cmap="viridis", origin=origin, vmin=floor - 4, vmax=floor + 24)
            for class_id in np.unique(mask[mask > 0]):
                axis.contour(mask == class_id, [0.5], colors=colours[class_id], linewidths=1.2)
        classes = ", ".join(CLASS_NAMES[label.class_id] for label in frame.instances)
        axes[0, column].set_title(f"range-Doppler\n{classes}", fontsize=10)
        axes[1, column].set_title("range-angle", fontsize=10)
    figure.savefig(path, dpi=70)
    plt.close(figure)


def draw_row_profile(real: Path, path: Path) -> None:
    """Medians of the rows of a recorded range-angle map (sum of magnitudes) and of a simulated one without objects."""
    recorded = np.load(real / "range_angle_raw_frame.npy")
    sequence = RadarSequence(11, LENGTH)
    index = next(i for i in range(LENGTH) if not sequence[i].instances)
    ours = RadarViews.raw(sequence[index].cube.magnitude()).range_angle
    figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for name, values, colour in (("CARRADA", recorded, "tab:gray"), ("simulated", ours, "tab:blue")):
        axis.plot(np.median(values, axis=1), color=colour, label=name)
    axis.set(yscale="log", xlabel="row (0 far)", ylabel="median of the row")
    axis.legend(frameon=False)
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path, required=True, help="folder with CARRADA's statistics")
    parser.add_argument("--sequences", type=int, default=300)
    parser.add_argument("--per-sequence", type=int, default=6)
    parser.add_argument("--seed", type=int, default=50_000, help="first seed; those of the calibration are below")
    parser.add_argument("--images", type=Path)
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + options.sequences)
    maps = map_statistics(frames("carrada", seeds, 1, "angle", with_objects=False))
    simulated = instance_statistics(frames("carrada", seeds, options.per_sequence, "angle", with_objects=True))
    print(f"{len(simulated.class_id)} labelled objects in {options.sequences} recordings\n")
    print(tables(options.real, simulated, maps), "\n")
    rows = by_bin(options.real, simulated)
    print("| class | bin | objects | amplitude | dB | area | ratio |\n| --- | --- | --- | --- | --- | --- | --- |")
    for class_id, b, n, m, power, ours, area, our_area in rows:
        off = 20 * np.log10(ours / power)
        print(
            f"| {CLASS_NAMES[class_id]} | {b} | {n} / {m} | {power:,.0f} / {ours:,.0f} | {off:+.1f} | "
            f"{area:.0f} / {our_area:.0f} | {our_area / area:.2f} |"
        )
    print("\n" + report(rows))
    if options.images:
        draw_statistics(options.real, simulated, rows, options.images / "radar_simulated_vs_real.png")
        draw_frames("carrada", (1, 2, 3, 4), options.images / "radar_simulated_frames.png")
        draw_frames("carrada_small", (1, 2, 3, 4), options.images / "radar_simulated_small.png")
        draw_row_profile(options.real, options.images / "radar_simulated_rows.png")


if __name__ == "__main__":
    main()
