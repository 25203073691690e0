"""Look at an Argoverse 2 sensor tree, or have a model suggested for it.

    python data_tools/argoverse2.py check data/argoverse2 --split val --frames 100
    python data_tools/argoverse2.py suggest data/argoverse2 --split train --class-map coarse

``check`` reports logs and sweeps that are missing, reads the frames and compares boxes and points, ``num_interior_pts``
included; its exit status is 1 if it found an error. ``suggest`` prints sections of a config: the dataset, and a model
with range, voxel size, caps and anchors measured on it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adperception.datasets import Argoverse2
from adperception.datasets.data_check import check_dataset
from adperception.datasets.suggestions import suggest_model
from adperception.structures import VoxelGrid


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["check", "suggest"])
    parser.add_argument("root", type=Path, help="folder with sensor/ in it")
    parser.add_argument("--split", default="train", help="folder below sensor/ (default: train)")
    parser.add_argument(
        "--class-map", choices=["coarse"], help="Vehicle, Pedestrian, Cyclist instead of the categories"
    )
    parser.add_argument("--classes", nargs="+", help="suggest: only these (default: all that have boxes)")
    parser.add_argument("--frames", type=int, help="read only so many frames, evenly spread (suggest: 100)")
    parser.add_argument("--max-range", type=float, default=76.8, help="suggest: farthest limit along x and y in metres")
    parser.add_argument(
        "--range",
        type=float,
        nargs=6,
        default=[-76.8, -76.8, -3.0, 76.8, 76.8, 5.0],
        metavar=("X0", "Y0", "Z0", "X1", "Y1", "Z1"),
        help="check: point_cloud_range in metres (default: 76.8 m around the car)",
    )
    options = parser.parse_args(arguments)
    section: dict[str, Any] = {"type": "Argoverse2", "root": options.root.as_posix(), "split": options.split}
    for name in ("class_map", "classes"):
        if getattr(options, name) is not None:
            section[name] = getattr(options, name)
    try:
        dataset = Argoverse2(**{key: value for key, value in section.items() if key != "type"})
        if options.command == "suggest":
            suggestion = suggest_model(dataset, options.frames or 100, options.max_range)
            print(suggestion.fragment(train_dataset=section), end="")
            return 0
        return check(dataset, options.frames, options.range)
    except (ValueError, OSError, ImportError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1


def check(dataset: Argoverse2, frames: int | None, limits: Sequence[float]) -> int:
    """Print a report; 1 if there is an error in it."""
    times: dict[str, set[int]] = {}
    for name in dataset.frame_ids:
        log, _, time = name.partition("/")
        times.setdefault(log, set()).add(int(time))
    print(f"{dataset.directory}: {len(dataset)} sweeps of {len(times)} logs, labels: {dataset.labelled}")
    if dataset.labelled:
        for log, present in times.items():
            annotated = dataset.annotated_times(log)
            lacking, bare = sorted(annotated - present), sorted(present - annotated)
            if lacking:
                print(f"note: {log}: {len(lacking)} annotated sweeps have no cloud (first: {lacking[0]}.feather)")
            if bare:
                print(f"note: {log}: {len(bare)} sweeps have no annotation (first: {bare[0]}.feather)")
    voxel = [high - low for low, high in zip(limits[:3], limits[3:], strict=True)]  # one voxel: only the range counts
    report = check_dataset(dataset, VoxelGrid.create(limits, voxel), frames)
    print(report.table())
    return 1 if report.errors else 0


if __name__ == "__main__":
    sys.exit(main())
