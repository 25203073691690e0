"""Compare simulated frames with recorded KITTI frames by the same statistics, and draw the pictures of the docs.

Run: ``python benchmarks/simulated_vs_real.py --real ../shared/data/lidar/kitti --frames 200 --images docs/images``

The recorded tree needs ``ImageSets/trainval.txt`` (whole sweeps) and may have ``trainval_reduced.txt`` (sweeps cut to
the camera's view; they count for the cars only).
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from adperception.datasets.formats.kitti_boxes import from_kitti_camera
from adperception.datasets.formats.kitti_calib import read_calibration
from adperception.datasets.formats.kitti_label import read_labels
from adperception.datasets.formats.point_files import read_points
from adperception.simulation.realism import SweepStatistics, median_points_per_car, statistics_of_tree
from adperception.simulation.simulate_kitti import SimulateKitti

COLOURS = {"recorded": "tab:gray", "simulated": "tab:blue"}


def ids(root: Path, name: str) -> list[str]:
    path = root / "ImageSets" / f"{name}.txt"
    return path.read_text(encoding="utf-8").split() if path.is_file() else []


def table(real: SweepStatistics, simulated: SweepStatistics) -> str:
    rows = [
        "| | recorded | simulated | ratio |",
        "| --- | --- | --- | --- |",
        f"| frames | {len(real.returns)} | {len(simulated.returns)} | |",
        _row("mean returns per frame", real.returns.mean(), simulated.returns.mean(), "{:,.0f}"),
        _row("mean share of ground points", real.ground_share.mean(), simulated.ground_share.mean(), "{:.3f}"),
        _row("median intensity", float(np.median(real.intensity)), float(np.median(simulated.intensity)), "{:.2f}"),
        _row("median range, m", float(np.median(real.range_m)), float(np.median(simulated.range_m)), "{:.1f}"),
    ]
    real_cars, simulated_cars = median_points_per_car(real), median_points_per_car(simulated)
    for b in sorted(real_cars):
        name = f"median points per car, {b} to {b + 10} m (cars: {real_cars[b][1]} / {simulated_cars[b][1]})"
        rows.append(_row(name, real_cars[b][0], simulated_cars[b][0], "{:,.1f}"))
    return "\n".join(rows)


def _row(name: str, real: float, simulated: float, form: str) -> str:
    return f"| {name} | {form.format(real)} | {form.format(simulated)} | {simulated / real:.2f} |"


def draw_statistics(real: SweepStatistics, simulated: SweepStatistics, path: Path) -> None:
    figure, axes = plt.subplots(2, 3, figsize=(13, 7.2), layout="constrained")
    pairs = (("recorded", real), ("simulated", simulated))
    for name, s in pairs:
        style: dict[str, Any] = {"color": COLOURS[name], "label": name, "alpha": 0.6, "density": True}
        axes[0, 0].hist(s.returns / 1000, np.arange(100, 130, 2.0), **style)
        axes[0, 1].hist(s.ground_share, np.arange(0.2, 0.9, 0.05), **style)
        axes[1, 0].hist(s.range_m, np.geomspace(3, 80, 50), **style)
        axes[1, 1].hist(s.intensity, np.arange(0, 1.01, 0.02), **style)
        axes[1, 2].hist(s.elevation_deg, np.arange(-26, 6, 0.5), **style)
        axes[0, 2].scatter(s.car_range_m, np.maximum(s.car_points, 0.7), s=6, color=COLOURS[name], alpha=0.45)
        medians = median_points_per_car(s)
        axes[0, 2].plot(
            [b + 5 for b in medians], [m for m, _ in medians.values()], "o-", color=COLOURS[name], label=name
        )
    titles = ("returns per frame, thousands", "share of ground points", "points per car by range, medians per 10 m")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title, fontsize=10)
    for axis, title in zip(axes[1], ("range of points, m", "intensity", "elevation, degrees"), strict=True):
        axis.set_title(title, fontsize=10)
    axes[0, 2].set(yscale="log", xlabel="range, m")
    axes[1, 0].set_xscale("log")
    axes[1, 0].set_xticks([3, 5, 10, 20, 40, 80], ["3", "5", "10", "20", "40", "80"])
    axes[1, 0].minorticks_off()
    axes[0, 0].legend(frameon=False)
    for axis in axes.flat:
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def draw_scenes(root: Path, frame_ids: list[str], path: Path) -> None:
    """Six simulated frames from above, with their labels."""
    figure, axes = plt.subplots(2, 3, figsize=(15, 8.2), layout="constrained", facecolor="black")
    for axis, frame_id in zip(axes.flat, frame_ids, strict=False):
        points = read_points(root / f"training/velodyne/{frame_id}.bin").points
        axis.scatter(points[:, 0], points[:, 1], s=0.25, c=np.clip(points[:, 2], -2.5, 2.5), cmap="viridis", lw=0)
        labels = read_labels(root / f"training/label_2/{frame_id}.txt")
        boxes = from_kitti_camera(labels, read_calibration(root / f"training/calib/{frame_id}.txt"))
        for name, corners in zip(boxes.names, boxes.corners(), strict=True):
            outline = corners[[0, 1, 2, 3, 0]]
            axis.plot(outline[:, 0], outline[:, 1], lw=1.0, color="tab:red" if name == "Car" else "tab:orange")
        axis.set(xlim=(-45, 55), ylim=(-32, 32), aspect="equal", xticks=[], yticks=[], facecolor="black")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def draw_view(root: Path, frame_ids: list[str], path: Path) -> None:
    """What the sensor sees ahead, in azimuth and elevation, coloured by range."""
    figure, axes = plt.subplots(len(frame_ids), 1, figsize=(12, 2.4 * len(frame_ids)), layout="constrained")
    for axis, frame_id in zip(np.atleast_1d(axes), frame_ids, strict=True):
        points = read_points(root / f"training/velodyne/{frame_id}.bin").points
        horizontal = np.hypot(points[:, 0], points[:, 1])
        azimuth = np.degrees(np.arctan2(points[:, 1], points[:, 0]))
        elevation = np.degrees(np.arctan2(points[:, 2], horizontal))
        axis.scatter(-azimuth, elevation, s=1.5, c=np.log(horizontal), cmap="turbo", lw=0)
        axis.set(xlim=(-70, 70), ylim=(-25, 3), facecolor="black", xlabel="degrees to the right", ylabel="elevation")
    figure.savefig(path, dpi=64)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--real", type=Path, required=True, help="recorded tree in KITTI's layout")
    parser.add_argument("--frames", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--images", type=Path, help="folder for the pictures")
    options = parser.parse_args()
    whole = ids(options.real, "trainval")
    cut = [i for i in ids(options.real, "trainval_reduced") if i not in whole]
    real = statistics_of_tree(options.real, whole, car_frames_reduced=cut)
    with tempfile.TemporaryDirectory() as folder:
        root = SimulateKitti(Path(folder) / "tree", frames=options.frames, seed=options.seed, workers=options.workers)()
        frame_ids = ids(root, "trainval")
        simulated = statistics_of_tree(root, frame_ids)
        print(table(real, simulated))
        if options.images is not None:
            options.images.mkdir(parents=True, exist_ok=True)
            draw_statistics(real, simulated, options.images / "simulated_vs_real.png")
            draw_scenes(root, frame_ids[:6], options.images / "simulated_scenes.png")
            draw_view(root, frame_ids[1:4], options.images / "simulated_view.png")


if __name__ == "__main__":
    main()
