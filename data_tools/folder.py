"""Look at a folder of clouds with or without a table of labels, or have a model suggested for it.

    python data_tools/folder.py check data/my_drives --labels labels.csv --intensity-max 255
    python data_tools/folder.py suggest data/my_drives --labels labels.csv --intensity-max 255

``check`` reads the frames and reports counts, damaged files, NaN points, sizes per class, the share of labelled boxes
that hold points, and whether boxes and points look as if they were in different frames; its exit status is 1 if it
found an error. ``suggest`` prints a config: the datasets, and a model with range, voxel size, caps and anchors measured
on the first; ``--base`` names a config for the rest.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adperception.datasets import Folder
from adperception.datasets.data_check import check_dataset
from adperception.datasets.suggestions import suggest_model
from adperception.structures import XYZI, VoxelGrid


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["check", "suggest"])
    parser.add_argument(
        "root", type=Path, help="folder of .bin .npy .npz .pcd .ply .las files, searched with all below"
    )
    parser.add_argument("--labels", help="table of boxes, .csv or .jsonl; below root or elsewhere")
    parser.add_argument("--unlisted-frames", default="error", choices=["error", "empty", "skip"])
    parser.add_argument("--classes", nargs="+", help="suggest: only these (default: all that have boxes)")
    parser.add_argument(
        "--channels", nargs="+", default=list(XYZI), help="what a point holds (default: x y z intensity)"
    )
    parser.add_argument("--intensity-max", type=float, default=1.0, help="the sensor's largest intensity, often 255")
    parser.add_argument("--npz-field", help="name of the array in .npz files, if they hold more than one")
    parser.add_argument("--split", help="text file of frame names (default: all files)")
    parser.add_argument("--val-split", help="suggest: text file of the frames to validate on (default: the same)")
    parser.add_argument("--base", help='suggest: config to inherit the rest from, e.g. "second_folder.py" beside yours')
    parser.add_argument("--frames", type=int, help="read only so many frames, evenly spread (suggest: 100)")
    parser.add_argument("--max-range", type=float, default=76.8, help="suggest: farthest limit along x and y in metres")
    parser.add_argument(
        "--range",
        type=float,
        nargs=6,
        metavar=("X0", "Y0", "Z0", "X1", "Y1", "Z1"),
        help="check: point_cloud_range in metres, to see how much lies in it",
    )
    options = parser.parse_args(arguments)
    section: dict[str, Any] = {"type": "Folder", "root": options.root.as_posix(), "split": options.split}
    for name in ("labels", "classes", "npz_field"):
        if getattr(options, name) is not None:
            section[name] = getattr(options, name)
    if options.labels is not None and options.unlisted_frames != "error":
        section["unlisted_frames"] = options.unlisted_frames
    section.update(channels=options.channels, intensity_max=options.intensity_max)
    try:
        dataset = Folder(**{key: value for key, value in section.items() if key != "type"})
        if options.command == "suggest":
            suggestion = suggest_model(dataset, options.frames or 100, options.max_range)
            validation = {**section, "split": options.val_split or options.split}
            base = f'_base_ = "{options.base}"\n\n' if options.base else ""
            print(base + suggestion.fragment(train_dataset=section, val_dataset=validation), end="")
            return 0
        return check(dataset, options.frames, options.range)
    except (ValueError, OSError, ImportError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1


def check(dataset: Folder, frames: int | None, limits: Sequence[float] | None) -> int:
    """Print a report; 1 if there is an error in it."""
    suffixes = sorted({Path(name).suffix for name in dataset.frame_ids})
    print(f"{dataset.root}: {len(dataset)} frames ({', '.join(suffixes)}), labels: {dataset.table_path or 'none'}")
    grid = None
    if limits is not None:  # one voxel: only the range counts
        grid = VoxelGrid.create(limits, [high - low for low, high in zip(limits[:3], limits[3:], strict=True)])
    report = check_dataset(dataset, grid, frames)
    print(report.table())
    return 1 if report.errors else 0


if __name__ == "__main__":
    sys.exit(main())
