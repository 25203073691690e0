"""Make simulated radar recordings in the layout of a real dataset.

Example::

    python data_tools/simulate_radar.py --out data/simulated_carrada --frames 400 --seed 0 --workers 2
    python data_tools/simulate_radar.py --out data/small --frames 4000 --radar carrada_small --workers 2
    python data_tools/simulate_radar.py --format raddet --out data/simulated_raddet --frames 200
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from adperception.registry import PREPARATIONS, build


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and simulate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder of the tree")
    parser.add_argument(
        "--format",
        choices=["carrada", "raddet"],
        default="carrada",
        help="whose layout (default: %(default)s): carrada has sequences of magnitude cubes with views and masks; "
        "raddet complex cubes with boxes",
    )
    parser.add_argument("--frames", type=int, default=200, help="number of frames (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="same seed, same bytes (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes (default: %(default)s)")
    parser.add_argument(
        "--radar",
        default="carrada",
        help="preset of the sensor; carrada_small has 64 x 64 x 16 cells (default: carrada)",
    )
    only = parser.add_argument_group("carrada")
    only.add_argument("--sequence-frames", type=int, default=20, help="frames per sequence (default: %(default)s)")
    only.add_argument(
        "--ra-label-axis",
        choices=["sin", "angle"],
        default="sin",
        help="range-angle labels where the echo is (sin), or displaced as in CARRADA (angle); default: %(default)s",
    )
    only.add_argument(
        "--packed", choices=["lossless", "log_float16"], help="also write one HDF5 file per sequence, coded so"
    )
    options = parser.parse_args(arguments)
    section: dict[str, Any] = dict(
        root=options.out, frames=options.frames, seed=options.seed, workers=options.workers, radar=options.radar
    )
    if options.format == "carrada":
        section |= dict(
            type="SimulateCARRADA",
            sequence_frames=options.sequence_frames,
            ra_label_axis=options.ra_label_axis,
            packed=options.packed,
        )
    else:
        section |= dict(type="SimulateRADDet")
    try:
        simulation = build(PREPARATIONS, section)
        root = simulation()
    except (ValueError, OSError) as error:
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
