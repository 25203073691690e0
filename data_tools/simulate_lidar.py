"""Make simulated LiDAR frames in the layout of a real dataset.

Example::

    python data_tools/simulate_lidar.py --out data/simulated_kitti --frames 200 --seed 0 --workers 2
"""

from __future__ import annotations

import argparse
import sys

from adperception.simulation.simulate_kitti import SimulateKitti


def main(arguments: list[str] | None = None) -> int:
    """Parse the command line and simulate."""
    parser = argparse.ArgumentParser(description="Simulate a spinning 64-beam LiDAR in procedural streets.")
    parser.add_argument("--out", required=True, help="folder of the tree")
    parser.add_argument("--frames", type=int, default=200, help="number of frames (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument("--layout", choices=["kitti"], default="kitti", help="folder layout (default: %(default)s)")
    parser.add_argument("--val-share", type=float, default=0.2, help="share of the val split (default: %(default)s)")
    parser.add_argument("--reduced", action="store_true", help="also write velodyne_reduced (the camera's view)")
    options = parser.parse_args(arguments)
    try:
        simulation = SimulateKitti(
            root=options.out,
            frames=options.frames,
            seed=options.seed,
            workers=options.workers,
            splits={"train": 1 - options.val_share, "val": options.val_share},
            reduced=options.reduced,
        )
        root = simulation()
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    speed = simulation.frames_per_second_per_core
    if speed is None:
        print(f"{root} is complete already: nothing to do.")
    else:
        print(f"{root}: {options.frames} frames, {speed:.1f} frames/s per core, labels and writing included")
    return 0


if __name__ == "__main__":
    sys.exit(main())
