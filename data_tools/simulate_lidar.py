"""Make simulated LiDAR frames in the layout of a real dataset.

Example::

    python data_tools/simulate_lidar.py --out data/simulated_kitti --frames 200 --seed 0 --workers 2
    python data_tools/simulate_lidar.py --format waymo --out data/simulated_waymo --frames 40
    python data_tools/simulate_lidar.py --format once --out data/simulated_once --frames 100
"""

from __future__ import annotations

import argparse
import sys

from adperception.simulation.simulate_kitti import SimulateKitti
from adperception.simulation.simulate_once import SimulateOnce
from adperception.simulation.simulate_waymo import SimulateWaymo
from adperception.simulation.simulated_tree import SimulatedTree


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and simulate."""
    parser = argparse.ArgumentParser(description="Simulate a spinning LiDAR in procedural streets.")
    parser.add_argument("--out", required=True, help="folder of the tree")
    parser.add_argument(
        "--format",
        choices=["kitti", "waymo", "once"],
        default="kitti",
        help="whose layout (default: %(default)s): kitti has one 64-beam LiDAR and independent frames; waymo five "
        "LiDARs, drives and Parquet files; once one 40-beam LiDAR, drives and JSON files",
    )
    parser.add_argument("--frames", type=int, default=200, help="number of frames (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--val-share", type=float, default=0.2, help="share of the val split (default: %(default)s)")
    parser.add_argument("--raw-share", type=float, default=0.0, help="once: share of raw_small, which has no labels")
    parser.add_argument("--drive-frames", type=int, default=10, help="waymo, once: frames per drive (default: 10)")
    parser.add_argument("--reduced", action="store_true", help="kitti: also write velodyne_reduced (the camera's view)")
    options = parser.parse_args(arguments)
    try:
        simulation = _simulation(options)
        root = simulation()
    except (ValueError, OSError, ImportError) as error:
        print(error, file=sys.stderr)
        return 1
    speed = simulation.frames_per_second_per_core
    if speed is None:
        print(f"{root} is complete already: nothing to do.")
    else:
        print(f"{root}: {options.frames} frames, {speed:.1f} frames/s per core, labels and writing included")
    return 0


def _simulation(options: argparse.Namespace) -> SimulatedTree:
    common = dict(root=options.out, frames=options.frames, seed=options.seed, workers=options.workers)
    if options.format == "waymo":
        splits = {"training": 1 - options.val_share, "validation": options.val_share}
        return SimulateWaymo(**common, splits=splits, segment_frames=options.drive_frames)
    if options.format == "once":
        splits = {"train": 1 - options.val_share - options.raw_share, "val": options.val_share}
        if options.raw_share:
            splits["raw_small"] = options.raw_share
        return SimulateOnce(**common, splits=splits, sequence_frames=options.drive_frames)
    return SimulateKitti(
        **common, splits={"train": 1 - options.val_share, "val": options.val_share}, reduced=options.reduced
    )


if __name__ == "__main__":
    sys.exit(main())
