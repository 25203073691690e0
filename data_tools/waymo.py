"""Look at a tree of Waymo Open Dataset v2, or get it ready for training.

    python data_tools/waymo.py check data/waymo --split training --frames 200
    python data_tools/waymo.py prepare data/waymo --split training

``check`` reads frames and reports counts, files that are missing or damaged, the share of labelled boxes that hold
points, and whether boxes and points look as if they were in different frames; its exit status is 1 if it found an
error. ``prepare`` rewrites ``lidar`` and ``lidar_pose`` **in place**, file by file, so that a frame can be read without
decoding its fifty neighbours (same rows, same columns; an interrupted file stays as it was), and writes the index of
frames.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from tqdm import tqdm

from adperception.datasets import Waymo
from adperception.datasets.data_check import check_dataset
from adperception.datasets.formats.waymo_parquet import COMPONENTS, frame_times, group_by_frame, is_grouped_by_frame
from adperception.structures import VoxelGrid


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["check", "prepare"])
    parser.add_argument("root", type=Path, help="folder with training/ in it")
    parser.add_argument("--split", default="training", help="folder below root (default: training)")
    parser.add_argument("--frames", type=int, help="check: read only so many frames, evenly spread")
    parser.add_argument(
        "--range",
        type=float,
        nargs=6,
        default=[-75.2, -75.2, -2.0, 75.2, 75.2, 4.0],
        metavar=("X0", "Y0", "Z0", "X1", "Y1", "Z1"),
        help="check: point_cloud_range in metres (default: the usual one of Waymo)",
    )
    options = parser.parse_args(arguments)
    try:
        if options.command == "check":
            return check(options.root, options.split, options.frames, options.range)
        return prepare(options.root, options.split)
    except (ValueError, OSError, ImportError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1


def check(root: Path, split: str, frames: int | None, limits: Sequence[float]) -> int:
    """Print a report; 1 if there is an error in it."""
    folder = root / split
    segments = {name: {p.stem for p in (folder / name).glob("*.parquet")} for name in COMPONENTS}
    every = sorted(set().union(*segments.values()))
    errors = []
    print(f"{folder}: {len(every)} segments")
    for name, present in segments.items():
        missing = [s for s in every if s not in present]
        some = f"; missing: {', '.join(missing[:3])}{' ...' if len(missing) > 3 else ''}" if missing else ""
        print(f"  {name + '/':<18} {len(present)} of {len(every)}{some if present else ''}")
        if missing and present:
            errors.append(
                f"{folder / name} lacks {len(missing)} segments (first: {missing[0]}.parquet). Download them."
            )
    whole, coarse = [], 0
    for segment in (s for s in every if all(s in present for present in segments.values() if present)):
        try:
            errors += _check_times(folder, segment)
            coarse += not is_grouped_by_frame(folder / "lidar" / f"{segment}.parquet")
            whole.append(segment)
        except (ValueError, OSError) as error:  # one bad file must not hide the others
            errors.append(str(error))
    if coarse:
        print(f"  {coarse} files in lidar/ are as downloaded: frames read slowly until `prepare` has run")
    if whole:
        voxel = [high - low for low, high in zip(limits[:3], limits[3:], strict=True)]  # one voxel: the range counts
        dataset = Waymo(root, split, whole, classes=None)
        report = check_dataset(dataset, VoxelGrid.create(limits, voxel), frames)
        print(replace(report, errors=()).table())
        errors += report.errors
    else:
        errors.append(f"{folder} has no segment with all its files.")
    for problem in errors:
        print(f"ERROR: {problem}")
    return 1 if errors else 0


def _check_times(folder: Path, segment: str) -> list[str]:
    """What is wrong with the times of a segment's labels: frames that have no range image."""
    labels = folder / "lidar_box" / f"{segment}.parquet"
    if not labels.is_file():
        return []
    bare = np.setdiff1d(frame_times(labels), frame_times(folder / "lidar" / f"{segment}.parquet"))
    if not len(bare):
        return []
    return [f"{labels} has labels of {len(bare)} frames without a range image (first: {bare[0]}). Download both again."]


def prepare(root: Path, split: str) -> int:
    """Give every frame its row group where it has none yet, then write the index."""
    files = sorted(p for name in ("lidar", "lidar_pose") for p in (root / split / name).glob("*.parquet"))
    coarse = [path for path in files if not is_grouped_by_frame(path)]
    for path in tqdm(coarse, desc="grouping by frame", unit="file", disable=None):
        group_by_frame(path)
    dataset = Waymo(root, split)
    print(f"{root / split}: {len(coarse)} of {len(files)} files rewritten; {len(dataset)} frames in the index")
    return 0


if __name__ == "__main__":
    sys.exit(main())
